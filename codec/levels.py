"""Quality levels: how many there are, and the quantiser's step at each."""

from __future__ import annotations

from typing import Any

LEVELS = 48
TRAINED_LEVELS = 40  # the finer ones take what the network learned for the last of these
COARSEST_STEP = 14.0  # step of level 0, in units of the latents; 8 levels halve it


def step_size(level: Any) -> Any:
    """Step of a quality level (0 .. 47; number, array or tensor), before the gains of the channels."""
    return COARSEST_STEP * 2 ** (-level / 8)

"""What callers of `Codec` may ask for, checked before any work."""

from __future__ import annotations

import numpy as np

from .diffusion.ddcm import DDCM
from .encoding.enhancement import layer_setting
from .errors import ModelError
from .stages import CodecModel

MAX_BITRATE = 512.0  # kbit/s; more is surely meant in bit/s


def check_quality(model: CodecModel, quality: int | None) -> int:
    """The level that a quality asks for, or the model's own choice.

    Raises:
        ValueError: no integer, or out of range.
    """
    if isinstance(quality, bool) or not isinstance(quality, int | np.integer | None):
        raise ValueError(f"a quality is an integer, not {quality!r}")
    level = model.default_quality if quality is None else int(quality)
    if not 0 <= level < model.codebook.levels:
        raise ValueError(f"this model has quality 0 to {model.codebook.levels - 1}, not {level}")
    return level


def check_rate(model: CodecModel, bitrate: float | None, quality: int | None, both: bool = False) -> int:
    """The same, next to a bitrate in kbit/s.

    Args:
        both: whether a bitrate and a quality can stand together.

    Raises:
        ValueError: of a wrong type, out of range, or both.
    """
    if bitrate is not None and quality is not None and not both:
        raise ValueError("give a bitrate or a quality, not both")
    if bitrate is not None:
        if isinstance(bitrate, bool) or not isinstance(bitrate, int | float | np.number):
            raise ValueError(f"a bitrate is a number of kbit/s, not {bitrate!r}")
        if not bitrate > 0:
            raise ValueError(f"a bitrate is above 0 kbit/s, not {bitrate:g}")
        if bitrate > MAX_BITRATE:
            raise ValueError(f"a bitrate is in kbit/s: {bitrate:g} is too much; did you mean {bitrate / 1000:g}?")
    return check_quality(model, quality)


def check_layers(
    model: CodecModel, layers: str, ddcm: DDCM | None, steps: int | None, level: int, bitrate: float | None
) -> DDCM | None:
    """Setting of an enhancement layer; None: there is none, or it is chosen by the bitrate.

    Raises:
        ValueError: layers that there are not, or a setting that does not fit them.
        ModelError: the model has no denoiser.
    """
    if layers not in ("base", "both", "ddcm"):
        raise ValueError(f"no layers {layers}; there are base, both, ddcm")
    if layers == "base" and ddcm is not None:
        raise ValueError("a DDCM setting is for the layers both and ddcm")
    plain = DDCM() if steps is None else DDCM(steps)
    if layers == "base":
        return None
    if model.denoiser is None:
        raise ModelError(f"model {model.name} has no denoiser")
    if layers == "both":
        layer_setting(model.denoiser, plain, level)
    return ddcm or (plain if bitrate is None else None)

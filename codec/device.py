"""Where networks and signal processing run."""

from __future__ import annotations

import torch

from .errors import ModelError


def bfloat16(device: str) -> torch.autocast:
    """A context in which networks run in bfloat16, in half of the time, on CPUs with instructions for it.

    For decoding only: encoders shall write the same bytes on every CPU.
    """
    features = ("avx512_bf16", "amx_bf16")
    enabled = device == "cpu" and any(torch.cpu.get_capabilities().get(name) for name in features)
    return torch.autocast("cpu", torch.bfloat16, enabled)


def find_device(name: str | None) -> str:
    """The device of that name; "auto": a GPU if there is one; None: the CPU.

    Raises:
        ModelError: there is none of that name.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=name or "cpu")
    except (RuntimeError, AssertionError) as error:
        raise ModelError(f"no device {name}: {str(error).splitlines()[0]}") from error
    return name or "cpu"

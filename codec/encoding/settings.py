"""Settings of an encode, checked before any work."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..diffusion.ddcm import DDCM
from ..errors import ModelError
from ..stages import CodecModel
from .enhancement import layer_setting

MAX_BITRATE = 512.0  # kbit/s; more is surely meant in bit/s


def check_quality(model: CodecModel, quality: int | None) -> int:
    """The level of a quality; None: the model's default.

    Raises:
        ValueError: no integer, or out of range.
    """
    if isinstance(quality, bool) or not isinstance(quality, int | np.integer | None):
        raise ValueError(f"a quality is an integer, not {quality!r}")
    level = model.default_quality if quality is None else int(quality)
    if not 0 <= level < model.codebook.levels:
        raise ValueError(f"this model has quality 0 to {model.codebook.levels - 1}, not {level}")
    return level


@dataclass(frozen=True)
class EncodeSettings:
    """Rate and layers of a file.

    Attributes:
        bitrate: kbit/s of the whole file; None: whatever the level takes.
        level: of the base layer; None: what the bitrate allows.
        layers: "base", "both" or "ddcm".
        ddcm: setting of the enhancement layer; None: there is none, or it follows from the bitrate and `steps`.
        steps: of the diffusion; None: a default.
    """

    bitrate: float | None
    level: int | None
    layers: str = "base"
    ddcm: DDCM | None = None
    steps: int | None = None

    @classmethod
    def check(
        cls,
        model: CodecModel,
        bitrate: float | None,
        quality: int | None,
        layers: str = "base",
        ddcm: DDCM | None = None,
        steps: int | None = None,
    ) -> EncodeSettings:
        """Settings from the arguments of `Codec.encode`.

        Raises:
            ValueError: an argument of a wrong type or out of range, or some that exclude each other.
            ModelError: the model has no denoiser.
        """
        if bitrate is not None and quality is not None and layers != "both":
            raise ValueError("give a bitrate or a quality, not both")
        if bitrate is not None:
            _check_bitrate(bitrate)
        level = check_quality(model, quality)
        if layers not in ("base", "both", "ddcm"):
            raise ValueError(f"no layers {layers}; there are base, both, ddcm")
        if layers == "base" and ddcm is not None:
            raise ValueError("a DDCM setting is for the layers both and ddcm")
        default = DDCM() if steps is None else DDCM(steps)
        if layers != "base" and model.denoiser is None:
            raise ModelError(f"model {model.name} has no denoiser")
        if layers == "both" and model.denoiser is not None:
            layer_setting(model.denoiser, default, level)  # refuses a level that leaves nothing to refine
        if layers != "base" and ddcm is None and bitrate is None:
            ddcm = default
        return cls(bitrate, level if bitrate is None or quality is not None else None, layers, ddcm, steps)


def _check_bitrate(bitrate: float) -> None:
    if isinstance(bitrate, bool) or not isinstance(bitrate, int | float | np.number):
        raise ValueError(f"a bitrate is a number of kbit/s, not {bitrate!r}")
    if not bitrate > 0:
        raise ValueError(f"a bitrate is above 0 kbit/s, not {bitrate:g}")
    if bitrate > MAX_BITRATE:
        raise ValueError(f"a bitrate is in kbit/s: {bitrate:g} is too much; did you mean {bitrate / 1000:g}?")

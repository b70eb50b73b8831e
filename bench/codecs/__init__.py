"""The codecs that can be compared, behind one small interface."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from ..metrics import Wave
from .base import AudioCodec, CodecError, Coded, Missing
from .codec2 import Codec2
from .commands import Commands
from .hub import CHECKPOINTS, TransformersCodec
from .lyra import Lyra
from .opus import Opus
from .ours import Aldm, AldmDiffusion, AldmTokens, ExactMel, Unquantized

__all__ = ["CEILINGS", "DIFFUSIONS", "NAMES", "AudioCodec", "CodecError", "Coded", "Commands", "Missing", "make_codec"]

DIFFUSIONS = ("aldm-refine", "aldm-both", "aldm-ddcm")
CEILINGS = ("exact-mel", "unquantized", "original")
NAMES = ("aldm", *DIFFUSIONS, "aldm-vq", *CEILINGS, "opus", "codec2", "lyra", *CHECKPOINTS)


class Original:
    """The clip itself: what metrics without a reference give to it is the best that a codec can hope for."""

    name = "original"
    identity = ""

    def settings(self, bitrates: Sequence[float]) -> list[str]:
        return ["ceiling"]

    def run(self, wave: Wave, setting: str, folder: Path) -> Coded:
        return Coded(wave, None, 0.0, 0.0)

    def run_fullband(self, wave: Wave, rate: int, setting: str, folder: Path) -> Coded:
        return Coded(wave, None, 0.0, 0.0)


def make_codec(spec: str) -> AudioCodec:
    """A codec from "NAME" or "NAME:ARGUMENT", a model or folder.

    Raises:
        Missing: it cannot run here.
        ValueError: no such codec.
    """
    name, _, argument = spec.partition(":")
    if name in DIFFUSIONS:
        return AldmDiffusion(name, argument)
    if name == "aldm-vq":
        return AldmTokens(name, argument)
    if name in CHECKPOINTS:
        return TransformersCodec(name, argument)
    simple: dict[str, Callable[..., AudioCodec]] = {
        "aldm": Aldm, "exact-mel": ExactMel, "unquantized": Unquantized, "lyra": Lyra,
    }  # fmt: skip
    if name in simple:
        return simple[name](argument)
    alone: dict[str, Callable[[], AudioCodec]] = {"original": Original, "opus": Opus, "codec2": Codec2}
    if name in alone and not argument:
        return alone[name]()
    raise ValueError(f"no codec {spec!r}; there are {', '.join(NAMES)}")

"""Samples in memory: arrays, lists and tensors of any usual type -> float32 [C, N]."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...format.container import MAX_RATE
from ..errors import AudioError

MIN_RATE = 1000  # Hz; at a lower one, a file of a few kB is hours of sound
INTEGER_SCALE = {"int16": 1 << 15, "int32": 1 << 31}
MAX_SAMPLE = 1e4
# More than MANY_CHANNELS, each of fewer than MIN_SAMPLES times their number: the axes are swapped.
MANY_CHANNELS, MIN_SAMPLES = 8, 10


def check_layout(channels: int, sample_rate: int) -> None:
    """Raises AudioError for more channels, or another sampling rate, than can be encoded."""
    if not 1 <= channels <= 255:
        raise AudioError(f"{channels} channels: 1 to 255 can be encoded")
    if not MIN_RATE <= sample_rate <= MAX_RATE:
        raise AudioError(f"a sampling rate of {sample_rate:g} Hz: {MIN_RATE} to {MAX_RATE} Hz can be encoded")


def check_samples(block: np.ndarray) -> None:
    """Raises AudioError for samples that are not finite, or absurdly loud."""
    if not np.isfinite(block).all():
        raise AudioError("audio with NaN or infinite samples")
    if np.abs(block).max(initial=0) > MAX_SAMPLE:
        raise AudioError(f"audio with samples beyond {MAX_SAMPLE:g} times full scale")


def as_samples(data: Any) -> np.ndarray:
    """Samples [N] or [C, N] as float32 [C, N], full scale 1.

    Args:
        data: a list, array or tensor (any device, with or without gradient). Floating point has full scale 1; int16,
            int32 and uint8 are scaled by the range of their type.

    Raises:
        AudioError: another shape or type, or more channels than samples.
    """
    if hasattr(data, "detach"):
        data = data.detach().cpu()
        data = data.float() if str(data.dtype) == "torch.bfloat16" else data
    try:
        wave = np.asarray(data)
    except (ValueError, TypeError) as error:
        raise AudioError(f"samples must be numbers [N] or [C, N]: {error}") from error
    kind = wave.dtype.name
    if wave.ndim not in (1, 2) or not (wave.dtype.kind == "f" or kind in INTEGER_SCALE or kind == "uint8"):
        raise AudioError(
            f"samples must be [N] or [C, N] of floating point (full scale 1), int16, int32 or uint8, "
            f"not {wave.dtype} {list(wave.shape)}"
        )
    wave = np.atleast_2d(wave)
    channels, count = wave.shape
    if count and (channels > max(2, count) or (channels > MANY_CHANNELS and count < MIN_SAMPLES * channels)):
        raise AudioError(
            f"samples [{channels}, {count}] are {channels} channels of {count} samples; "
            "if they are [N, C], transpose them: samples.T"
        )
    if kind == "uint8":
        return (wave.astype(np.float32) - 128) / 128
    if kind in INTEGER_SCALE:
        return wave.astype(np.float32) / INTEGER_SCALE[kind]
    return wave.astype(np.float32, copy=False)

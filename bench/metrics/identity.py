"""Is it still the same voice, at the same pitch?"""

from __future__ import annotations

import functools
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .base import EXTRA, SAMPLE_RATE, Family, Metric, Pair, Scores, Wave

GROSS = 0.2  # relative error of F0 above which the tracker or the codec took another period
F0_RANGE = (60.0, 500.0)  # Hz


@functools.cache
def _voice_encoder() -> Any:
    import torch

    torch.set_num_threads(1)
    from resemblyzer import VoiceEncoder

    return VoiceEncoder("cpu", verbose=False)


def _voice(wave: Wave) -> NDArray[np.float32]:
    from resemblyzer import preprocess_wav

    return _voice_encoder().embed_utterance(preprocess_wav(wave, SAMPLE_RATE))


@functools.lru_cache(64)
def _original_voice(samples: bytes) -> NDArray[np.float32]:
    return _voice(np.frombuffer(samples, np.float32))


def speaker_similarity(pair: Pair) -> Scores:
    """Cosine between Resemblyzer's embeddings (GE2E, Wan et al., ICASSP 2018) of original and decoded clip."""
    if not pair.decoded.any():
        return {}
    return {"speaker_similarity": float(_original_voice(pair.reference.tobytes()) @ _voice(pair.decoded))}


def track_pitch(wave: Wave) -> NDArray[np.float64]:
    """F0 in Hz every 10 ms, 0 where unvoiced, by pYIN (Mauch and Dixon, ICASSP 2014) on a grid of 20 cents."""
    import librosa

    low, high = F0_RANGE
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about frames that are silent
        f0, voiced, _ = librosa.pyin(
            wave, fmin=low, fmax=high, sr=SAMPLE_RATE, frame_length=1024, hop_length=160, resolution=0.2
        )
    return np.where(voiced, f0, 0.0)


@functools.lru_cache(64)
def _original_pitch(samples: bytes) -> NDArray[np.float64]:
    return track_pitch(np.frombuffer(samples, np.float32))


def pitch(pair: Pair) -> Scores:
    """Errors of F0 and of voicing against the original, in the frames where both have a pitch, or in all."""
    a, b = _original_pitch(pair.reference.tobytes()), track_pitch(pair.aligned)
    both = (a > 0) & (b > 0)
    out: Scores = {"voicing_error": 100 * float(((a > 0) != (b > 0)).mean())}
    if both.any():
        ratio = b[both] / a[both]
        gross = np.abs(ratio - 1) > GROSS
        out["f0_gross"] = 100 * float(gross.mean())
        if not gross.all():
            out["f0_error"] = 1200 * float(np.abs(np.log2(ratio[~gross])).mean())
    return out


FAMILIES = (
    Family(
        "speaker",
        (
            Metric(
                "speaker_similarity", "speaker similarity", "", "higher", "fidelity",
                "Cosine between a speaker-recognition network's embeddings of original and decoded clip; 1 is equal.",
            ),
        ),
        speaker_similarity,
        ("resemblyzer", "webrtcvad", "librosa"),
        f"{EXTRA} and pip install --no-deps resemblyzer",
        shortest=1.6,
        speech_only=True,
    ),
    Family(
        "pitch",
        (
            Metric(
                "f0_error", "F0 error", "cents", "lower", "fidelity",
                "Mean deviation of the pitch where original and decoded clip are voiced, gross errors left out.",
            ),
            Metric(
                "f0_gross", "gross F0 errors", "%", "lower", "fidelity",
                "Frames, among those voiced in both clips, whose pitch is off by more than 20 %.",
            ),
            Metric(
                "voicing_error", "voicing errors", "%", "lower", "fidelity",
                "Frames that are voiced in one of the two clips only.",
            ),
        ),
        pitch,
        ("librosa",),
        shortest=0.5,
        speech_only=True,
    ),
)  # fmt: skip

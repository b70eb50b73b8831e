"""Likeness to the original: perceptual scores, spectral distances, and waveform errors."""

from __future__ import annotations

import contextlib
import functools
import os
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .base import SAMPLE_RATE, Family, Metric, Pair, Scores, Wave


def _envelope(wave: Wave) -> NDArray[np.float64]:
    """Mean magnitude at 1 kHz, mean-free."""
    envelope = np.convolve(np.abs(wave), np.ones(64) / 64, "same")[::16]
    return envelope - envelope.mean()


def align(reference: Wave, decoded: Wave, most: int = 40) -> Wave:
    """Shift `decoded` by up to `most` ms to where its envelope fits best, and cut or pad it to the reference.

    Codecs delay, and those that invent phases have no waveform to line up by.
    """
    count = min(len(reference), len(decoded))
    a, b = _envelope(reference[:count]), _envelope(decoded[:count])
    size = 1 << (2 * len(a) - 1).bit_length()
    product = np.fft.irfft(np.fft.rfft(a, size).conj() * np.fft.rfft(b, size), size)
    most = min(most, len(a) - 1)
    lags = np.arange(-most, most + 1)
    lag = 16 * int(lags[np.argmax(product[lags])])
    shifted = decoded[lag:] if lag > 0 else np.pad(decoded, (-lag, 0))
    shifted = shifted[: len(reference)]
    return np.pad(shifted, (0, len(reference) - len(shifted)))


@functools.cache
def htk_mel_basis(bands: int = 80, n_fft: int = 1024) -> NDArray[np.float64]:
    """Triangles of height 1 on the HTK mel scale, 0 to 8 kHz, [bands, n_fft // 2 + 1]."""
    top = 2595 * np.log10(1 + SAMPLE_RATE / 2 / 700)
    points = 700 * (10 ** (np.linspace(0, top, bands + 2) / 2595) - 1)
    hz = np.linspace(0, SAMPLE_RATE / 2, n_fft // 2 + 1)
    rise = (hz - points[:-2, None]) / np.diff(points)[:-1, None]
    fall = (points[2:, None] - hz) / np.diff(points)[1:, None]
    return np.maximum(0, np.minimum(rise, fall))


def log_mel(wave: Wave) -> NDArray[np.float64]:
    """log10 of 80 mel magnitudes (window 1024, hop 160, full-scale sine about 0.5), not below 1e-5: [80, T]."""
    from scipy.signal import stft

    magnitude = np.abs(stft(wave, SAMPLE_RATE, nperseg=1024, noverlap=864)[2])
    return np.log10(np.maximum(htk_mel_basis() @ magnitude, 1e-5))


def stft_distance(reference: Wave, decoded: Wave) -> float:
    """Spectral convergence plus L1 of log magnitudes, mean of three resolutions (Yamamoto et al., ICASSP 2020)."""
    from scipy.signal import ShortTimeFFT
    from scipy.signal.windows import hann

    total = 0.0
    for n_fft, hop, window in ((512, 50, 240), (1024, 120, 600), (2048, 240, 1200)):
        transform = ShortTimeFFT(hann(window, False), hop, SAMPLE_RATE, mfft=n_fft)
        a, b = (np.maximum(np.abs(transform.stft(w.astype(np.float64))), 1e-4) for w in (reference, decoded))
        total += float(np.linalg.norm(a - b) / np.linalg.norm(a) + np.abs(np.log(a / b)).mean())
    return total / 3


def waveform_metrics(reference: Wave, decoded: Wave) -> dict[str, float]:
    """SI-SDR and SNR in dB, correlation and RMSE. They say nothing about decoders that invent phases."""
    a, b = reference.astype(np.float64), decoded.astype(np.float64)
    tiny = 1e-12
    scaled = (a @ b) / (b @ b + tiny) * b
    return {
        "sisdr": float(10 * np.log10((scaled @ scaled + tiny) / (((a - scaled) ** 2).sum() + tiny))),
        "snr": float(10 * np.log10((a @ a + tiny) / (((a - b) ** 2).sum() + tiny))),
        "correlation": float((a - a.mean()) @ (b - b.mean()) / (len(a) * a.std() * b.std() + tiny)),
        "rmse": float(np.sqrt(((a - b) ** 2).mean())),
    }


@functools.cache
def visqol_api(mode: str) -> Any:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from visqol import VisqolApi

    api = VisqolApi()
    api.create(mode=mode)
    return api


def visqol(reference: Wave, decoded: Wave, speech: bool) -> float:
    """ViSQOL v3: the speech model at 16 kHz, or the audio model at 48 kHz."""
    rate = SAMPLE_RATE
    a, b = reference.astype(np.float64), decoded.astype(np.float64)
    if not speech:
        from scipy.signal import resample_poly

        rate, a, b = 48000, resample_poly(a, 3, 1), resample_poly(b, 3, 1)
    result = visqol_api("speech" if speech else "audio").measure_from_arrays(a, b, sample_rate=rate)
    return float(result.moslqo)


def _visqol(pair: Pair) -> Scores:
    return {"visqol": visqol(pair.reference, pair.aligned, pair.domain == "speech")}


def _pesq(pair: Pair) -> Scores:
    from pesq import PesqError, pesq

    with contextlib.suppress(PesqError, ValueError):  # no utterance found in one of the two, or silence
        return {"pesq": float(pesq(SAMPLE_RATE, pair.reference, pair.aligned, "wb"))}
    return {}


def _stoi(pair: Pair) -> Scores:
    from pystoi import stoi

    with warnings.catch_warnings(record=True) as caught:  # it warns, and gives 1e-5, when nothing is left to rate
        warnings.simplefilter("always")
        ratings: Scores = {
            name: float(stoi(pair.reference, pair.aligned, SAMPLE_RATE, name == "estoi")) for name in ("stoi", "estoi")
        }
    return {} if caught else ratings


def _signal(pair: Pair) -> Scores:
    a, b = pair.reference, pair.aligned
    mel = float(np.abs(log_mel(a) - log_mel(b)).mean())
    return {"mel": mel, "stft": stft_distance(a, b), **waveform_metrics(a, b)}


FAMILIES = (
    Family(
        "visqol",
        (
            Metric(
                "visqol", "ViSQOL", "MOS-LQO", "higher", "fidelity",
                "Perceived similarity of spectrograms, 1 to 5: speech model, or audio model at 48 kHz.",
            ),
        ),
        _visqol,
        ("visqol",),
        shortest=1.0,
    ),
    Family(
        "pesq",
        (
            Metric(
                "pesq", "PESQ-WB", "MOS-LQO", "higher", "fidelity",
                "ITU-T P.862.2, quality of wide-band telephony against the original, 1 to 4.64.",
            ),
        ),
        _pesq,
        ("pesq",),
        speech_only=True,
    ),
    Family(
        "stoi",
        (
            Metric("stoi", "STOI", "", "higher", "fidelity", "Short-time objective intelligibility, 0 to 1."),
            Metric("estoi", "ESTOI", "", "higher", "fidelity", "Extended STOI, stricter for modulated distortion."),
        ),
        _stoi,
        ("pystoi",),
        speech_only=True,
    ),
    Family(
        "signal",
        (
            Metric(
                "mel", "log-mel distance", "log10", "lower", "fidelity",
                "Mean absolute difference of log10 mel magnitudes, 80 bands.",
            ),
            Metric(
                "stft", "STFT distance", "", "lower", "fidelity",
                "Spectral convergence plus log-magnitude difference at three resolutions.",
            ),
            Metric(
                "sisdr", "SI-SDR", "dB", "higher", "fidelity",
                "Scale-invariant signal-to-distortion ratio; meaningless for codecs that resynthesise phase.",
            ),
            Metric(
                "snr", "SNR", "dB", "higher", "fidelity",
                "Signal-to-noise ratio of waveforms; meaningless for codecs that resynthesise phase.",
            ),
            Metric(
                "correlation", "correlation", "", "higher", "fidelity",
                "Correlation of waveforms; meaningless for codecs that resynthesise phase.",
            ),
            Metric(
                "rmse", "RMSE", "", "lower", "fidelity",
                "Root mean square error of waveforms; meaningless for codecs that resynthesise phase.",
            ),
        ),
        _signal,
    ),
)  # fmt: skip

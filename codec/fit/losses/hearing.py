"""Losses between waveforms that follow hearing: loudness in Bark bands, and envelopes in third-octave bands."""

from __future__ import annotations

import functools
import math

import torch
import torch.nn.functional as F
from torch import Tensor

N_FFT, HOP = 512, 256
BARK_BANDS = 48
LOUDNESS_EXPONENT = 0.23  # exponent of loudness (Zwicker)
SEGMENT = 24  # spectra, 384 ms


def power(wave: Tensor) -> Tensor:
    """Power spectra of waveforms [B, N]: [B, 257, T]."""
    window = torch.hann_window(N_FFT)
    return torch.stft(wave, N_FFT, HOP, window=window, center=False, return_complex=True).abs().square()


@functools.cache
def frequencies(rate: int = 16000) -> Tensor:
    return torch.linspace(0, rate / 2, N_FFT // 2 + 1)


@functools.cache
def bark_bands() -> tuple[Tensor, Tensor, Tensor]:
    """Bark bands (Traunmueller, 1990): matrix [BARK_BANDS, 257], power at the threshold of hearing, exponents."""
    hz = frequencies()
    bark = (26.81 * hz / (1960 + hz) - 0.53).clamp(min=0)
    place = bark / bark[-1] * (BARK_BANDS - 1)
    bands = (1 - (place - torch.arange(BARK_BANDS)[:, None]).abs()).clamp(min=0)
    bands = bands / (1 + (100 / hz.clamp(min=1)) ** 4)  # no rumble
    middle = (bands * hz).sum(1) / bands.sum(1)
    threshold = 0.3 * (1 + (350 / middle) ** 4)
    centre = torch.linspace(0, 21, BARK_BANDS)
    return bands, threshold[:, None], (LOUDNESS_EXPONENT * (6 / (centre + 2)).clamp(1, 2) ** 0.15)[:, None]


def disturbance(reference: Tensor, decoded: Tensor) -> Tensor:
    """How much the loudness of decoded power spectra [B, 257, T] differs, on the scale of PESQ (ITU-T P.862): [B].

    Differences of less than a quarter of the loudness are masked; what was added disturbs more than what is missing;
    a colour that stays, and the level of a frame, are made up for. Alignment in time is left out.
    """
    bands, threshold, exponent = bark_bands()
    hz = frequencies()
    speech = (hz > 325) & (hz < 3250)

    def scaled(p: Tensor) -> Tensor:
        # mean square 1e7 in the band of the telephone; a spectrum's sum over half of the bins is 512 * 192 / 2 of it
        level = 1e7 * N_FFT * 192 / 2 / p[:, speech].sum(1).mean(1).clamp(min=1e-9)
        return 4.4e-3 * level[:, None, None] * (bands @ p)

    def audible(p: Tensor, factor: float = 1) -> Tensor:
        return p * (p > factor * threshold)

    exact, found = scaled(reference), scaled(decoded)
    talk = (audible(exact, 100).sum(1, keepdim=True) > 1e7).float()
    colour = [(audible(p, 100) * talk).mean(2, keepdim=True) + 1000 for p in (exact, found)]
    exact = exact * (colour[1] / colour[0]).clamp(0.01, 100)
    ratio = (audible(exact).sum(1) + 5e3) / (audible(found).sum(1) + 5e3)
    ratio = torch.cat([ratio[:, :1], 0.8 * ratio[:, 1:] + 0.2 * ratio[:, :-1]], 1).clamp(3e-4, 5)
    found = found * ratio[:, None]

    def loudness(p: Tensor) -> Tensor:
        return 0.187 * (2 * threshold) ** exponent * ((0.5 + 0.5 * p / threshold) ** exponent - 1).clamp(min=0)

    a, b = loudness(exact), loudness(found)
    heard = ((b - a).abs() - 0.25 * torch.minimum(a, b)).clamp(min=0)
    added = ((found + 50) / (exact + 50)) ** 1.2
    added = torch.where(added < 3, 0, added.clamp(max=12))
    width = 21 / BARK_BANDS
    total = ((audible(exact).sum(1) + 1e5) / 1e7) ** 0.04
    plain = math.sqrt(21) * ((width * heard).square().sum(1) + 1e-6).sqrt()
    worse = width * (heard * added).sum(1)

    def overall(frames: Tensor) -> Tensor:
        """Over parts of 320 ms by the power 6, over them by the power 2."""
        parts = ((frames / total).clamp(1e-3, 45).unfold(1, 20, 10) ** 6).mean(2) ** (1 / 6)
        return parts.square().mean(1).sqrt()

    return 0.1 * overall(plain) + 0.0309 * overall(worse)


@functools.cache
def third_octaves() -> Tensor:
    hz = frequencies()
    middle = 150 * 2 ** (torch.arange(16) / 3)
    return ((hz >= middle[:, None] * 2 ** (-1 / 6)) & (hz < middle[:, None] * 2 ** (1 / 6))).float()


def envelope_error(reference: Tensor, decoded: Tensor) -> Tensor:
    """One less the correlation of envelopes in third-octave bands over segments of 384 ms: [B].

    As in STOI (Taal, Hendriks, Heusdens, Jensen, 2011), for power spectra [B, 257, T].
    """

    def segments(p: Tensor) -> Tensor:
        return (third_octaves() @ p + 1e-9).sqrt().unfold(2, SEGMENT, SEGMENT // 4)  # [B, 16, segments, SEGMENT]

    a, b = segments(reference), segments(decoded)
    energy = a.square().sum((1, 3))
    heard = (energy > 1e-4 * energy.amax(1, keepdim=True)).float()[:, None]  # quieter than -40 dB: no speech there
    b = b * (a.square().sum(3, keepdim=True) / b.square().sum(3, keepdim=True).clamp(min=1e-9)).sqrt()
    b = torch.minimum(b, a * (1 + 10 ** (15 / 20)))
    a, b = a - a.mean(3, keepdim=True), b - b.mean(3, keepdim=True)
    correlation = F.cosine_similarity(a, b, 3, 1e-4)
    return 1 - (correlation * heard).sum((1, 2)) / (heard.sum((1, 2)) * 16).clamp(min=1)


def texture_error(exact: Tensor, found: Tensor) -> Tensor:
    """One less the similarity of levels and of their local pattern in power by bands and time, [B, bands, T]: [B].

    As in ViSQOL's NSIM (Hines, Skoglund, Kokaram, Harte, 2015), down to 90 dB below the loudest of a spectrum: its
    "45 dB" are ten times the logarithm of amplitudes.
    """
    row = torch.tensor([0.1065, 0.787, 0.1065])
    weight = (row[:, None] * row)[None, None]

    def local(x: Tensor) -> Tensor:
        return F.conv2d(x[:, None], weight)[:, 0]

    def decibels(p: Tensor) -> Tensor:
        level = 5 * p.clamp(min=1e-12).log10()
        return torch.maximum(level, level.amax(1, keepdim=True) - 45)

    x, y = decibels(exact), decibels(found)
    least = torch.minimum(x.amin((1, 2), keepdim=True), y.amin((1, 2), keepdim=True)).detach()
    x, y = x - least, y - least
    a, b = local(x), local(y)
    xx, yy, xy = local(x * x) - a * a, local(y * y) - b * b, local(x * y) - a * b
    level = (2 * a * b + 0.01) / (a * a + b * b + 0.01)
    pattern = (xy + 0.02) / ((xx.clamp(min=0) + 0.01) * (yy.clamp(min=0) + 0.01)).sqrt().add(0.01)
    return 1 - (level * pattern).mean((1, 2))

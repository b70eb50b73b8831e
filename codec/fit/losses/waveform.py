"""Losses between waveforms: log-mel, fine spectrum, and what PESQ, STOI and ViSQOL compare."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from ...dsp.mel import LogMel
from .hearing import disturbance, envelope_error, power, texture_error
from .spectral import weighted_error


def waveform_losses(mel: LogMel, exact: Tensor, decoded: Tensor) -> dict[str, Tensor]:
    """Losses between waveforms [B, N] that begin at the same sample, `mel.pad` samples before their first frame.

    Returns:
        mel: absolute error of log-mels.
        fine: weighted absolute error of log-magnitudes under a window of 32 ms.
        texture: like ViSQOL's similarity, on mel bands. disturbance: like PESQ's. envelope: like STOI's correlation.
        energy: difference of levels, in nats of energy.
    """
    a, b = mel.spectrum(exact).abs(), mel.spectrum(decoded).abs()
    frames = mel.from_magnitudes(a)
    found = {"mel": (mel.from_magnitudes(b) - frames).abs().mean()}
    p, q = power(exact), power(decoded)
    log = [v.clamp(min=1e-6).log() / 2 for v in (p, q)]
    found["fine"] = weighted_error(log[1], log[0], log[0])
    bands = [F.avg_pool1d((v.mT[:, ::2].square() @ mel.basis.T), 4).mT for v in (a, b)]  # about 24, every 20 ms
    found["texture"] = texture_error(*bands).mean()
    found["disturbance"] = disturbance(p, q).mean()
    found["envelope"] = envelope_error(p, q).mean()
    found["energy"] = (q.sum((1, 2)) / p.sum((1, 2)).clamp(min=1e-9)).clamp(min=1e-3).log().abs().mean()
    return found

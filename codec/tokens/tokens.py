"""Codebook indices as tokens: of packets, and back to latents."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...format import container
from ..encoding.analysis import AnalyzedPacket
from ..encoding.loudness_compensation import compensate_energy
from ..errors import ModelError
from ..quantization.vector import VectorCodebook
from ..stages import CodecModel


def vector_codebook(model: CodecModel, name: str) -> VectorCodebook | None:
    """The model's vector codebook for "vq", and None for "scalar".

    Raises:
        ValueError, ModelError: there is none of that name.
    """
    if name not in ("scalar", "vq"):
        raise ValueError(f"no codebook {name}; there are scalar, vq")
    if name == "vq" and model.vector_codebook is None:
        raise ModelError(f"model {model.name} has no vector codebook")
    return model.vector_codebook if name == "vq" else None


def packet_tokens(model: CodecModel, packet: AnalyzedPacket, level: int, vectors: VectorCodebook | None) -> np.ndarray:
    """Codebook indices of every channel of a packet, int32: [C, N, latent_channels], zeros where it is silent.

    With a vector codebook its codes, [C, N, groups]; silence is the codes of the quietest log-mel.
    """
    count = packet.hops // model.autoencoder.patch
    if vectors is None:
        quantizer = model.codebook.encoder()
        [packet] = compensate_energy(model, quantizer, [packet], level)
        coded = iter([quantizer.quantize(channel.base, level).indices[:count] for channel in packet.channels])
        silence = np.zeros((count, model.autoencoder.latent_channels), np.int32)
    else:
        coded = iter([vectors.quantize(channel.latents)[:count] for channel in packet.channels])
        mel = torch.full((1, packet.hops, model.mel.n_mels), model.mel.floor)
        with torch.inference_mode():
            silence = vectors.quantize(model.autoencoder.encode(mel.to(model.device))[0].cpu().numpy())
    out = np.stack([silence] * len(packet.gains))
    for c, gain in enumerate(packet.gains):
        if gain == container.GAIN_COPY:
            out[c] = out[c - 1]
        elif gain != container.GAIN_SILENT:
            out[c] = next(coded)
    return out


def token_latents(
    model: CodecModel, tokens: Any, level: int, vectors: VectorCodebook | None, packet_vectors: int
) -> tuple[Tensor, int]:
    """Latents [C, latent_channels, N] that tokens of `packet_tokens` stand for, and the level whose error they have.

    Raises:
        ValueError: tokens of another shape, or out of range.
    """
    channels, indices = model.autoencoder.latent_channels, np.asarray(tokens)
    if vectors is not None:
        latents, level = [vectors.dequantize(channel, channels) for channel in indices], vectors.level
    elif indices.ndim == 3 and indices.shape[2] == channels:
        # predictions do not cross packets
        starts = range(packet_vectors, indices.shape[1], packet_vectors)
        packets = [np.split(channel, starts) for channel in indices]
        latents = [np.concatenate([model.codebook.dequantize(p, level) for p in parts], 1) for parts in packets]
    else:
        raise ValueError(f"tokens are [C, N, {channels}], not {indices.shape}")
    if not latents or not latents[0].size:
        raise ValueError("no tokens")
    return torch.from_numpy(np.stack(latents)), level

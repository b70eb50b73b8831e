"""Packets of a file -> latents: dequantised, and at the end of a diffusion if there is one."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from ...format import container
from ...format.container import Header, Packet
from ...format.errors import DamageError
from ...format.layer import MAX_STEPS, Layer
from ..diffusion.ddcm import Sampler
from ..dsp.loudness import SPECIAL
from ..errors import ModelError
from ..levels import COARSEST_STEP, step_size
from ..stages import CodecModel
from ..values import DecodedLatents, Latents

LAYERS = ("all", "base")


class PacketDecoder:
    """Decodes the packets of one file to latents.

    Args:
        header: of the file.
        layers: "all"; or "base": enhancement layers are ignored.
        refine: steps of diffusion for packets that have no enhancement layer. The finest qualities leave nothing to
            refine, and it becomes 0.
        prompt, from_step: another prompt than the file's for the steps of diffusion from that one on.

    Raises:
        DamageError: the header has what this model does not.
        ModelError: the file needs another model, or a denoiser, which this one has not.
        ValueError: an argument out of range.
    """

    def __init__(self, model: CodecModel, header: Header, layers: str, refine: int, prompt: str | None, from_step: int):
        if layers not in LAYERS:
            raise ValueError(f"no layers {layers}; there are {', '.join(LAYERS)}")
        if not 0 <= refine <= MAX_STEPS:
            raise ValueError(f"refinement takes 0 to {MAX_STEPS} steps, not {refine}")
        self._model, self._header, self._layers, self.refine = model.with_prompt([], prompt, 0), header, layers, refine
        self._prompt, self._patch = (prompt, from_step), model.autoencoder.patch
        if header.model != model.fingerprint[:4]:
            needed, have = header.model.hex(), model.fingerprint[:4].hex()
            raise ModelError(f"the file needs model {needed}; {model.name or 'this one'} is {have}")
        self._based = header.quality != container.NO_BASE
        if not (header.quality < model.codebook.levels or header.quality >= container.OWN_QUALITY):
            raise DamageError("a quality that this model does not have")
        if header.packet_hops % self._patch:
            raise DamageError("a packet duration that this model does not have")
        if not self._based and layers == "base":
            raise ValueError("this file has no base layer")
        if model.denoiser is None and (refine or not self._based):
            raise ModelError(f"model {model.name} has no denoiser")
        if model.denoiser and model.denoiser.levels <= header.quality < container.OWN_QUALITY:
            self.refine = 0

    def decode(
        self,
        packet: Packet | None,
        body: bytes | None,
        number: int,
        comments: Sequence[str],
        report: Callable[[DamageError], None],
    ) -> DecodedLatents:
        """Latents of a packet.

        Args:
            body: of the enhancement layer's record.
            number: of the packet.
            comments: of the file, as far as they are known.
            report: called with what is wrong with the enhancement layer, which is ignored then.

        Raises:
            DamageError: the packet is missing, or does not decode.
        """
        if packet is None or packet.hops % self._patch:
            raise DamageError("damaged packet: missing, or not a whole number of latent vectors")
        model = self._model.with_prompt(comments, *self._prompt)
        level = self._header.quality if packet.quality is None else packet.quality
        if self._based and level >= model.codebook.levels:
            raise DamageError("damaged packet: a quality that this model does not have")
        coded, vectors = sum(gain not in SPECIAL for gain in packet.gains), model.vectors_of(packet.hops)
        latents = Latents(torch.zeros(coded, model.autoencoder.latent_channels, vectors), COARSEST_STEP)
        if not coded:
            return DecodedLatents(latents)
        if self._based:
            streams = model.codebook.unpack(packet.payload, coded, vectors, level)
            latents = Latents(model.dequantize(streams, level), float(step_size(level)))
        base, denoiser, refined = (latents if self._based else None), model.denoiser, None
        try:
            picked = self._layer(model, body, level, coded, vectors)
        except DamageError as error:
            picked = None
            report(error)
        if denoiser is not None:
            numbers = np.arange(coded) + (number << 8)
            sampler = Sampler(denoiser, latents.values, level if self._based else -1, latents.step, numbers)
            if picked is not None:
                refined = Latents(sampler.decode(*picked), float(step_size(picked[0].level)))
            elif self.refine and self._based and level < denoiser.levels:
                refined = Latents(sampler.refine(self.refine), latents.step)
        if base is None and refined is None:
            raise DamageError("damaged packet: no layer that can be used")
        return DecodedLatents(base, refined)

    def _layer(
        self, model: CodecModel, body: bytes | None, level: int, coded: int, vectors: int
    ) -> tuple[Layer, np.ndarray] | None:
        """The enhancement layer of a packet and its picks, if there is one.

        Raises:
            DamageError: it cannot be used.
        """
        if body is None or self._layers == "base":
            return None
        layer, picks = Layer.parse(body, coded, vectors)
        if model.denoiser is None or layer.denoiser != model.denoiser.fingerprint[:2]:
            raise DamageError("enhancement layer of another denoiser")
        if self._based and level >= model.denoiser.levels:
            raise DamageError("enhancement layer on a quality that the denoiser does not know")
        return layer, picks

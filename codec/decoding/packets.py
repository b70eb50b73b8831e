"""Packets of a file -> latents: dequantised, and at the end of a diffusion if there is one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

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
MAX_DURATION = 360000.0  # seconds: 100 h


@dataclass(frozen=True)
class DecodeOptions:
    """How a file is decoded.

    Attributes:
        strict: refuse a file with damage, instead of concealing damaged packets.
        layers: "all"; or "base": enhancement layers are ignored.
        refine: steps of diffusion, up to 255, for packets without an enhancement layer: seeded noise in the place of
            what the quantiser removed, the same in every run. The finest qualities leave nothing to refine.
        prompt: another description of the sound than the file's, for the diffusion of models that take text.
        from_step: step of the diffusion from which on the prompt counts.
        max_duration: seconds of sound that are decoded at most, since a file of 1 kB can claim hours.

    Raises:
        ValueError: an option out of range.
    """

    strict: bool = False
    layers: str = "all"
    refine: int = 0
    prompt: str | None = None
    from_step: int = 0
    max_duration: float = MAX_DURATION

    def __post_init__(self) -> None:
        if self.layers not in LAYERS:
            raise ValueError(f"no layers {self.layers}; there are {', '.join(LAYERS)}")
        if not 0 <= self.refine <= MAX_STEPS:
            raise ValueError(f"refinement takes 0 to {MAX_STEPS} steps, not {self.refine}")


class PacketDecoder:
    """Decodes the packets of one file to latents.

    Args:
        header: of the file.

    Attributes:
        refine: as in the options; 0 where the file's quality leaves nothing to refine.

    Raises:
        DamageError: the header has what this model does not.
        ModelError: the file needs another model, or a denoiser, which this one has not.
        ValueError: only the base layer is to be decoded, and there is none.
    """

    def __init__(self, model: CodecModel, header: Header, options: DecodeOptions):
        self._model, self._header, self._options = model.with_prompt([], options.prompt, 0), header, options
        self._patch, self.refine = model.autoencoder.patch, options.refine
        if header.model != model.fingerprint[:4]:
            needed, have = header.model.hex(), model.fingerprint[:4].hex()
            raise ModelError(f"the file needs model {needed}; {model.name or 'this one'} is {have}")
        self._based = header.quality != container.NO_BASE
        if not (header.quality < model.codebook.levels or header.quality >= container.OWN_QUALITY):
            raise DamageError("a quality that this model does not have")
        if header.packet_hops % self._patch:
            raise DamageError("a packet duration that this model does not have")
        if not self._based and options.layers == "base":
            raise ValueError("this file has no base layer")
        if model.denoiser is None and (self.refine or not self._based):
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
        model = self._model.with_prompt(comments, self._options.prompt, self._options.from_step)
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
        if body is None or self._options.layers == "base":
            return None
        layer, picks = Layer.parse(body, coded, vectors)
        if model.denoiser is None or layer.denoiser != model.denoiser.fingerprint[:2]:
            raise DamageError("enhancement layer of another denoiser")
        if self._based and level >= model.denoiser.levels:
            raise DamageError("enhancement layer on a quality that the denoiser does not know")
        return layer, picks

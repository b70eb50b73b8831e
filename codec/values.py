"""Values that the stages of a codec model hand to each other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor


class Latents(NamedTuple):
    """Dequantised latents of some channels of a packet.

    Attributes:
        values: [channels, latent_channels, N] float32.
        step: of a quantiser with as much error, see `levels.step_size`.
    """

    values: Tensor
    step: float


class DecodedLatents(NamedTuple):
    """Latents of a packet's channels that are neither silent nor a copy.

    Attributes:
        base: of the base layer; None: the file has none.
        refined: at the end of a diffusion; None: there was none.
    """

    base: Latents | None
    refined: Latents | None = None

    @property
    def final(self) -> Latents:
        """The best there is."""
        found = self.refined or self.base
        assert found is not None  # a packet has one of them
        return found

    def rows(self, rows: list[int]) -> DecodedLatents:
        """Those of some channels."""
        base, refined = (part and Latents(part.values[rows], part.step) for part in self)
        return DecodedLatents(base, refined)


class LoudnessTarget(NamedTuple):
    """How loud a channel of a packet is, and how its latents change with that, all normalised.

    Attributes:
        energy: audible energy of the STFT magnitudes, see `dsp.loudness.audible_energy`.
        band_energy: of the log-mel, see `dsp.loudness.band_energy`.
        gradient: [latent_channels, N] float16, change of the latents when the loud parts get louder by a nat.
    """

    energy: float
    band_energy: float
    gradient: np.ndarray


@dataclass(frozen=True)
class Frames:
    """Input of a renderer: a spectrum for every 10 ms, of one or more channels.

    Attributes:
        magnitudes: [C, D, T], STFT or mel magnitudes at their true level, as the model's renderer takes them.
        scale: [C, 1, T], factor on normalised magnitudes; 0 in silence.
        scaled_step: [C, 1, T], step of the quantiser times `scale`.
    """

    magnitudes: Tensor
    scale: Tensor
    scaled_step: Tensor

    @classmethod
    def of(cls, magnitudes: Tensor, step: float) -> Frames:
        """Normalised magnitudes [C, D, T] of one quality."""
        ones = torch.ones_like(magnitudes[:, :1])
        return cls(magnitudes, ones, step * ones)

    @classmethod
    def silence(cls, channels: int, size: int, count: int, device: str) -> Frames:
        """Zeros: [channels, size, count]."""
        nothing = torch.zeros(channels, 1, count, device=device)
        return cls(nothing.expand(-1, size, -1), nothing, nothing)

    @classmethod
    def stack(cls, parts: Sequence[Frames], dim: int) -> Frames:
        """Parts one after the other, along channels (0) or time (-1)."""
        if len(parts) == 1:
            return parts[0]
        fields = zip(*((p.magnitudes, p.scale, p.scaled_step) for p in parts), strict=True)
        return cls(*(torch.cat(field, dim) for field in fields))

    def map(self, function: Callable[..., Tensor], *others: Frames) -> Frames:
        """A function applied to each field, and to the same field of others."""
        return Frames(
            function(self.magnitudes, *(o.magnitudes for o in others)),
            function(self.scale, *(o.scale for o in others)),
            function(self.scaled_step, *(o.scaled_step for o in others)),
        )

    @property
    def count(self) -> int:
        """T."""
        return self.scale.shape[-1]

    def during(self, frames: slice) -> Frames:
        """Some of the frames; views."""
        return self.map(lambda field: field[..., frames])

    def channel(self, channel: int) -> Frames:
        """One channel; views."""
        return self.map(lambda field: field[channel : channel + 1])

    def times(self, factor: float) -> Frames:
        """The same, louder or quieter."""
        return self.map(lambda field: field * factor)

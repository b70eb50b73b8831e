"""Reverse diffusion of latents: refinement and DDCM are one sampler with noise from different places."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ...format.layer import MAX_STEPS, MAX_TIMESTEPS, Layer
from ...format.philox import UNIT, normals
from ..errors import ModelError
from ..levels import TRAINED_LEVELS
from ..stages import Denoiser
from .schedule import NOISE_RANGE, NoiseRange

CODEBOOK, START, REFINE, GENERATE = 0, 1, 2, 3  # streams of noise
EXACT_LEVEL = TRAINED_LEVELS - 1  # level of latents that are as good as exact
MAX_CHOSEN_STEPS = 40  # of a diffusion whose length is chosen by bitrate
CHUNK = 1 << 22  # values of a codebook that are in memory at once


class TimestepRange(NamedTuple):
    """Steps number first .. first + steps - 1 of a schedule that leads from the most noise to the least."""

    schedule: int
    first: int
    steps: int

    @classmethod
    def between(cls, start: float, end: float, steps: int, noise_range: NoiseRange = NOISE_RANGE) -> TimestepRange:
        """So many timesteps, the first with noise of `start`, the last with noise of `end`."""
        begin, stop = noise_range.position(start), noise_range.position(end)
        schedule = MAX_TIMESTEPS if steps == 1 else min(MAX_TIMESTEPS, max(steps, round((steps - 1) / (begin - stop))))
        return cls(schedule, min(round(schedule * (1 - begin)), schedule - steps), steps)


def _scheduler(config: dict[str, Any], steps: int) -> Any:
    try:  # 2 s, and only those who use it need it
        from diffusers.schedulers.scheduling_ddim import DDIMScheduler
    except ImportError as error:
        raise ModelError("diffusion needs diffusers: pip install 'aldm[diffusion]'") from error

    scheduler = DDIMScheduler.from_config(config)
    scheduler.set_timesteps(steps)
    return scheduler


@dataclass(frozen=True)
class DDCM:
    """Parameters that set the rate of a DDCM layer.

    Args:
        steps: of the diffusion, 2 .. 255; all but the last have picks.
        codebook: atoms in the codebook of a step, a power of two, 1 .. 16384.
        block: latent vectors (of 160 ms) that share a pick, 1 .. 64.
        atoms: picks for each block and step, 1 .. 64 and at most `codebook`.
        seed: of codebooks and starting noise, 0 .. 255.

    Raises:
        ValueError: a parameter out of range.
    """

    steps: int = 14
    codebook: int = 4096
    block: int = 1
    atoms: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        if self.codebook < 1 or self.codebook & (self.codebook - 1):
            raise ValueError(f"a codebook has a power of two of atoms, not {self.codebook}")
        if not 2 <= self.steps <= MAX_STEPS:
            raise ValueError(f"DDCM takes 2 to {MAX_STEPS} steps, not {self.steps}")
        self.layer(bytes(2), None)

    def layer(self, denoiser: bytes, step: float | None, noise_range: NoiseRange = NOISE_RANGE) -> Layer:
        """Parameters as a file has them.

        Args:
            denoiser: fingerprint.
            step: of the base layer's quantiser, or None without a base layer.
            noise_range: of the denoiser.
        """
        start, end = noise_range.without_base(self.bits) if step is None else noise_range.on_base(step)
        bits = self.codebook.bit_length() - 1
        timesteps = TimestepRange.between(
            start, min(max(end, noise_range.min_sigma), start / 2), self.steps, noise_range
        )
        return Layer(denoiser[:2], self.seed, *timesteps, self.block, bits, self.atoms, EXACT_LEVEL)

    @property
    def bits(self) -> float:
        """Bits for a latent vector, without framing."""
        return (self.steps - 1) * self.atoms * self.codebook.bit_length() / self.block

    @classmethod
    def fit(cls, bits: float, steps: int | None = None, seed: int = 0) -> DDCM:
        """The setting with the most bits for a latent vector that does not exceed `bits`, or the one with the fewest.

        Atoms of large codebooks carry more for their bits than several of small ones; blocks of one vector follow time
        best; and by default, many bits go to more steps rather than more atoms.
        """
        if steps is None:
            steps = min(MAX_CHOSEN_STEPS, max(cls.steps, int(bits / cls.codebook.bit_length()) + 1))
        settings = [
            cls(steps, 1 << size, block, atoms, seed)
            for block in (1, 2, 4, 8, 16, 32, 64)
            for size in range(6, 13)
            for atoms in ((1, 2, 3, 4, 6, 8, 12, 16) if size > 8 else (1,))
            if block << size <= 1 << 14  # larger codebooks take longer to make than the sound lasts
        ]
        fitting = [s for s in settings if s.bits <= bits]
        return max(fitting, key=lambda s: (s.bits, -s.block)) if fitting else min(settings, key=lambda s: s.bits)


def gaussian(seed: int, stream: int, step: int, numbers: np.ndarray, shape: tuple[int, int]) -> Tensor:
    """Noise for latents of that shape [C, N], one for each of `numbers`: [len(numbers), C, N]."""
    flat = normals(seed, stream, step, numbers, shape[0] * shape[1])
    return torch.from_numpy(flat.reshape(-1, shape[1], shape[0])).float().transpose(1, 2) / UNIT


class Sampler:
    """A reverse diffusion of some latents.

    Args:
        denoiser: of the model.
        base: [B, C, N], latents of the base layer; without one, anything of that shape.
        level: quality of the base layer; -1: none.
        step: of its quantiser.
        numbers: [B], which give each item its own noise.
    """

    def __init__(self, denoiser: Denoiser, base: Tensor, level: int, step: float, numbers: np.ndarray):
        self.denoiser, self.base, self.numbers = denoiser, base, numbers
        self.level, self.step = torch.full((len(base),), level), torch.full((len(base),), step)

    @torch.inference_mode()
    def run(self, span: TimestepRange, seed: int, noise: Callable[[int, Tensor], Tensor]) -> Tensor:
        """Latents [B, C, N] as guessed at the last of the timesteps, by DDIM with eta = 1.

        Args:
            noise: (step from 0 on, present guess of the latents) -> noise of that step, [B, C, N].
        """
        scheduler = _scheduler(self.denoiser.schedule, span.schedule)
        timesteps = scheduler.timesteps[span.first : span.first + span.steps]
        alpha = scheduler.alphas_cumprod[timesteps[0]]
        mean, spread = self.denoiser.start(self.base, self.level, self.step, (1 - alpha) / alpha)
        shape = (self.base.shape[1], self.base.shape[2])
        sample = alpha.sqrt() * (mean + spread * gaussian(seed, START, 0, self.numbers, shape))
        for number, timestep in enumerate(timesteps):
            alpha = scheduler.alphas_cumprod[timestep]
            sigma = ((1 - alpha) / alpha).sqrt().expand(len(sample))
            guess = self.denoiser.for_step(number)(sample / alpha.sqrt(), sigma, self.base, self.level, self.step)
            if number == span.steps - 1:
                return guess
            picked = noise(number, guess)
            sample = scheduler.step(guess, timestep, sample, eta=1.0, variance_noise=picked).prev_sample
        raise AssertionError("a range of timesteps has a last one")

    def refine(self, steps: int, seed: int = 0) -> Tensor:
        """Start at the base layer, with seeded noise: the same in every run."""
        step = float(self.step[0])
        noise_range = self.denoiser.noise_range
        timesteps = TimestepRange.between(*noise_range.refinement(step), steps, noise_range)
        shape = (self.base.shape[1], self.base.shape[2])
        return self.run(timesteps, seed, lambda i, _: gaussian(seed, REFINE, i, self.numbers, shape))

    def encode(self, layer: Layer, target: Tensor) -> tuple[Layer, np.ndarray, Tensor]:
        """DDCM: picks the noise that leads to `target` [B, C, N].

        In every step, for every block, the atoms of the codebook with the largest inner product, up to the sign, with
        what is still missing (Ohayon et al., ICML 2025; several atoms at once: Vaisman et al., ICLR 2026).

        Returns:
            the layer, with its `level`; picks [B, blocks, steps - 1, atoms], as `Layer.pack` wants them; and the
            latents that a decoder will have.
        """
        _, channels, vectors = target.shape
        picks: list[np.ndarray] = []

        def noise(step: int, guess: Tensor) -> Tensor:
            missing = split_blocks(target - guess, layer.span)
            products = []
            rows = max(1, CHUNK // missing.shape[2])
            for first in range(0, 1 << layer.bits, rows):
                numbers = np.arange(first, min(first + rows, 1 << layer.bits))
                atoms = normals(layer.seed, CODEBOOK, step, numbers, missing.shape[2])
                products.append(missing @ torch.from_numpy(atoms).float().T)
            scores = torch.cat(products, 2)
            best = scores.abs().topk(layer.atoms, 2).indices
            picks.append((2 * best + (scores.gather(2, best) < 0)).numpy())
            return picked_noise(layer, step, picks[-1], channels, vectors)

        end = self.run(TimestepRange(layer.schedule, layer.first, layer.steps), layer.seed, noise)
        shape = layer.shape(len(target), vectors)
        known = self.denoiser.deviation[:-1].square().sum(1)  # errors of the levels
        left = ((target - end) ** 2).sum(1).mean()
        level = int((known.log() - left.log()).abs().argmin())
        return replace(layer, level=level), np.stack(picks, 2) if picks else np.zeros(shape, np.int64), end

    def decode(self, layer: Layer, picks: np.ndarray) -> Tensor:
        """Follow the picks [B, blocks, steps - 1, atoms]."""
        _, channels, vectors = self.base.shape
        return self.run(
            TimestepRange(layer.schedule, layer.first, layer.steps),
            layer.seed,
            lambda step, _: picked_noise(layer, step, picks[:, :, step], channels, vectors),
        )


def split_blocks(latents: Tensor, span: int) -> Tensor:
    """[B, C, N] -> blocks of `span` vectors [B, ceil(N / span), span * C], the last one filled up with zeros."""
    batch, channels, vectors = latents.shape
    padded = torch.nn.functional.pad(latents, (0, -vectors % span))
    return padded.transpose(1, 2).reshape(batch, -1, span * channels)


def picked_noise(layer: Layer, step: int, picks: np.ndarray, channels: int, vectors: int) -> Tensor:
    """Noise [B, C, N] that picks [B, blocks, atoms] stand for."""
    noise = torch.empty(len(picks), channels, vectors)
    elements = min(layer.span, vectors) * channels
    for item, mine in enumerate(picks):  # one by one: a file of many channels shall not need memory for all their atoms
        numbers, inverse = np.unique(mine >> 1, return_inverse=True)
        atoms = torch.from_numpy(normals(layer.seed, CODEBOOK, step, numbers, elements)).float()
        signs = torch.from_numpy(1.0 - 2.0 * (mine & 1)).float()
        blocks = torch.einsum("km,kmd->kd", signs, atoms[torch.from_numpy(inverse.reshape(mine.shape))])
        noise[item] = blocks.reshape(-1, channels)[:vectors].T
    return noise / (UNIT * layer.atoms**0.5)

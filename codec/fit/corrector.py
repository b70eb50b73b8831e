"""Rung 3, second part: the network behind Griffin-Lim, on quantised log-mels; and rung 6, what is before it with it."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..dsp.loudness import audible_energy
from ..dsp.mel import LogMel
from ..levels import step_size
from ..model import LOUDEST, Model
from ..vocoders.griffin_lim import griffin_lim
from .dataset import AudioCache, Windows
from .decoder import error, shape_error
from .descent import Run
from .perception import disturbance, envelope_error, power, texture_error
from .predictor import coded

GROUP = 8  # examples that are made together
GROUPS = 32  # that examples are drawn from: each is seen as often as a batch is larger than one example
WEIGHTS = dict(mel=4.0, fine=1.0, texture=16.0, disturbance=0.8, envelope=2.0, energy=0.2)


@dataclass
class Examples:
    """Waveforms of Griffin-Lim and originals [B, N], `pad` samples on either side; decoded log-mels; step sizes [B]."""

    found: Tensor
    exact: Tensor
    mel: Tensor
    step: Tensor

    def take(self, picks: np.ndarray) -> Examples:
        return Examples(*(v[picks] for v in (self.found, self.exact, self.mel, self.step)))

    @classmethod
    def join(cls, parts: list[Examples]) -> Examples:
        return cls(*(torch.cat([getattr(p, f) for p in parts]) for f in ("found", "exact", "mel", "step")))


def ask(model: Model, decoded: Tensor, step: Tensor) -> tuple[Tensor | None, Tensor]:
    """Log-mels as decoded, step sizes [B] -> what the magnitude network says, what Griffin-Lim is asked for."""
    if model.magnitude_net is None:
        return None, model.mel.magnitudes(decoded)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        estimate = model.magnitude_net(decoded, step)
    return estimate, model.mel.magnitudes(decoded, 3, estimate.exp())


@torch.no_grad()
def make(model: Model, wave: Tensor, rng: np.random.Generator) -> Examples:
    """What Griffin-Lim makes of waveforms [B, N] at random qualities, fine ones more often than coarse."""
    mel = model.mel
    latents = model.autoencoder.encode(mel.from_magnitudes(mel.spectrum(wave).abs()))
    levels = rng.integers(model.codebook.levels, size=(2, len(wave))).max(0)
    step = torch.from_numpy(step_size(levels).astype(np.float32))
    decoded = model.autoencoder.decode(coded(model.codebook, latents, levels), step).clamp(max=LOUDEST)
    _, asked = ask(model, decoded, step)
    found = griffin_lim(asked, mel)
    gain = (audible_energy(asked) / audible_energy(mel.spectrum(found).abs())).clamp(0.25, 4).sqrt()
    return Examples(found * gain[:, None], wave, decoded, step)


def terms(mel: LogMel, exact: Tensor, decoded: Tensor) -> dict[str, Tensor]:
    """Losses between waveforms [B, N] that begin at the same sample, `mel.pad` samples before their first frame."""
    a, b = mel.spectrum(exact).abs(), mel.spectrum(decoded).abs()
    frames = mel.from_magnitudes(a)
    found = {"mel": (mel.from_magnitudes(b) - frames).abs().mean()}
    p, q = power(exact), power(decoded)
    log = [v.clamp(min=1e-6).log() / 2 for v in (p, q)]
    found["fine"] = error(log[1], log[0], log[0])
    bands = [F.avg_pool1d((v.mT[:, ::2].square() @ mel.basis.T), 4).mT for v in (a, b)]  # about 24, every 20 ms
    found["texture"] = texture_error(*bands).mean()
    found["disturbance"] = disturbance(p, q).mean()
    found["envelope"] = envelope_error(p, q).mean()
    found["energy"] = (q.sum((1, 2)) / p.sum((1, 2)).clamp(min=1e-9)).clamp(min=1e-3).log().abs().mean()
    return found


def train(
    model: Model,
    cache: AudioCache,
    run: Run,
    length: int = 384,
    learning_rate: float = 1e-3,
    further: bool = False,
    jointly: bool = False,
) -> None:
    """Train `model.corrector` in place; goes on from `corrector.pt` or `joint.pt`. All else stays as it is.

    Args:
        length: frames of an example.
        further: it has learned already.
        jointly: the magnitude network learns with it, by the same losses and its own.
    """
    mel, net = model.mel, model.corrector
    assert net is not None
    windows = Windows(cache, mel, length, run.seed)
    groups: OrderedDict[int, Examples] = OrderedDict()
    learning = [net, model.magnitude_net] if jointly and model.magnitude_net else [net]
    networks = nn.ModuleList(learning).requires_grad_(True)
    surplus = mel.pad - net.short.pad

    def group(number: int) -> Examples:
        if number not in groups:
            groups[number] = make(model, windows.batch(number, GROUP), np.random.default_rng([run.seed, number, 1]))
            if len(groups) > GROUPS:
                groups.popitem(last=False)
        return groups[number]

    def batch(step: int) -> Examples:
        """Of the newest groups; one group more every GROUP steps."""
        newest = step // GROUP
        rng = np.random.default_rng([run.seed, step, 2])
        pool = [group(g) for g in range(max(0, newest - GROUPS + 1), newest + 1)]
        picks = rng.choice(len(pool) * GROUP, run.batch_size, replace=False)
        return Examples.join([pool[p // GROUP].take(np.array([p % GROUP])) for p in picks])

    def loss(step: int) -> tuple[Tensor, dict[str, Tensor]]:
        examples = batch(step)
        exact = mel.spectrum(examples.exact).abs()
        with torch.set_grad_enabled(jointly):
            estimate, asked = ask(model, examples.mel, examples.step)
        steps = examples.step[:, None].expand_as(asked[:, 0])
        with torch.autocast("cpu", dtype=torch.bfloat16):
            wave = net(examples.found[:, surplus:-surplus], asked, steps, torch.ones_like(steps))
        # the encoder's gain makes what is asked for as loud as the original
        level = (audible_energy(asked) / audible_energy(exact)).sqrt()[:, None].detach()
        found = {k: WEIGHTS[k] * v for k, v in terms(mel, level * examples.exact[:, mel.pad : -mel.pad], wave).items()}
        if estimate is not None and jointly:
            found["bins"] = shape_error(mel, exact, estimate)
        return torch.stack(list(found.values())).sum(), found

    name = "joint" if jointly else "corrector"
    run.descend(name, networks, loss, learning_rate, further, net=net.config, data=cache.size)

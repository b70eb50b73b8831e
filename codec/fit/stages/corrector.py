"""The network behind Griffin-Lim, on quantised log-mels: spectral losses, and discriminators if they have a weight."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...dsp.loudness import audible_energy
from ..data.rendered import GROUP, ExamplePool, target_magnitudes
from ..draft import Draft
from ..losses.discriminators import Discriminators
from ..losses.spectral import shape_error
from ..losses.waveform import waveform_losses
from .base import Job, TrainingStage

LEARNERS = ("corrector", "magnitude_net")


@dataclass(frozen=True, kw_only=True)
class TrainCorrector(TrainingStage):
    """The corrector, a new one if there is none; perhaps with the magnitude network. All else stays as it is.

    Attributes:
        train: what learns.
        projections: of the corrector, 0 to 2, see there; default: as it is, 2 in a new one.
        losses: mel, fine, texture, disturbance, envelope, energy: see `waveform_losses`; bins: of the magnitude
            network, if it learns; adversarial, features: discriminators and the distance of their features.
        adversarial_from: step from which the discriminators count, after they have learned alone until then.
        discriminator_rate: learning rate of the discriminators.
        discriminator_width: channels of their first layers.
    """

    kind = "corrector"
    changes = ("corrector", "magnitude_net")
    default_losses: ClassVar[dict[str, float]] = dict(
        mel=4.0,
        fine=1.0,
        texture=16.0,
        disturbance=0.8,
        envelope=2.0,
        energy=0.2,
        bins=1.0,
        adversarial=0.0,
        features=0.0,
    )

    batch_size: int = 8
    train: tuple[str, ...] = ("corrector",)
    projections: int | None = None
    adversarial_from: int = 0
    discriminator_rate: float = 2e-4
    discriminator_width: int = 16

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.train or set(self.train) - set(LEARNERS):
            raise ValueError(f"train must name some of {', '.join(LEARNERS)}, not {', '.join(self.train) or 'nothing'}")
        if self.projections not in (None, 0, 1, 2):
            raise ValueError(f"projections must be 0, 1 or 2, not {self.projections}")
        if self.batch_size > GROUP:
            raise ValueError(f"batch_size must be at most {GROUP}, not {self.batch_size}")

    def run(self, draft: Draft, job: Job) -> dict[str, float]:
        mel, weights = draft.mel, self.weights
        if draft.corrector is None:
            draft.new("corrector")
        net = draft.require("corrector")
        if self.projections is not None:
            net.projections = net.config["projections"] = self.projections
        networks = nn.ModuleList([draft.require(name) for name in self.train]).requires_grad_(True)
        jointly = "magnitude_net" in self.train
        windows = self.windows(job, mel)
        trainer = self.trainer(job, True in windows)
        pools = {part: ExamplePool(draft, some, self.seed, trainer.autocast) for part, some in windows.items()}
        opponent = None
        if weights["adversarial"] or weights["features"]:
            opponent = Discriminators(self.discriminator_width, self.discriminator_rate, trainer.autocast)
        margin = mel.pad - net.short.pad  # of the waveforms, beyond what the corrector takes

        def loss(step: int, held_out: bool) -> tuple[Tensor, dict[str, Tensor]]:
            examples = pools[True].fresh(step) if held_out else pools[False].batch(step, self.batch_size)
            exact = mel.spectrum(examples.original).abs()
            with torch.set_grad_enabled(jointly and not held_out):
                estimate, target = target_magnitudes(draft, examples.mel, examples.step, trainer.autocast)
            steps = examples.step[:, None].expand_as(target[:, 0])
            with trainer.autocast():
                wave = net(F.pad(examples.rendered, (-margin, -margin)), target, steps, torch.ones_like(steps))
            # the encoder's gain makes the target as loud as the original
            level = (audible_energy(target) / audible_energy(exact)).sqrt()[:, None].detach()
            original = level * examples.original[:, mel.pad : -mel.pad]
            found = {k: weights[k] * v for k, v in waveform_losses(mel, original, wave).items()}
            if estimate is not None and jointly:
                found["bins"] = weights["bins"] * shape_error(mel, exact, estimate)
            if opponent is not None and not held_out:
                judged = opponent.judge(original, wave)
                if step >= self.adversarial_from:
                    found |= {name: weights[name] * value for name, value in judged.items()}
            return torch.stack(list(found.values())).sum(), found

        trainer.fit(networks, loss, opponent)
        return trainer.held_out_losses

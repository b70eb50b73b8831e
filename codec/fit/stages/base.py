"""Base classes of stages: their options in a recipe, and the job that they run in."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from ...dsp.mel import LogMel
from ..data.audio_cache import AudioCache
from ..data.windows import Windows
from ..draft import Draft
from ..log import TrainingLog
from ..trainer import WARM_UP, Trainer

PRECISIONS = ("auto", "float32", "bfloat16")


@dataclass(frozen=True)
class Job:
    """Audio, folder and log that a stage runs with.

    Attributes:
        folder: for checkpoints.
        key: digest of everything that the stage's result depends on, except the number of steps.
    """

    cache: AudioCache
    folder: Path
    log: TrainingLog
    key: str = ""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A part of a recipe: options, and what to do with a draft.

    Attributes:
        name: default: its kind. Two stages of a recipe have different ones.
        start: model (folder or name) whose parts this stage begins with; default: the draft's.
    """

    kind: ClassVar[str]
    changes: ClassVar[tuple[str, ...]]

    name: str = ""
    start: str = ""

    def run(self, draft: Draft, job: Job) -> dict[str, float]:
        """Change the draft in place; returns held-out losses, none if no clips are held out."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class HoursStage(Stage):
    """A stage that takes one pass over some audio.

    Attributes:
        hours: of audio, at most.
    """

    hours: float = 1.0

    def __post_init__(self) -> None:
        if self.hours <= 0:
            raise ValueError(f"hours must be above 0, not {self.hours:g}")


@dataclass(frozen=True, kw_only=True)
class TrainingStage(Stage):
    """A stage of gradient descent.

    Attributes:
        steps: of gradient descent.
        learning_rate: its peak, after `warm_up` steps.
        batch_size: examples in a step.
        frames: of an example, 10 ms each.
        seed: of the examples; take another one when training continues.
        start_share: see `Trainer`.
        precision: auto, float32 or bfloat16.
        synthetic: share of the examples that are synthetic tones, chirps, chords and clicks.
        losses: weights of loss terms; those that are not given keep their defaults, 0 leaves a term out.
        checkpoint_every: steps.
    """

    steps: int
    learning_rate: float = 1e-3
    batch_size: int = 16
    frames: int = 384
    seed: int = 0
    start_share: float = 0.0
    precision: str = "auto"
    synthetic: float = 0.0
    losses: dict[str, float] = field(default_factory=dict)
    checkpoint_every: int = 500
    warm_up: int = WARM_UP

    default_losses: ClassVar[dict[str, float]] = {}

    def __post_init__(self) -> None:
        for name in ("steps", "learning_rate", "batch_size", "frames", "checkpoint_every", "warm_up"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be above 0, not {getattr(self, name):g}")
        for name in ("start_share", "synthetic"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be from 0 to 1, not {getattr(self, name):g}")
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, not {self.precision}")
        if unknown := sorted(self.losses.keys() - self.default_losses.keys()):
            known = ", ".join(self.default_losses) or "none"
            raise ValueError(f"losses.{unknown[0]}: unknown loss; known: {known}")

    @property
    def weights(self) -> dict[str, float]:
        """Weights of all loss terms."""
        return {**self.default_losses, **self.losses}

    def windows(self, job: Job, mel: LogMel) -> dict[bool, Windows]:
        """Examples for training (False) and, if enough is held out, for the held-out loss (True)."""
        found = {False: Windows(job.cache, mel, self.frames, self.seed, self.synthetic)}
        try:
            found[True] = Windows(job.cache, mel, self.frames, self.seed, held_out=True)
        except ValueError:
            job.log.say(f"{self.name}: too little is held out for a held-out loss")
        return found

    def trainer(self, job: Job, held_out: bool) -> Trainer:
        options: dict[str, Any] = {
            name: getattr(self, name)
            for name in (
                *("name", "steps", "batch_size", "seed", "learning_rate"),
                *("start_share", "precision", "checkpoint_every", "warm_up"),
            )
        }
        return Trainer(job.folder, log=job.log, key=job.key, held_out=held_out, **options)

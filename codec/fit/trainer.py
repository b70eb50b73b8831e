"""Gradient descent that can be interrupted and resumed: AdamW, cosine schedule, averaged weights, checkpoints."""

from __future__ import annotations

import contextlib
import math
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from .log import TrainingLog

DECAY = 0.999  # of the weights' moving average
WARM_UP = 300  # steps
REPORT = 50  # steps between two lines
HELD_OUT_BATCHES = 4
TIMED_STEPS = 10  # of either precision, before the faster one is taken

# (step, held_out) -> the loss and its terms. Everything random in it comes from torch's generator, which is seeded by
# the step, or from the step itself.
Loss = Callable[[int, bool], tuple[Tensor, dict[str, Tensor]]]


class Opponent(Protocol):
    """Networks trained against a model, such as discriminators; they are part of its checkpoints."""

    def learn(self) -> None:
        """Take a step on the last output of the model."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


@dataclass
class Trainer:
    """How a network is trained.

    Attributes:
        folder: of the checkpoint, from which a stopped run is resumed.
        steps: of gradient descent.
        log: of the run.
        name: of the checkpoint.
        batch_size: examples in a step.
        seed: of the examples.
        learning_rate: its peak.
        start_share: share of the weights before in the weights after. The mean of weights before and after is
            better than either at what they were not trained for in particular ("Model soups", Wortsman et al., ICML
            2022).
        precision: float32, bfloat16 (autocast), or auto: the faster one; processors differ by a factor of 20.
        checkpoint_every: steps; then the held-out loss is reported, too.
        key: what a checkpoint must agree with.
        held_out: whether there is a held-out loss.
        warm_up: steps until the learning rate is at its peak.
    """

    folder: Path
    steps: int
    log: TrainingLog
    name: str = "model"
    batch_size: int = 16
    seed: int = 0
    learning_rate: float = 1e-3
    start_share: float = 0.0
    precision: str = "float32"
    checkpoint_every: int = 500
    key: str = ""
    held_out: bool = False
    warm_up: int = WARM_UP
    held_out_losses: dict[str, float] = field(default_factory=dict)

    @property
    def checkpoint(self) -> Path:
        return self.folder / f"{self.name}.pt"

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """Context for networks; losses and spectra stay outside of it."""
        return torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.precision == "bfloat16")

    def fit(self, model: nn.Module, loss: Loss, opponent: Opponent | None = None) -> None:
        """Train what requires a gradient in `model`, in place, and leave it with averaged weights (EMA), fixed.

        Raises:
            ValueError: the checkpoint is of other data or options.
        """
        before = {k: v.detach().clone() for k, v in model.state_dict().items()}
        average = {k: v.clone() for k, v in before.items()}
        optimizer = torch.optim.AdamW(model.parameters(), self.learning_rate, betas=(0.9, 0.98), weight_decay=1e-4)
        first = 0
        if self.checkpoint.exists():
            state = torch.load(self.checkpoint, weights_only=True)
            if state["key"] != self.key:
                raise ValueError(f"{self.checkpoint} is of other data or options; remove it to start anew")
            model.load_state_dict(state["model"])
            optimizer.load_state_dict(state["optimizer"])
            average, before, first, self.precision = (state[k] for k in ("average", "before", "step", "precision"))
            if opponent is not None:
                opponent.load_state_dict(state["opponent"])
            if first > self.steps:
                raise ValueError(f"{self.checkpoint} has {first} steps already; remove it for {self.steps}")
            self.log.say(f"{self.name}: resumed at step {first}")
        elif self.precision == "auto":
            self._choose_precision(model, loss)
        sums: Counter[str] = Counter()
        since, started = 0, time.monotonic()
        for step in range(first, self.steps):
            warm = min(1.0, (step + 1) / self.warm_up)
            cosine = 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / self.steps))
            for group in optimizer.param_groups:
                group["lr"] = self.learning_rate * warm * cosine
            total, terms = self._step(loss, step)
            optimizer.zero_grad()
            total.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            if opponent is not None:
                opponent.learn()
            decay = min(DECAY, (step + 1) / (step + 10))
            for key, value in model.state_dict().items():
                average[key].lerp_(value, 1 - decay)
            sums.update({"loss": total.item(), **{k: v.item() for k, v in terms.items()}})
            since += 1
            last = step + 1 == self.steps
            if since == REPORT or last:
                speed = since / (time.monotonic() - started)
                self.log.step(self.name, step + 1, self.steps, {k: v / since for k, v in sums.items()}, speed)
                sums.clear()
                since, started = 0, time.monotonic()
            if (step + 1) % self.checkpoint_every == 0 or last:
                state = dict(model=model.state_dict(), optimizer=optimizer.state_dict(), average=average, before=before)
                state |= dict(step=step + 1, key=self.key, precision=self.precision)
                if opponent is not None:
                    state["opponent"] = opponent.state_dict()
                partial = self.checkpoint.with_suffix(".new")
                torch.save(state, partial)
                partial.replace(self.checkpoint)
                if not last:
                    self._evaluate(model, loss, average, step + 1)
        model.load_state_dict({k: v.lerp(before[k], self.start_share) for k, v in average.items()})
        self._evaluate(model, loss, model.state_dict(), self.steps)
        model.eval().requires_grad_(False)

    def _step(self, loss: Loss, step: int, held_out: bool = False) -> tuple[Tensor, dict[str, Tensor]]:
        torch.manual_seed(1_000_003 * self.seed + step)
        return loss(step, held_out)

    @torch.no_grad()
    def _evaluate(self, model: nn.Module, loss: Loss, weights: dict[str, Tensor], step: int) -> None:
        """Report the loss on held-out examples, the same ones each time, under these weights."""
        if not self.held_out:
            return
        current = {k: v.clone() for k, v in model.state_dict().items()}
        model.load_state_dict(weights)
        sums: Counter[str] = Counter()
        for number in range(HELD_OUT_BATCHES):
            total, terms = self._step(loss, number, held_out=True)
            sums.update({"loss": total.item(), **{k: v.item() for k, v in terms.items()}})
        model.load_state_dict(current)
        self.held_out_losses = {k: v / HELD_OUT_BATCHES for k, v in sums.items()}
        self.log.held_out(self.name, step, self.held_out_losses)

    def _choose_precision(self, model: nn.Module, loss: Loss) -> None:
        """Time the same steps in float32 and in bfloat16, without learning from them; stop as soon as one has won."""
        seconds: dict[str, float] = {}
        if self.steps < 10 * TIMED_STEPS:
            self.precision = "float32"
            return
        for self.precision in ("float32", "bfloat16"):
            self._step(loss, 0)[0].backward()  # makes what is kept
            started, count = time.monotonic(), 0
            limit = TIMED_STEPS * seconds.get("float32", math.inf)
            while count < TIMED_STEPS and time.monotonic() - started < limit:
                self._step(loss, 0)[0].backward()
                count += 1
            seconds[self.precision] = (time.monotonic() - started) / count
        model.zero_grad()
        self.precision = min(seconds, key=lambda name: seconds[name])
        times = ", ".join(f"{name} {value:.3g} s" for name, value in seconds.items())
        self.log.say(f"{self.name}: a step takes {times}; {self.precision} is used")

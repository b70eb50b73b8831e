"""Gradient descent that can be stopped and goes on: AdamW, cosine schedule, averaged weights, checkpoints."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

DECAY = 0.999  # of the weights' moving average
WARM_UP = 300  # steps
FURTHER = 4e-4  # learning rate of what has learned already


@dataclass(frozen=True)
class Run:
    """How a network is trained.

    Attributes:
        folder: for checkpoints, from which a stopped run goes on.
        steps: of gradient descent.
        progress: told what happens.
        batch_size: examples in a step.
        seed: of the examples.
        checkpoint_every: steps.
    """

    folder: Path
    steps: int
    progress: Callable[[str], None]
    batch_size: int = 16
    seed: int = 0
    checkpoint_every: int = 500

    def descend(
        self,
        name: str,
        model: nn.Module,
        loss: Callable[[int], tuple[Tensor, dict[str, Tensor]]],
        learning_rate: float,
        further: bool = False,
        **belongs_to: Any,
    ) -> None:
        """Train `model` in place and leave it with averaged weights (EMA), fixed.

        Args:
            name: of the checkpoint.
            loss: step -> the loss and terms to report; everything random in it comes from torch's generator, which is
                seeded by the step, or from the step itself.
            further: the model has learned already. It goes on at another learning rate, and ends half-way between what
                it was and what it becomes: the mean of the weights is better than either at what they were not trained
                for in particular ("Model soups", Wortsman et al., ICML 2022).
            belongs_to: what a checkpoint must agree with, apart from the seed.

        Raises:
            ValueError: the checkpoint is of something else.
        """
        checkpoint, belongs_to = self.folder / f"{name}.pt", dict(seed=self.seed, **belongs_to)
        learning_rate = FURTHER if further else learning_rate
        before = {k: v.detach().clone() for k, v in model.state_dict().items()}
        average = {k: v.clone() for k, v in before.items()}
        optimizer = torch.optim.AdamW(model.parameters(), learning_rate, betas=(0.9, 0.98), weight_decay=1e-4)
        first = 0
        if checkpoint.exists():
            state = torch.load(checkpoint, weights_only=True)
            if state["belongs_to"] != belongs_to:
                raise ValueError(f"{checkpoint} is of other data or options; remove it to start anew")
            model.load_state_dict(state["model"])
            optimizer.load_state_dict(state["optimizer"])
            average, first = state["average"], state["step"]
            self.progress(f"{name}: resumed at step {first}")
        sums: Counter[str] = Counter()
        since, started = 0, time.monotonic()
        for step in range(first, self.steps):
            warm = min(1.0, (step + 1) / WARM_UP)
            for group in optimizer.param_groups:
                group["lr"] = learning_rate * warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / self.steps)))
            torch.manual_seed(1_000_003 * self.seed + step)
            total, terms = loss(step)
            optimizer.zero_grad()
            total.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            decay = min(DECAY, (step + 1) / (step + 10))
            for key, value in model.state_dict().items():
                average[key].lerp_(value, 1 - decay)
            sums.update({"loss": total.item(), **{k: v.item() for k, v in terms.items()}})
            since += 1
            if (step + 1) % self.checkpoint_every == 0 or step + 1 == self.steps:
                state = dict(model=model.state_dict(), optimizer=optimizer.state_dict(), average=average)
                state |= dict(step=step + 1, belongs_to=belongs_to)
                partial = checkpoint.with_suffix(".new")
                torch.save(state, partial)
                partial.replace(checkpoint)
            if since == 50 or step + 1 == self.steps:
                means = "  ".join(f"{k} {v / since:.4g}" for k, v in sums.items())
                speed = since / (time.monotonic() - started)
                self.progress(f"{name}: step {step + 1}/{self.steps}  {means}  {speed:.2f} steps/s")
                sums.clear()
                since, started = 0, time.monotonic()
        model.load_state_dict({k: v.lerp(before[k], 0.5) for k, v in average.items()} if further else average)
        model.eval().requires_grad_(False)

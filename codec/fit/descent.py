"""Gradient descent that can be stopped and goes on: AdamW, cosine schedule, averaged weights, checkpoints."""

from __future__ import annotations

import contextlib
import math
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

DECAY = 0.999  # of the weights' moving average
WARM_UP = 300  # steps
FURTHER = 4e-4  # learning rate of what has learned already


def descend(
    model: nn.Module,
    loss: Callable[[int], tuple[Tensor, dict[str, Tensor]]],
    checkpoint: Path,
    belongs_to: dict[str, Any],
    progress: Callable[[str], None],
    *,
    steps: int,
    learning_rate: float,
    seed: int = 0,
    checkpoint_every: int = 500,
) -> None:
    """Train `model` in place and leave it with averaged weights (EMA).

    Args:
        loss: step -> the loss and terms to report; everything random in it comes from torch's generator, which is
            seeded by the step, or from the step itself.
        checkpoint: written now and then; when it exists, training goes on from there.
        belongs_to: what a checkpoint must agree with.

    Raises:
        ValueError: the checkpoint is of something else.
    """
    average = {k: v.detach().clone() for k, v in model.state_dict().items()}
    optimizer = torch.optim.AdamW(model.parameters(), learning_rate, betas=(0.9, 0.98), weight_decay=1e-4)
    first = 0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        if state["belongs_to"] != belongs_to:
            raise ValueError(f"{checkpoint} is of other data or options; remove it to start anew")
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        average, first = state["average"], state["step"]
        progress(f"{checkpoint.stem}: resumed at step {first}")
    sums: Counter[str] = Counter()
    since, started = 0, time.monotonic()
    for step in range(first, steps):
        warm = min(1.0, (step + 1) / WARM_UP)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / steps)))
        torch.manual_seed(1_000_003 * seed + step)
        total, terms = loss(step)
        optimizer.zero_grad()
        total.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        decay = min(DECAY, (step + 1) / (step + 10))
        for name, value in model.state_dict().items():
            average[name].lerp_(value, 1 - decay)
        sums.update({"loss": total.item(), **{k: v.item() for k, v in terms.items()}})
        since += 1
        if (step + 1) % checkpoint_every == 0 or step + 1 == steps:
            state = dict(model=model.state_dict(), optimizer=optimizer.state_dict(), average=average)
            state |= dict(step=step + 1, belongs_to=belongs_to)
            partial = checkpoint.with_suffix(".new")
            torch.save(state, partial)
            partial.replace(checkpoint)
        if since == 50 or step + 1 == steps:
            means = "  ".join(f"{k} {v / since:.4g}" for k, v in sums.items())
            speed = since / (time.monotonic() - started)
            progress(f"{checkpoint.stem}: step {step + 1}/{steps}  {means}  {speed:.2f} steps/s")
            sums.clear()
            since, started = 0, time.monotonic()
    model.load_state_dict(average)


@contextlib.contextmanager
def further(*networks: nn.Module) -> Iterator[float]:
    """Where networks that have learned already go on learning: gives a learning rate, and meets them half-way.

    The mean of the weights before and after is better than either at what they were not trained for in particular
    ("Model soups", Wortsman et al., ICML 2022).
    """
    before = [{k: v.clone() for k, v in network.state_dict().items()} for network in networks]
    yield FURTHER
    for network, old in zip(networks, before, strict=True):
        network.load_state_dict({k: v.lerp(old[k], 0.5) for k, v in network.state_dict().items()})

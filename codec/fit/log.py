"""The training log: lines for people, a JSONL file, and TensorBoard where it is installed."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


class TrainingLog:
    """Writes `log.jsonl` in a folder and passes lines on.

    Args:
        folder: None: nothing is written.
        say: called with a line.
    """

    def __init__(self, folder: Path | None, say: Callable[[str], None]):
        self.folder, self.say = folder, say
        self._board: Any = None
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError:
                return
            self._board = SummaryWriter(folder / "tensorboard")

    def step(self, stage: str, step: int, steps: int, losses: dict[str, float], speed: float) -> None:
        """Means of the losses since the last report, and steps per second."""
        terms = "  ".join(f"{k} {v:.4g}" for k, v in losses.items())
        self._write(stage, step, "train", losses, steps_per_second=round(speed, 4))
        self.say(f"{stage}: step {step}/{steps}  {terms}  {speed:.2f} steps/s")

    def held_out(self, stage: str, step: int, losses: dict[str, float]) -> None:
        """Losses on held-out examples."""
        terms = "  ".join(f"{k} {v:.4g}" for k, v in losses.items())
        self._write(stage, step, "held_out", losses)
        self.say(f"{stage}: held out  {terms}")

    def _write(self, stage: str, step: int, part: str, losses: dict[str, float], **more: Any) -> None:
        if self.folder is None:
            return
        line = {"time": round(time.time(), 1), "stage": stage, "step": step, "part": part, **more, "losses": losses}
        with open(self.folder / "log.jsonl", "a") as file:
            file.write(json.dumps(line) + "\n")
        if self._board is not None:
            for name, value in losses.items():
                self._board.add_scalar(f"{stage}/{part}/{name}", value, step)
            self._board.flush()

"""The channels of a file on their way from frames to sound, in groups that are made one after the other."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .conceal import CONTEXT, PIECE, fill
from .model import Model

Frames = Callable[
    [], Tensor
]  # of a group of channels [C, frame_size, T], made when it is called: 255 would take 540 MB


def alike(function: Callable[..., Any], *groups: list[Any]) -> list[Any]:
    """What a function makes of each group; neighbours that are the same objects stay one."""
    out: list[Any] = []
    for c, mine in enumerate(zip(*groups, strict=True)):
        same = c and all(a is b[c - 1] for a, b in zip(mine, groups, strict=True))
        out.append(out[-1] if same else function(*mine))
    return out


class Voice:
    """A group of channels: its vocoder, and the frames that were heard last."""

    def __init__(self, vocoder: Any, before: Tensor):
        self._vocoder, self._before = vocoder, before

    def push(self, frames: Tensor) -> Tensor:
        """Take frames [C, frame_size, T]; return the waveforms [C, N] that are settled by now."""
        self._before = torch.cat([self._before, frames[..., -CONTEXT:]], -1)[..., -CONTEXT:].clone()
        return self._vocoder.push(frames)

    def fill(self, after: Tensor, missing: int, start: int) -> Tensor:
        """The same with frames of a gap, as `conceal.fill` makes them."""
        return self._vocoder.push(fill(self._before, after, missing, start))

    def flush(self) -> Tensor:
        """The rest, behind what was pushed."""
        return self._vocoder.flush()

    def __copy__(self) -> Voice:
        return Voice(copy.copy(self._vocoder), self._before)


class Voices:
    """Groups of as many channels as the model works on at once; equal ones are made once, as long as they are equal."""

    def __init__(self, model: Model, channels: int):
        counts = [min(model.batch, channels - first) for first in range(0, channels, model.batch)]
        self._channels = channels
        self._nothing = [torch.zeros(count, model.frame_size, 0, device=model.device) for count in counts]
        first, last = (Voice(model.vocoder(), self._nothing[end]) for end in (0, -1))
        self._voices = [first] * (len(counts) - 1) + [first if counts[-1] == counts[0] else last]

    @torch.inference_mode()
    def push(self, frames: list[Frames]) -> np.ndarray:
        """Take the frames of every group; return the waveforms [C, N] that are settled by now."""
        self._part(frames)
        return self._run(lambda c, voice: voice.push(frames[c]()))

    def fill(self, missing: int, following: list[Frames] | None) -> Iterator[np.ndarray]:
        """The same with the frames of a gap in front of others, or at the end; in pieces."""
        if not missing:
            return
        after = self._nothing
        if following:
            with torch.inference_mode():
                after = alike(lambda frames: frames()[..., :CONTEXT].clone(), following)
            self._part(after)
        for start in range(0, missing, PIECE):
            with torch.inference_mode():
                made = self._run(lambda c, voice, start=start: voice.fill(after[c], missing, start))
            yield made

    @torch.inference_mode()
    def flush(self) -> np.ndarray:
        """The rest, behind what was pushed."""
        return self._run(lambda c, voice: voice.flush())

    def _part(self, given: list[Any]) -> None:
        """Groups that were one part where they are given different things."""
        before = list(self._voices)
        for c in range(1, len(before)):
            if before[c] is before[c - 1]:
                same = given[c] is given[c - 1]
                self._voices[c] = self._voices[c - 1] if same else copy.copy(before[c])

    def _run(self, job: Callable[..., Tensor]) -> np.ndarray:
        wave = out = np.zeros((self._channels, 0), np.float32)
        done = 0
        for c, voice in enumerate(self._voices):
            if not c or voice is not self._voices[c - 1]:
                wave = job(c, voice).cpu().numpy()
            if not c:
                out = np.empty((self._channels, wave.shape[1]), np.float32)
            out[done : done + len(wave)] = wave
            done += len(wave)
        return out

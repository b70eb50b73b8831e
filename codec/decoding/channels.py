"""The channels of a file on their way from frames to sound, in groups that are made one after the other."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..dsp.concealment import CONTEXT, PIECE, fill
from ..model import Model

# Of a group of channels [C, frame_size, T], made when it is called: those of 255 channels would take 540 MB.
Frames = Callable[[], Tensor]


def held(frames: Tensor) -> Frames:
    """Frames that are made already."""
    return lambda: frames


def alike(function: Callable[..., Any], *groups: list[Any]) -> list[Any]:
    """What a function makes of each group; neighbours that are the same objects stay one."""
    out: list[Any] = []
    for c, mine in enumerate(zip(*groups, strict=True)):
        same = c and all(a is b[c - 1] for a, b in zip(mine, groups, strict=True))
        out.append(out[-1] if same else function(*mine))
    return out


class Voice:
    """A group of channels: its vocoder, and what was heard last.

    Args:
        vocoder: of the model, see `Model.vocoder`.
        heard: frames [C, frame_size, T] and T, one after the other. They are not kept but made again if a gap follows:
            what is needed of them is half a megabyte for each channel.
    """

    def __init__(self, vocoder: Any, heard: Sequence[tuple[Frames, int]]):
        self._vocoder, self._heard = vocoder, heard

    def push(self, frames: Frames) -> Tensor:
        """Take frames; return the waveforms [C, N] that are settled by now."""
        made = frames()
        heard = [*self._heard, (frames, made.shape[-1])]
        while sum(count for _, count in heard[1:]) >= CONTEXT:
            heard = heard[1:]
        self._heard = heard
        return self._vocoder.push(made)

    def recall(self) -> None:
        """Make what was heard again, before a gap is filled."""
        before = torch.cat([frames() for frames, _ in self._heard], -1)[..., -CONTEXT:].clone()
        self._heard = [(held(before), before.shape[-1])]

    def fill(self, after: Tensor, missing: int, start: int) -> Tensor:
        """As `push`, with frames of a gap that `conceal.fill` makes."""
        return self._vocoder.push(fill(self._heard[0][0](), after, missing, start))

    def flush(self) -> Tensor:
        """The rest, behind what was pushed."""
        return self._vocoder.flush()

    def __copy__(self) -> Voice:
        return Voice(copy.copy(self._vocoder), self._heard)


class Voices:
    """Groups of as many channels as the model works on at once; equal ones are made once, as long as they are equal."""

    def __init__(self, model: Model, channels: int):
        counts = [min(model.batch, channels - first) for first in range(0, channels, model.batch)]
        self._channels = channels
        self._nothing = [torch.zeros(count, model.frame_size, 0, device=model.device) for count in counts]
        ends = (self._nothing[0], self._nothing[-1])
        first, last = (Voice(model.vocoder(), [(held(nothing), 0)]) for nothing in ends)
        self._voices = [first] * (len(counts) - 1) + [first if counts[-1] == counts[0] else last]

    @torch.inference_mode()
    def push(self, frames: list[Frames]) -> np.ndarray:
        """Take the frames of every group; return the waveforms [C, N] that are settled by now."""
        self._part(frames)
        return self._run(lambda c, voice: voice.push(frames[c]))

    def fill(self, missing: int, following: list[Frames] | None) -> Iterator[np.ndarray]:
        """The same with the frames of a gap in front of others, or at the end; in pieces."""
        if not missing:
            return
        after = self._nothing
        with torch.inference_mode():
            if following:
                after = alike(lambda frames: frames()[..., :CONTEXT].clone(), following)
                self._part(after)
            for voice in {id(voice): voice for voice in self._voices}.values():
                voice.recall()
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

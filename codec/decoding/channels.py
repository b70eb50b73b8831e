"""Frames to sound for all channels of a file, a group of channels at a time."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..dsp.concealment import CONTEXT, PIECE, fill
from ..stages import CodecModel, Renderer
from ..values import Frames

# Frames of a group of channels, made when it is called: those of 255 channels would take 540 MB.
LazyFrames = Callable[[], Frames]


def constant(frames: Frames) -> LazyFrames:
    """Frames that are made already."""
    return lambda: frames


def map_unique(function: Callable[..., Any], *groups: list[Any]) -> list[Any]:
    """A function applied to each group; neighbours that are the same object get one result."""
    out: list[Any] = []
    for c, mine in enumerate(zip(*groups, strict=True)):
        same = c and all(a is b[c - 1] for a, b in zip(mine, groups, strict=True))
        out.append(out[-1] if same else function(*mine))
    return out


class Crossfade:
    """Crossfades packets that overlap, in the middle half of the shared frames: each is least accurate at its ends.

    Args:
        overlap: frames that packets share; 0: packets pass as they are, and are not made yet.
    """

    def __init__(self, overlap: int):
        self._overlap = overlap
        self._behind: list[Frames] | None = None  # frames of the packet before that overlap the next one

    def join(self, groups: list[LazyFrames] | None, hops: int) -> list[LazyFrames] | None:
        """A packet's frames, joined to the packet before; None: it is missing."""
        if not self._overlap or groups is None:
            self._behind = None
            return groups
        made = map_unique(lambda frames: frames(), groups)
        if self._behind is not None:
            made = map_unique(lambda before, now: now.map(crossfade, before), self._behind, made)
        self._behind = map_unique(lambda frames: frames.during(slice(hops, None)), made)
        return map_unique(constant, made)


def crossfade(packet: Tensor, before: Tensor) -> Tensor:
    """A packet [..., T] whose first V frames fade over from those of the packet before, [..., V]."""
    count = before.shape[-1]
    weight = ((torch.arange(count, device=before.device).float() + 0.5 - count / 4) / (count / 2)).clamp(0, 1)
    return torch.cat([torch.lerp(before, packet[..., :count], weight), packet[..., count:]], -1)


class VocoderStream:
    """Renderer of a group of channels, with the last frames for concealment.

    Args:
        heard: recent frames and how many, in order. They are not stored but computed again if a gap follows, because
            they take half a megabyte for each channel.
    """

    def __init__(self, renderer: Renderer, heard: Sequence[tuple[LazyFrames, int]]):
        self._renderer, self._heard = renderer, heard

    def push(self, frames: LazyFrames) -> Tensor:
        """Take frames; return the waveforms [C, N] that are settled by now."""
        made = frames()
        heard = [*self._heard, (frames, made.count)]
        while sum(count for _, count in heard[1:]) >= CONTEXT:
            heard = heard[1:]
        self._heard = heard
        return self._renderer.push(made)

    def materialize_history(self) -> None:
        """Compute the recent frames again, before a gap is filled."""
        heard = Frames.stack([frames() for frames, _ in self._heard], -1)
        before = heard.map(lambda field: field[..., -CONTEXT:].clone())
        self._heard = [(constant(before), before.count)]

    def fill(self, after: Frames, missing: int, start: int) -> Tensor:
        """As `push`, with frames of a gap that `concealment.fill` makes."""
        before = self._heard[0][0]()
        return self._renderer.push(before.map(lambda b, a: fill(b, a, missing, start), after))

    def flush(self) -> Tensor:
        """The rest, behind what was pushed."""
        return self._renderer.flush()

    def __copy__(self) -> VocoderStream:
        return VocoderStream(copy.copy(self._renderer), self._heard)


class VocoderBank:
    """Renderers of all channels in groups of the model's batch size; equal groups share one as long as they are equal.

    Args:
        channels: of the file.
        piece: largest number of samples in a block, so that many equal channels take no memory of their own.
    """

    def __init__(self, model: CodecModel, channels: int, piece: int):
        counts = [min(model.batch, channels - first) for first in range(0, channels, model.batch)]
        self._piece = piece
        self._nothing = [Frames.silence(count, model.frame_size, 0, model.device) for count in counts]
        ends = (self._nothing[0], self._nothing[-1])
        first, last = (VocoderStream(model.renderer(), [(constant(nothing), 0)]) for nothing in ends)
        self._streams = [first] * (len(counts) - 1) + [first if counts[-1] == counts[0] else last]

    def push(self, frames: list[LazyFrames]) -> Iterator[np.ndarray]:
        """Take the frames of every group; give the waveforms that are settled by now, in blocks [C, n]."""
        self._split_groups(frames)
        return self._blocks(self._run(lambda c, stream: stream.push(frames[c])))

    def fill(self, missing: int, following: list[LazyFrames] | None) -> Iterator[np.ndarray]:
        """The same with the frames of a gap in front of others, or at the end; in pieces."""
        if not missing:
            return
        after = self._nothing
        with torch.inference_mode():
            if following:
                first = slice(0, CONTEXT)
                after = map_unique(lambda frames: frames().during(first).map(lambda field: field.clone()), following)
                self._split_groups(after)
            for stream in {id(stream): stream for stream in self._streams}.values():
                stream.materialize_history()
        for start in range(0, missing, PIECE):
            made = self._run(lambda c, stream, start=start: stream.fill(after[c], missing, start))
            yield from self._blocks(made)

    def flush(self) -> Iterator[np.ndarray]:
        """The rest, behind what was pushed."""
        return self._blocks(self._run(lambda c, stream: stream.flush()))

    def _split_groups(self, given: list[Any]) -> None:
        """Give groups that shared a renderer their own where their input differs from now on."""
        before = list(self._streams)
        for c in range(1, len(before)):
            if before[c] is before[c - 1]:
                same = given[c] is given[c - 1]
                self._streams[c] = self._streams[c - 1] if same else copy.copy(before[c])

    @torch.inference_mode()
    def _run(self, job: Callable[..., Tensor]) -> list[np.ndarray]:
        """Waveforms of every group; of those that are alike, the same object."""
        out: list[np.ndarray] = []
        for c, stream in enumerate(self._streams):
            same = c and stream is self._streams[c - 1]
            out.append(out[-1] if same else job(c, stream).cpu().numpy())
        return out

    def _blocks(self, waves: list[np.ndarray]) -> Iterator[np.ndarray]:
        """Waveforms of all channels, piece by piece."""
        for start in range(0, max(1, waves[0].shape[1]), self._piece):
            yield np.concatenate([wave[:, start : start + self._piece] for wave in waves])

"""Framing: a waveform cut into packets, each with the samples around it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np


class Window(NamedTuple):
    """Samples [C, pad + before + size + behind + after + pad] of a packet.

    Attributes:
        samples: all of them; `size` and `behind` are the packet's own, the rest is only heard.
        before, after: of context.
    """

    samples: np.ndarray
    before: int = 0
    after: int = 0

    @property
    def shape(self) -> tuple[int, ...]:
        """Windows of equal shape can be worked on together."""
        return *self.samples.shape, self.before, self.after


class Framer:
    """Cuts a stream of blocks [C, n] into windows, one for each packet.

    Both ends of the stream are reflected by `pad`; the last packet is shorter, and reflected to a multiple of
    `multiple`, which is larger than `pad`, and by `behind`. Windows reach `context` samples further on either side, but
    not beyond the ends.
    """

    def __init__(self, size: int, pad: int, multiple: int, behind: int = 0, context: int = 0):
        self.size, self.pad, self.multiple, self.behind, self.context = size, pad, multiple, behind, context
        self._window = size + behind + 2 * pad
        self._held: np.ndarray | None = None  # from `pad + _before` samples before the next packet on
        self._first = True
        self._before = 0  # samples of context

    def push(self, block: np.ndarray) -> Iterator[Window]:
        """Take samples, return the windows that are complete by now."""
        held = block if self._held is None else np.concatenate([self._held, block], 1)
        if self._first and held.shape[1] > self.pad:
            held = np.concatenate([held[:, self.pad : 0 : -1], held], 1)
            self._first = False
        while not self._first and held.shape[1] >= self._before + self._window + self.context:
            window, held = self._next(held, self.context)
            yield window
        self._held = held

    def flush(self) -> Iterator[Window]:
        """The rest."""
        held, pad = self._held, self.pad
        if held is None:
            return
        missing = -(held.shape[1] - self._before - (0 if self._first else pad)) % self.multiple
        held = np.pad(held, ((0, 0), (0, missing + self.behind)), mode="symmetric")
        if self._first:
            held = np.concatenate([held[:, pad:0:-1], held], 1)
        held = np.concatenate([held, held[:, -2 : -pad - 2 : -1]], 1)
        while (left := held.shape[1] - self._before - self.behind - 2 * pad) > 0:
            window, held = self._next(held, min(self.context, max(0, left - self.size)))
            yield window

    def _next(self, held: np.ndarray, after: int) -> tuple[Window, np.ndarray]:
        """The next packet's window, and what is held for those behind it."""
        window = Window(held[:, : self._before + self._window + after], self._before, after)
        before = min(self.context, self._before + self.size)
        held, self._before = held[:, self._before + self.size - before :], before
        return window, held

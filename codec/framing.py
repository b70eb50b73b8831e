"""A waveform cut into packets with the samples around them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np


class Framer:
    """Cuts a stream of blocks [C, n] into windows [C, pad + size + behind + pad], one for each packet.

    Both ends of the stream are reflected; the last packet is shorter, and reflected to a multiple of `multiple`,
    which is larger than `pad`.
    """

    def __init__(self, size: int, pad: int, multiple: int, behind: int = 0):
        self.size, self.pad, self.multiple, self.behind = size, pad, multiple, behind
        self._window = size + behind + 2 * pad
        self._held: np.ndarray | None = None  # from `pad` samples before the next packet on
        self._first = True

    def push(self, block: np.ndarray) -> Iterator[np.ndarray]:
        """Take samples, return the windows that are complete by now."""
        held = block if self._held is None else np.concatenate([self._held, block], 1)
        if self._first and held.shape[1] > self.pad:
            held = np.concatenate([held[:, self.pad : 0 : -1], held], 1)
            self._first = False
        while not self._first and held.shape[1] >= self._window:
            yield held[:, : self._window]
            held = held[:, self.size :]
        self._held = held

    def flush(self) -> Iterator[np.ndarray]:
        """The rest."""
        held, pad = self._held, self.pad
        if held is None:
            return
        missing = -(held.shape[1] - (0 if self._first else pad)) % self.multiple
        held = np.pad(held, ((0, 0), (0, missing + self.behind)), mode="symmetric")
        if self._first:
            held = np.concatenate([held[:, pad:0:-1], held], 1)
        held = np.concatenate([held, held[:, -2 : -pad - 2 : -1]], 1)
        while held.shape[1] > self.behind + 2 * pad:
            yield held[:, : self._window]
            held = held[:, self.size :]

"""Adaptive entropy coding, without trained tables. Specified in spec/aldm-format.md, section 5.1.

For every latent channel, encoder and decoder keep running means of the indices, in integers. The means choose the
frequency table of the next index from a fixed bank, and the value that the index is coded relative to.
"""

from __future__ import annotations

import functools
import math

import numpy as np

from .entropy import decode_vector, encode_vector, new_decoder, new_encoder, payload_errors, payload_of

LEVELS = 48
LIMIT = 31  # differences of this magnitude or more are escaped
SCALES = 56  # tables: 4 for each of 14 octaves of mean magnitude, from 2^-8 on
FRACTION_BITS = 16  # running means are in units of 2^-16
SCALE_SHIFT = 6  # low bits of a mean that do not matter for the choice of a table
# Mean magnitude at the start of a packet, for levels 0 .. 7: round(1400 * 2^(n / 8)); 8 levels on, it is twice that
START = (1400, 1527, 1665, 1816, 1980, 2159, 2355, 2568)
SLOW, FAST, CENTRE = 4, 1, 2  # shifts of the running means: the weight of a new value is 2^-shift


@functools.cache
def bank() -> np.ndarray:
    """Frequencies of the symbols -LIMIT .. LIMIT, the outer two escapes: float64, exact integers, [SCALES, 63].

    Two-sided geometric distributions with ratio r of mean magnitude m = 2 r / (1 - r^2), so r = (sqrt(1 + m^2) - 1) /
    m, in integers: m counts in 2^-11, r in 2^-32.
    """
    tables = np.empty((SCALES, 2 * LIMIT + 1))
    for scale in range(SCALES):
        m = (2 * (4 + scale % 4) + 1) << scale // 4
        r = ((math.isqrt((m * m + (1 << 22)) << 32) - (1 << 27)) << 16) // m
        weight = 1 << 32
        for k in range(LIMIT):
            tables[scale, [LIMIT - k, LIMIT + k]] = 1 + (weight >> 8)
            weight = weight * r >> 32
        tables[scale, [0, -1]] = 1 + ((weight << 32) // ((1 << 32) - r) >> 8)  # the rest of the distribution
    return tables


@functools.cache
def costs() -> np.ndarray:
    """Bits of every symbol under every table, [SCALES, 63]; for the encoder's choices only."""
    return -np.log2(bank() / bank().sum(1, keepdims=True))


class State:
    """Running means of the latent channels, and what follows from them for the next vector.

    Args:
        channels: latent channels: groups of `bands` neighbouring frequencies.
        bands: frequencies in a group, at least 2.
        level: quality, 0 .. 47.

    Attributes:
        centre: [channels] int64, values that the next indices are coded relative to.
        table: [channels] int64, numbers of their tables in the bank.
    """

    def __init__(self, channels: int, bands: int, level: int):
        start = START[level % 8] << level // 8
        self._slow = np.full((channels // bands, bands), start, np.int64)
        self._fast = self._slow.copy()
        self._mean = np.zeros_like(self._slow)
        self._vectors = 0
        self._choose()

    def _choose(self) -> None:
        fast = self._fast
        near = np.concatenate([fast[:, 1:2], fast[:, :-2] + fast[:, 2:] >> 1, fast[:, -2:-1]], 1)
        scale = np.clip((2 * self._slow + fast + near >> 2) >> SCALE_SHIFT, 4, 7 << SCALES // 4 - 1).ravel()
        exponent = np.frexp(scale.astype(np.float64))[1].astype(np.int64) - 3  # bits after the leading three
        self.table = 4 * exponent + (scale >> exponent) - 4
        self.centre = (self._mean.ravel() + (1 << FRACTION_BITS - 1)) >> FRACTION_BITS

    def update(self, indices: np.ndarray) -> None:
        """Update the means with the vector [channels] that was coded."""
        size = (np.abs(indices - self.centre) << FRACTION_BITS).reshape(self._slow.shape)
        self._slow += size - self._slow >> min(SLOW, (self._vectors + 2).bit_length() - 1)
        self._fast += size - self._fast >> FAST
        self._mean += (indices.astype(np.int64) << FRACTION_BITS).reshape(self._mean.shape) - self._mean >> CENTRE
        self._vectors += 1
        self._choose()


def encode_adaptive(streams: list[np.ndarray], bands: int, level: int) -> bytes:
    """Code the indices of a packet: for each coded channel, one after the other, [N, latent channels]."""
    coder = new_encoder()
    for indices in streams:
        state = State(indices.shape[1], bands, level)
        for vector in indices.astype(np.int64):
            encode_vector(coder, vector - state.centre, bank()[state.table])
            state.update(vector)
    return payload_of(coder)


def decode_adaptive(
    payload: bytes, count: int, vectors: int, channels: int, bands: int, level: int
) -> list[np.ndarray]:
    """Inverse of `encode_adaptive`: for each of `count` coded channels the indices, int32 [vectors, channels].

    Raises:
        DamageError: the payload does not decode.
    """
    coder, streams = new_decoder(payload), []
    with payload_errors():
        for _ in range(count):
            state = State(channels, bands, level)
            indices = np.empty((vectors, channels), np.int64)
            for n in range(vectors):
                indices[n] = decode_vector(coder, bank()[state.table]) + state.centre
                state.update(indices[n])
            streams.append(indices.astype(np.int32))
    return streams

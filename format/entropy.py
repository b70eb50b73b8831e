"""Entropy coding of quantised latents under integer tables. Specified in spec/aldm-format.md, section 5."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import constriction
import numpy as np

from .errors import DamageError

_model = constriction.stream.model
ESCAPE_BITS = 3  # order of the exponential Golomb code behind an escape
MAX_EXPONENT = 16  # so |index| < limit + 2^19


@dataclass(frozen=True)
class Tables:
    """Frequencies of a model folder. Every vector has a class, which chooses the table of each of its indices.

    Attributes:
        bank: [tables, 2 * limit + 1] counts >= 1 of the symbols -limit .. limit; the outer two are escapes.
        choice: [levels, classes, channels] number of the table.
        transitions: [levels, classes + 1, classes] counts >= 1 of a vector's class after the last one's;
            the last row is for the first vector of a channel.
    """

    bank: np.ndarray
    choice: np.ndarray
    transitions: np.ndarray

    @property
    def limit(self) -> int:
        """Magnitude from which on an index is escaped."""
        return self.bank.shape[1] // 2

    @functools.cached_property
    def costs(self) -> np.ndarray:
        """Bits of every symbol under every table, [tables, 2 * limit + 1]; for the encoder's choices only."""
        return -np.log2(self.bank / self.bank.sum(1, keepdims=True))

    def symbol_models(self, level: int, cls: int) -> np.ndarray:
        """Frequencies of the symbols of a vector, [channels, 2 * limit + 1] as float64, exact integers."""
        return self.bank[self.choice[level, cls]].astype(np.float64)

    def class_model(self, level: int, last: int) -> np.ndarray:
        """Frequencies of the class after class `last` (-1: none), [classes] as float64, exact integers."""
        return self.transitions[level, last].astype(np.float64)


def encode_indices(streams: list[tuple[np.ndarray, np.ndarray]], tables: Tables, level: int) -> bytes:
    """Code the channels of a packet, one after the other.

    Args:
        streams: for each channel the classes [N] and the indices [N, channels of the latent].
    """
    coder = constriction.stream.queue.RangeEncoder()
    family = _model.Categorical(perfect=False)
    limit = tables.limit
    for classes, indices in streams:
        last = -1
        for cls, vector in zip(classes.tolist(), indices.astype(np.int64), strict=True):
            coder.encode(cls, _model.Categorical(tables.class_model(level, last), perfect=False))
            symbols = np.clip(vector, -limit, limit) + limit
            coder.encode(symbols.astype(np.int32), family, tables.symbol_models(level, cls))
            for excess in (np.abs(vector[np.abs(vector) >= limit]) - limit).tolist():
                value = excess + (1 << ESCAPE_BITS)
                exponent = value.bit_length() - 1 - ESCAPE_BITS
                if exponent >= MAX_EXPONENT:
                    raise ValueError("index too large for the bitstream")
                coder.encode(exponent, _model.Uniform(MAX_EXPONENT))
                bits = exponent + ESCAPE_BITS
                coder.encode(value - (1 << bits), _model.Uniform(1 << bits))
            last = cls
    return coder.get_compressed().astype(">u4").tobytes().rstrip(b"\0")


def decode_indices(
    payload: bytes, channels: int, vectors: int, tables: Tables, level: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Inverse of `encode_indices`: for each channel classes [N] and indices [N, channels of the latent].

    Raises:
        DamageError: the payload does not decode.
    """
    words = np.frombuffer(payload + bytes(-len(payload) % 4), ">u4").astype(np.uint32)
    coder = constriction.stream.queue.RangeDecoder(words)
    family = _model.Categorical(perfect=False)
    limit, streams = tables.limit, []
    try:
        for _ in range(channels):
            classes = np.empty(vectors, np.int64)
            indices = np.empty((vectors, tables.choice.shape[2]), np.int32)
            last = -1
            for n in range(vectors):
                last = int(coder.decode(_model.Categorical(tables.class_model(level, last), perfect=False)))
                classes[n] = last
                vector = coder.decode(family, tables.symbol_models(level, last)) - limit
                for c in np.flatnonzero(np.abs(vector) == limit).tolist():
                    bits = int(coder.decode(_model.Uniform(MAX_EXPONENT))) + ESCAPE_BITS
                    excess = int(coder.decode(_model.Uniform(1 << bits))) + (1 << bits) - (1 << ESCAPE_BITS)
                    vector[c] += np.sign(vector[c]) * excess
                indices[n] = vector
            streams.append((classes, indices))
    except (AssertionError, ValueError, IndexError) as error:  # what constriction raises on impossible bits
        raise DamageError("damaged packet: its payload does not decode") from error
    return streams

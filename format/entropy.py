"""Entropy coding of quantised latents under integer tables. Specified in spec/aldm-format.md, section 5."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import constriction
import numpy as np

from .errors import DamageError

_model = constriction.stream.model
ESCAPE_BITS = 3  # order of the exponential Golomb code behind an escape
MAX_EXPONENT = 16  # exponents are below it, so |index| < limit + 2^19


@dataclass(frozen=True)
class Tables:
    """Frequency tables of a model folder. Every vector has a class, which chooses the table of each of its indices.

    Attributes:
        bank: [tables, 2 * limit + 1] counts >= 1 of the symbols -limit .. limit; the outer two are escapes.
        choice: [levels, classes, channels] numbers of tables in the bank.
        transitions: [levels, classes + 1, classes] counts >= 1 of a vector's class, given that of the vector before;
            the last row is for the first vector of a channel.
    """

    bank: np.ndarray
    choice: np.ndarray
    transitions: np.ndarray

    @property
    def limit(self) -> int:
        """Indices of this magnitude or more are escaped."""
        return self.bank.shape[1] // 2

    @functools.cached_property
    def costs(self) -> np.ndarray:
        """Bits of every symbol under every table, [tables, 2 * limit + 1] float32; for the encoder's choices only."""
        return -np.log2(self.bank / self.bank.sum(1, keepdims=True)).astype(np.float32)

    def symbol_models(self, level: int, cls: int) -> np.ndarray:
        """Frequencies of the symbols of a vector, [channels, 2 * limit + 1] as float64, exact integers."""
        return self.bank[self.choice[level, cls]].astype(np.float64)

    def class_model(self, level: int, last: int) -> np.ndarray:
        """Frequencies of the class after class `last` (-1: none before), [classes] as float64, exact integers."""
        return self.transitions[level, last].astype(np.float64)


def new_encoder() -> Any:
    """A range encoder."""
    return constriction.stream.queue.RangeEncoder()


def payload_of(encoder: Any) -> bytes:
    """Bytes of a range encoder, without the zeros at the end."""
    return encoder.get_compressed().astype(">u4").tobytes().rstrip(b"\0")


def new_decoder(payload: bytes) -> Any:
    """A range decoder of a payload, which zero bytes follow."""
    words = np.frombuffer(payload + bytes(-len(payload) % 4), ">u4").astype(np.uint32)
    return constriction.stream.queue.RangeDecoder(words)


def encode_vector(coder: Any, vector: np.ndarray, tables: np.ndarray) -> None:
    """Code integers [C], each under its own frequency table, [C, 2 * limit + 1] (float64, exact integers).

    Raises:
        ValueError: an integer is too large for the bitstream.
    """
    limit = tables.shape[1] // 2
    symbols = np.clip(vector, -limit, limit) + limit
    coder.encode(symbols.astype(np.int32), _model.Categorical(perfect=False), tables)
    for escape_remainder in (np.abs(vector[np.abs(vector) >= limit]) - limit).tolist():
        value = escape_remainder + (1 << ESCAPE_BITS)
        exponent = value.bit_length() - 1 - ESCAPE_BITS
        if exponent >= MAX_EXPONENT:
            raise ValueError("index too large for the bitstream")
        coder.encode(exponent, _model.Uniform(MAX_EXPONENT))
        bits = exponent + ESCAPE_BITS
        coder.encode(value - (1 << bits), _model.Uniform(1 << bits))


def decode_vector(coder: Any, tables: np.ndarray) -> np.ndarray:
    """Inverse of `encode_vector`: integers [C]."""
    limit = tables.shape[1] // 2
    vector = coder.decode(_model.Categorical(perfect=False), tables) - limit
    for c in np.flatnonzero(np.abs(vector) == limit).tolist():
        bits = int(coder.decode(_model.Uniform(MAX_EXPONENT))) + ESCAPE_BITS
        escape_remainder = int(coder.decode(_model.Uniform(1 << bits))) + (1 << bits) - (1 << ESCAPE_BITS)
        vector[c] += np.sign(vector[c]) * escape_remainder
    return vector


@contextlib.contextmanager
def payload_errors() -> Iterator[None]:
    """Turn what constriction raises for invalid payloads into a DamageError."""
    try:
        yield
    except (AssertionError, ValueError, IndexError) as error:
        raise DamageError("damaged packet: its payload does not decode") from error


def encode_indices(streams: list[tuple[np.ndarray, np.ndarray]], tables: Tables, level: int) -> bytes:
    """Code the channels of a packet, one after the other.

    Args:
        streams: for each channel the classes [N] and the indices [N, channels of the latent].
    """
    coder = new_encoder()
    for classes, indices in streams:
        last = -1
        for cls, vector in zip(classes.tolist(), indices.astype(np.int64), strict=True):
            coder.encode(cls, _model.Categorical(tables.class_model(level, last), perfect=False))
            encode_vector(coder, vector, tables.symbol_models(level, cls))
            last = cls
    return payload_of(coder)


def decode_indices(
    payload: bytes, channels: int, vectors: int, tables: Tables, level: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Inverse of `encode_indices`: for each channel classes [N] and indices [N, channels of the latent].

    Raises:
        DamageError: the payload does not decode.
    """
    coder, streams = new_decoder(payload), []
    with payload_errors():
        for _ in range(channels):
            classes = np.empty(vectors, np.int64)
            indices = np.empty((vectors, tables.choice.shape[2]), np.int32)
            last = -1
            for n in range(vectors):
                last = int(coder.decode(_model.Categorical(tables.class_model(level, last), perfect=False)))
                classes[n] = last
                indices[n] = decode_vector(coder, tables.symbol_models(level, last))
            streams.append((classes, indices))
    return streams

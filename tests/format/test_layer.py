"""The enhancement layer's bytes."""

from dataclasses import replace

import numpy as np
import pytest
from aldm.format.errors import DamageError
from aldm.format.layer import FIELDS, Layer
from hypothesis import given
from hypothesis import strategies as st

LAYER = Layer(b"ab", 0, 20, 3, 14, 1, 12, 2, 39)


@st.composite
def layers(draw: st.DrawFn) -> Layer:
    schedule = draw(st.integers(1, 1000))
    first = draw(st.integers(0, schedule - 1))
    bits = draw(st.integers(0, 14))
    return Layer(
        draw(st.binary(min_size=2, max_size=2)),
        draw(st.integers(0, 255)),
        schedule,
        first,
        draw(st.integers(1, min(12, schedule - first))),
        draw(st.integers(1, 64)),
        bits,
        draw(st.integers(1, min(5, 1 << bits))),
        draw(st.integers(0, 254)),
    )


@given(layers(), st.integers(0, 3), st.integers(1, 20), st.integers(0, 2**32 - 1))
def test_round_trip(layer: Layer, channels: int, vectors: int, seed: int) -> None:
    picks = np.random.default_rng(seed).integers(0, 2 << layer.bits, layer.shape(channels, vectors))
    body = layer.pack(picks)
    assert len(body) == layer.size(channels, vectors)
    parsed, found = Layer.parse(body, channels, vectors)
    assert parsed == layer
    assert np.array_equal(found, picks)


@given(st.binary(max_size=60), st.integers(0, 255), st.integers(1, 64))
def test_any_bytes(body: bytes, channels: int, vectors: int) -> None:
    """They are a layer or damaged; nothing else happens."""
    try:
        layer, picks = Layer.parse(body, channels, vectors)
    except DamageError:
        return
    assert picks.shape == layer.shape(channels, vectors)
    assert layer.size(channels, vectors) == len(body)


@given(st.integers(0, FIELDS.size - 1), st.integers(0, 7))
def test_flipped_parameters_never_read_more_than_is_there(byte: int, bit: int) -> None:
    body = bytearray(LAYER.pack(np.ones(LAYER.shape(1, 10), np.int64)))
    body[byte] ^= 1 << bit
    try:
        layer, _ = Layer.parse(bytes(body), 1, 10)
    except DamageError:
        return
    assert layer.size(1, 10) == len(body)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("seed", 256), ("schedule", 0), ("schedule", 1001), ("first", 20), ("steps", 18), ("steps", 0)],
        *[("span", 65), ("bits", 15), ("bits", -1), ("atoms", 65), ("atoms", 0), ("level", 255)],
    ],
)
def test_parameters_out_of_range_are_named(name: str, value: int) -> None:
    with pytest.raises(ValueError, match=name):
        replace(LAYER, **{name: value})

"""Adaptive tables: lossless, follow what they code, harmless on garbage, and the same integers everywhere."""

import hashlib
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from aldm.codec.quantization.adaptive import AdaptiveCodebook
from aldm.format import DamageError
from aldm.format.adaptive import LEVELS, State, bank, decode_adaptive, encode_adaptive
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import reference

CHANNELS, BANDS = 8, 4
values = st.one_of(st.integers(-3, 3), st.integers(-(1 << 17), 1 << 17))
vectors = st.lists(values, min_size=CHANNELS, max_size=CHANNELS)
CODEBOOK = AdaptiveCodebook(128, 16)


def latents(seed: int = 0, seconds: float = 10.24) -> np.ndarray:
    """Noise whose level differs between channels, and over time in half of them; [128, N], unit variance."""
    rng = np.random.default_rng(seed)
    count = round(seconds * 25)
    spread = np.exp(rng.normal(0, 1, (128, 1)))
    z = rng.normal(size=(128, count)) * spread
    z[::2] *= np.exp(1.5 * np.sin(np.arange(count) / 20))
    return (z / z.std()).astype(np.float32)


@given(st.lists(st.lists(vectors, min_size=5, max_size=5), max_size=3), st.integers(0, LEVELS - 1))
def test_round_trip(channels: list[list[list[int]]], level: int) -> None:
    streams = [np.array(channel) for channel in channels]
    decoded = decode_adaptive(encode_adaptive(streams, BANDS, level), len(streams), 5, CHANNELS, BANDS, level)
    for indices, again in zip(streams, decoded, strict=True):
        np.testing.assert_array_equal(indices, again)


@settings(max_examples=300)
@given(st.binary(max_size=200), st.integers(0, 3), st.integers(1, 20), st.integers(0, LEVELS - 1))
def test_garbage_decodes_or_is_refused(payload: bytes, count: int, length: int, level: int) -> None:
    try:
        streams = decode_adaptive(payload, count, length, CHANNELS, BANDS, level)
    except DamageError:
        return
    assert [indices.shape for indices in streams] == [(length, CHANNELS)] * count


def test_too_large_an_index_is_refused() -> None:
    with pytest.raises(ValueError, match="too large"):
        encode_adaptive([np.full((1, CHANNELS), 1 << 20)], BANDS, 0)


def test_tables_are_these_integers() -> None:
    """A change of a single count is another format."""
    tables = bank()
    assert (tables == np.floor(tables)).all()
    assert tables.min() >= 1
    assert (np.diff(tables[:, 31] / tables.sum(1)) < 0).all()
    digest = hashlib.sha256(tables.astype("<i8").tobytes()).hexdigest()
    assert digest[:16] == "44dfa66a00b647c3"


def test_tables_have_the_mean_that_chooses_them() -> None:
    magnitude = (bank() * np.abs(np.arange(-31, 32))).sum(1) / bank().sum(1)
    for table in range(40):  # those of larger means lose what escapes hold
        low = (4 + table % 4) * 2.0 ** (table // 4 - 10)
        assert low * 0.98 < magnitude[table] < low * 1.27


@pytest.mark.parametrize("quality", [8, 20, 36])
def test_bits_are_near_the_entropy_and_estimated_well(quality: int) -> None:
    z = latents()
    classes, indices, _ = CODEBOOK.quantize(z, quality)
    bits = CODEBOOK.encoder().estimate(z, quality)
    written = 8 * len(CODEBOOK.pack([(classes, indices)], quality))
    assert abs(written - bits) < 0.005 * bits + 40
    ideal = 0.0  # of static tables that know every channel's own histogram, which no decoder could
    for channel in indices.T:
        counts = np.unique(channel, return_counts=True)[1]
        ideal -= (counts * np.log2(counts / len(channel))).sum()
    assert written < 1.12 * ideal


def test_it_learns_while_it_codes() -> None:
    """A constant costs almost nothing after a while, and so does noise of small variance."""
    z = np.repeat(np.random.default_rng(1).normal(size=(128, 1)), 256, 1).astype(np.float32)
    indices = CODEBOOK.quantize(z, 30).indices
    all_bits, first_bits = CODEBOOK.encoder().estimate(z, 30), CODEBOOK.encoder().estimate(z[:, :16], 30)
    assert np.abs(indices[-1] - z[:, -1] / CODEBOOK.steps(30)).max() < 1.5
    assert all_bits < 1.5 * first_bits


def test_the_whole_range_of_rates() -> None:
    z = latents()
    sizes = [len(CODEBOOK.pack([CODEBOOK.quantize(z, q)[:2]], q)) * 8 / 10.24 / 1000 for q in (6, 16, 26, 36)]
    errors = [np.square(CODEBOOK.quantize(z, q).latents - z).mean() for q in (6, 16, 26, 36)]
    assert sizes[0] < 0.3 < 6 < sizes[-1]
    assert sizes == sorted(sizes)
    assert errors == sorted(errors, reverse=True)


def test_states_of_both_sides_agree_on_any_history() -> None:
    rng = np.random.default_rng(2)
    one, two = State(128, 16, 20), State(128, 16, 20)
    for _ in range(300):
        vector = np.rint(rng.laplace(0, rng.choice([0.1, 3, 1000]), 128)).astype(np.int64)
        one.update(vector)
        two.update(vector.astype(np.int32))
        np.testing.assert_array_equal(one.table, two.table)
        np.testing.assert_array_equal(one.centre, two.centre)
        assert 0 <= one.table.min() <= one.table.max() < len(bank())


def by_the_text(channels: int = 128, bands: int = 16) -> Any:
    """What the decoder that was written from section 5.1 has to know of a model."""
    table = reference.adaptive_bank()
    return SimpleNamespace(
        bank=list(map(reference.intervals, table)), largest=31, groups=channels // bands, bands=bands
    )


@pytest.mark.parametrize("quality", [3, 22, 47])
def test_the_specification_says_the_same(quality: int) -> None:
    z = latents(seconds=2) + np.linspace(-9, 9, 128, dtype=np.float32)[:, None] * (quality > 40)
    classes, indices, _ = CODEBOOK.quantize(z, quality)
    payload = CODEBOOK.pack([(classes, indices)], quality)
    found = reference.read_adaptive_channel(reference.RangeDecoder(payload), len(indices), quality, by_the_text())
    assert found.indices == indices.tolist()
    assert quality < 40 or np.abs(indices).max() > 40  # escapes too


@settings(max_examples=60)
@given(st.binary(max_size=100), st.integers(1, 8), st.integers(0, LEVELS - 1))
def test_the_specification_takes_garbage_alike(payload: bytes, length: int, level: int) -> None:
    """The same integers, however large, or no decoding at all."""
    try:
        coder = reference.RangeDecoder(payload)
        found = reference.read_adaptive_channel(coder, length, level, by_the_text(CHANNELS, BANDS)).indices
    except reference.Damaged:
        with pytest.raises(DamageError):
            decode_adaptive(payload, 1, length, CHANNELS, BANDS, level)
        return
    assert decode_adaptive(payload, 1, length, CHANNELS, BANDS, level)[0].tolist() == found

"""Adaptive tables: lossless, follow what they code, harmless on garbage, and the same integers everywhere."""

import hashlib
import importlib.util
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aldm.codec.adaptive import AdaptiveCodebook
from aldm.format import DamageError
from aldm.format.adaptive import LEVELS, State, bank, decode_adaptive, encode_adaptive
from hypothesis import given, settings
from hypothesis import strategies as st

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
    classes, indices, bits = CODEBOOK.quantize(z, quality)
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
    _, indices, all_bits = CODEBOOK.quantize(z, 30)
    first_bits = CODEBOOK.quantize(z[:, :16], 30)[2]
    assert np.abs(indices[-1] - z[:, -1] / CODEBOOK.steps(30)).max() < 1.5
    assert all_bits < 1.5 * first_bits


def test_the_whole_range_of_rates() -> None:
    z = latents()
    sizes = [len(CODEBOOK.pack([CODEBOOK.quantize(z, q)[:2]], q)) * 8 / 10.24 / 1000 for q in (6, 16, 26, 36)]
    errors = [np.square(CODEBOOK.decoded(z, q) - z).mean() for q in (6, 16, 26, 36)]
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


def by_the_text(payload: bytes, vectors: int, channels: int, bands: int, quality: int) -> list[list[int]]:
    """Section 5.1 of the specification, word for word, one channel at a time and in Python's integers."""
    source = Path(__file__).parent.parent / "spec/reference_decoder.py"
    spec = importlib.util.spec_from_file_location("reference", source)
    assert spec
    assert spec.loader
    reference: Any = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = reference
    spec.loader.exec_module(reference)
    tables = []
    for t in range(56):
        m = (2 * (4 + t % 4) + 1) << t // 4
        r = ((math.isqrt((m**2 + 2**22) << 32) - 2**27) << 16) // m
        w = [1 << 32]
        for k in range(31):
            w.append(w[k] * r >> 32)
        half = [1 + (w[k] >> 8) for k in range(31)] + [1 + ((w[31] << 32) // (2**32 - r) >> 8)]
        tables.append(reference.intervals(half[:0:-1] + half))
    start = (1400, 1527, 1665, 1816, 1980, 2159, 2355, 2568)[quality % 8] * 2 ** (quality // 8)
    slow, fast, mean = [start] * channels, [start] * channels, [0] * channels
    coder, out = reference.RangeDecoder(payload), []
    for n in range(vectors):
        chosen, centres = [], []
        for c in range(channels):
            near = [fast[o] for o in (c - 1, c + 1) if o >= 0 and o // bands == c // bands]
            near = near[0] if len(near) == 1 else sum(near) >> 1
            scale = min(max((2 * slow[c] + fast[c] + near >> 2) >> 6, 4), 57344)
            e = scale.bit_length() - 3
            chosen.append(4 * e + (scale >> e) - 4)
            centres.append(mean[c] + 32768 >> 16)
        vector = [coder.symbol(tables[t]) - 31 for t in chosen]
        for c, value in enumerate(vector):
            if abs(value) == 31:
                e = coder.uniform(16)
                size = 31 + 2 ** (e + 3) - 8 + coder.uniform(2 ** (e + 3))
                vector[c] = size if value > 0 else -size
        out.append([value + centre for value, centre in zip(vector, centres, strict=True)])
        for c, value in enumerate(vector):
            a, r = abs(value) << 16, min(4, int(math.log2(n + 2)))
            slow[c] += a - slow[c] >> r
            fast[c] += a - fast[c] >> 1
            mean[c] += (out[-1][c] << 16) - mean[c] >> 2
    return out


@pytest.mark.parametrize("quality", [3, 22, 47])
def test_the_specification_says_the_same(quality: int) -> None:
    z = latents(seconds=2) + np.linspace(-9, 9, 128, dtype=np.float32)[:, None] * (quality > 40)
    classes, indices, _ = CODEBOOK.quantize(z, quality)
    payload = CODEBOOK.pack([(classes, indices)], quality)
    assert by_the_text(payload, len(indices), 128, 16, quality) == indices.tolist()
    assert quality < 40 or np.abs(indices).max() > 40  # escapes too

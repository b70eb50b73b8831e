"""The entropy coder: lossless, close to the entropy of its tables, harmless on garbage, the same everywhere."""

import hashlib
import subprocess
import sys

import numpy as np
import pytest
from aldm.codec import Codec
from aldm.format import DamageError
from aldm.format.entropy import Tables, decode_indices, encode_indices
from conftest import clip
from hypothesis import given, settings
from hypothesis import strategies as st

LIMIT, CHANNELS, CLASSES, LEVELS = 5, 7, 3, 2


def small_tables() -> Tables:
    rng = np.random.default_rng(0)
    bank = rng.integers(1, 1000, (4, 2 * LIMIT + 1)).astype(np.int32)
    choice = rng.integers(0, 4, (LEVELS, CLASSES, CHANNELS)).astype(np.uint8)
    return Tables(bank, choice, rng.integers(1, 100, (LEVELS, CLASSES + 1, CLASSES)).astype(np.int32))


TABLES = small_tables()
values = st.one_of(st.integers(-LIMIT - 2, LIMIT + 2), st.integers(-(1 << 18), 1 << 18))
vectors = st.tuples(st.integers(0, CLASSES - 1), st.lists(values, min_size=CHANNELS, max_size=CHANNELS))


@given(st.lists(st.lists(vectors, min_size=4, max_size=4), max_size=3), st.integers(0, LEVELS - 1))
def test_round_trip(channels: list[list[tuple[int, list[int]]]], level: int) -> None:
    streams = [(np.array([k for k, _ in ch]), np.array([v for _, v in ch])) for ch in channels]
    payload = encode_indices(streams, TABLES, level)
    decoded = decode_indices(payload, len(streams), 4, TABLES, level)
    for (classes, indices), (classes_out, indices_out) in zip(streams, decoded, strict=True):
        np.testing.assert_array_equal(classes, classes_out)
        np.testing.assert_array_equal(indices, indices_out)


@settings(max_examples=300)
@given(st.binary(max_size=200), st.integers(0, 3), st.integers(1, 20))
def test_garbage_decodes_or_is_refused(payload: bytes, channels: int, count: int) -> None:
    try:
        streams = decode_indices(payload, channels, count, TABLES, 0)
    except DamageError:
        return
    assert len(streams) == channels
    assert all(indices.shape == (count, CHANNELS) for _, indices in streams)


def test_too_large_an_index_is_refused() -> None:
    with pytest.raises(ValueError, match="too large"):
        encode_indices([(np.zeros(1, int), np.full((1, CHANNELS), 1 << 20))], TABLES, 0)


@pytest.mark.parametrize("quality", [16, 24, 35])
def test_within_one_percent_of_the_ideal(codec: Codec, mixture: np.ndarray, quality: int) -> None:
    (packet, *_) = codec.analyze(mixture, 16000)
    classes, indices, _ = codec.model.codebook.quantize(packet.channels[0].latents, quality)
    tables = codec.model.codebook.tables
    ideal, last = 0.0, -1
    for k, vector in zip(classes, indices, strict=True):  # written anew, without the coder's own cost tables
        row = tables.transitions[quality, last]
        ideal -= np.log2(row[k] / row.sum())
        for c, value in enumerate(vector):
            table = tables.bank[tables.choice[quality, k, c]]
            ideal -= np.log2(table[min(max(value, -31), 31) + 31] / table.sum())
            if abs(value) >= 31:
                exponent = int(np.log2(abs(value) - 31 + 8)) - 3
                ideal += 4 + exponent + 3
        last = k
    written = 8 * len(encode_indices([(classes, indices)], tables, quality))
    assert ideal <= written <= 1.01 * ideal


def test_bits_are_estimated_well(codec: Codec, mixture: np.ndarray) -> None:
    (packet, *_) = codec.analyze(mixture, 16000)
    codebook = codec.model.codebook
    classes, indices, _ = codebook.quantize(packet.channels[0].latents, 20)
    written = 8 * len(encode_indices([(classes, indices)], codebook.tables, 20))
    assert written == pytest.approx(codebook.bits(classes, indices, 20), rel=0.01)


def test_coder_output_is_pinned() -> None:
    """Any change of these bytes, by us or by a new version of constriction, breaks every file."""
    count = np.arange(50 * CHANNELS)
    bank = (1 + np.arange(4 * (2 * LIMIT + 1)) * 7919 % 1009).reshape(4, -1).astype(np.int32)
    choice = (np.arange(CLASSES * CHANNELS) * 5 % 4).reshape(1, CLASSES, CHANNELS).astype(np.uint8)
    tables = Tables(bank, choice, (1 + np.arange((CLASSES + 1) * CLASSES) * 31 % 17).reshape(1, -1, CLASSES))
    streams = [(count[:50] * 7 % CLASSES, (count * k % 19 - 9).reshape(50, CHANNELS)) for k in (11, 13)]
    digest = hashlib.sha256(encode_indices(streams, tables, 0)).hexdigest()
    assert digest == "3d34202d0f5e83a4fe2ff5e4c501e9139965071771708728c1080a8c2671e18e"


@pytest.mark.slow
def test_indices_decode_alike_under_one_and_two_threads(codec: Codec, tmp_path: object) -> None:
    path = f"{tmp_path}/clip.aldm"
    with open(path, "wb") as file:
        file.write(codec.encode(clip("speech"), 16000, quality=20))
    script = (
        "import hashlib, sys, torch; torch.set_num_threads(int(sys.argv[1]))\n"
        "from aldm.codec import Codec\n"
        "from aldm.format import container as c\n"
        "from aldm.format.entropy import decode_indices\n"
        "data = open(sys.argv[2], 'rb').read(); h = c.Header.parse(data)\n"
        "p = c.Packet.parse(next(c.read_records(data)).body, h)\n"
        "t = Codec.from_pretrained().model.codebook.tables\n"
        "print(hashlib.sha256(decode_indices(p.payload, 1, p.hops // 16, t, h.quality)[0][1].tobytes()).hexdigest())\n"
    )
    outputs = {subprocess.run([sys.executable, "-c", script, n, path], capture_output=True).stdout for n in "12"}
    assert len(outputs) == 1
    assert len(outputs.pop()) == 65

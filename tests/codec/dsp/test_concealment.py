"""What is heard in the place of packets that are missing."""

import numpy as np
import pytest
from aldm.codec import Codec
from aldm.format.container import read_records
from conftest import DOMAINS, clip
from distances import frame_errors


def without(data: bytes, *numbers: int) -> bytes:
    """A file that lost some packets."""
    records = list(read_records(data))
    return data[:24] + b"".join(data[r.offset : r.offset + r.size] for r in records if r.index not in numbers)  # type: ignore[union-attr]


@pytest.fixture(scope="module")
def second() -> Codec:
    return Codec.from_pretrained(packet_seconds=0.96)


@pytest.mark.parametrize("name", DOMAINS)
def test_a_gap_is_filled_better_than_by_silence(second: Codec, name: str) -> None:
    wave = clip(name)[: 4 * 15360]
    data = second.encode(wave, 16000, quality=24)
    decoder = second.decoder(without(data, 2))
    decoded = np.concatenate(list(decoder.blocks()), 1)[0]
    assert len(decoded) == len(wave)
    assert decoder.damage == ["missing: packet 2 at 1.92 s"]
    assert decoder.decoded_packets == 3
    gap = slice(192, 288)
    silent = np.concatenate([wave[: 2 * 15360], np.zeros(15360), wave[3 * 15360 :]])
    assert frame_errors(wave, decoded)[gap].mean() < 0.7 * frame_errors(wave, silent)[gap].mean()
    # what was heard fades: a gap is no louder than what is around it
    power = (decoded.reshape(4, -1) ** 2).mean(1)
    assert power[2] < max(power[1], power[3])
    whole = second.decode(data)[0]
    far = np.r_[0 : 2 * 15360 - 3200, 3 * 15360 + 3200 : len(wave)]
    assert frame_errors(whole[far], decoded[far]).mean() < 0.35  # and nothing else changes


@pytest.mark.parametrize("lost", [(0,), (3,), (0, 1, 2), (1, 3), (1, 2)])
def test_gaps_anywhere_keep_the_time(second: Codec, lost: tuple[int, ...]) -> None:
    wave = np.stack([clip("speech")[: 4 * 15360], np.zeros(4 * 15360), clip("music")[: 4 * 15360]])
    data = second.encode(wave, 16000, quality=12)
    broken = bytearray(data)
    for record in read_records(data):
        if record.index in lost:  # type: ignore[union-attr]
            broken[record.offset + 20] ^= 1  # type: ignore[union-attr]
    decoded = second.decode(bytes(broken))
    assert decoded.shape == wave.shape
    assert np.isfinite(decoded).all()
    assert np.abs(decoded[1]).max() < 1e-3
    whole = second.decode(data)
    for number in {0, 1, 2, 3} - set(lost):
        kept = slice(number * 15360 + 3200, (number + 1) * 15360 - 3200)
        assert frame_errors(whole[0, kept], decoded[0, kept]).mean() < 0.35


def test_equal_channels_stay_equal(second: Codec) -> None:
    wave = np.stack([clip("speech")[: 3 * 15360]] * 2)
    left, right = second.decode(without(second.encode(wave, 16000, quality=12), 1))
    np.testing.assert_array_equal(left, right)

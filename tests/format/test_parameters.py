"""High band and stereo records: exact round trips, harmless on garbage, and found by the packet they belong to."""

import numpy as np
import pytest
from aldm.format import DamageError
from aldm.format.container import GAIN_COPY, HIGH_BAND, PACKET, PARAMETRIC_VERSION, STEREO, Header, Packet, pack_record
from aldm.format.parameters import DURATIONS, FIRST_HIGH_BAND, FIRST_STEREO, HighBand, Stereo, Track, units_of
from aldm.format.stream import StreamReader, read_stream
from hypothesis import given
from hypothesis import strategies as st

HEADER = Header(44100, 2, None, 0, 64, b"1234", version=PARAMETRIC_VERSION)


@st.composite
def tracks(draw: st.DrawFn, units: int, size: int) -> Track:
    durations, reached = list[int](), 0
    while reached < units:
        durations.append(draw(st.integers(0, len(DURATIONS) - 1)))
        reached += DURATIONS[durations[-1]]
    rng = np.random.default_rng(draw(st.integers(0, 1000)))
    scale = draw(st.sampled_from([0, 1, 3, 40, 3000]))
    return Track(np.array(durations), rng.integers(-scale, scale + 1, (len(durations), size)))


def same(a: Track, b: Track) -> bool:
    return np.array_equal(a.durations, b.durations) and np.array_equal(a.values, b.values)


@given(st.data(), st.integers(1, 100), st.integers(0, 300))
def test_round_trip(data: st.DataObject, hops: int, number: int) -> None:
    units = units_of(hops)
    two, mid = Packet(hops, (-100, 5), b""), Packet(hops, (-100, GAIN_COPY), b"")
    high = HighBand([data.draw(tracks(units, len(FIRST_HIGH_BAND))) for _ in range(2)])
    body = high.pack(number)
    assert body[0] == number % 256
    assert all(map(same, HighBand.parse(body, two).tracks, high.tracks))
    stereo = Stereo(data.draw(st.integers(-128, 127)), data.draw(tracks(units, len(FIRST_STEREO))))
    back = Stereo.parse(stereo.pack(number), mid)
    assert back.balance == stereo.balance
    assert same(back.track, stereo.track)
    assert back.track.expand(units).shape == (units, len(FIRST_STEREO))


@given(st.binary(max_size=60), st.integers(1, 1024))
def test_any_bytes_decode_or_are_damage(body: bytes, hops: int) -> None:
    for record, gains in ((HighBand, (0,)), (Stereo, (0, GAIN_COPY))):
        try:
            found = record.parse(body, Packet(hops, gains, b""))  # type: ignore[attr-defined]
        except DamageError:
            continue
        track = found.track if isinstance(found, Stereo) else found.tracks[0]
        assert len(track.expand(units_of(hops))) == units_of(hops)


def test_stereo_needs_a_mid_channel() -> None:
    body = Stereo(0, Track(np.array([0]), np.zeros((1, len(FIRST_STEREO)), np.int64))).pack(0)
    for gains in ((0,), (0, 0), (0, GAIN_COPY, GAIN_COPY), (-32768, GAIN_COPY)):
        with pytest.raises(DamageError, match="its copy"):
            Stereo.parse(body, Packet(4, gains, b""))


def packet(number: int) -> bytes:
    return pack_record(PACKET, Packet(64, (0, GAIN_COPY), b"").pack(), number)


def marked(kind: int, number: int) -> bytes:
    return pack_record(kind, bytes([number & 0xFF]) + b"%d" % number)


def test_records_find_their_packet_from_the_start_and_by_seeking() -> None:
    parts = [marked(HIGH_BAND, n) + (marked(STEREO, n) if n % 2 else b"") + packet(n) for n in range(300)]
    data = HEADER.pack() + b"".join(parts)
    for first in (0, 1, 2, 298):
        items = [item for item in StreamReader(data).packets(first)]
        assert [item.number for item in items] == list(range(first, 300))
        for item in items:
            own = bytes([item.number & 0xFF]) + b"%d" % item.number
            assert item.parameters == {HIGH_BAND: own} | ({STEREO: own} if item.number % 2 else {})
    assert not read_stream(data).damage


def test_a_lost_packet_takes_its_records_along() -> None:
    data = HEADER.pack() + marked(HIGH_BAND, 0) + packet(0) + marked(HIGH_BAND, 1) + marked(HIGH_BAND, 2) + packet(2)
    stream = read_stream(data)
    assert [stream.parameters[n][HIGH_BAND][1:] for n in (0, 2)] == [b"0", b"2"]
    assert any("another packet" in line for line in stream.damage)


def test_version_1_0_and_more_than_two_channels_do_not_know_them() -> None:
    three = pack_record(PACKET, Packet(64, (0, GAIN_COPY, GAIN_COPY), b"").pack(), 0)
    for header, own in (
        (Header(44100, 2, None, 0, 64, b"1234"), packet(0)),
        (Header(44100, 3, None, 0, 64, b"1234", version=PARAMETRIC_VERSION), three),
    ):
        stream = read_stream(header.pack() + marked(HIGH_BAND, 0) + own)
        assert list(stream.packets) == [0]
        assert not stream.parameters
        assert not stream.damage

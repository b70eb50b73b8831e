"""The container: what is written is read, and nothing else is believed."""

import dataclasses
import re
import shutil
import struct
import subprocess
import time
import zlib
from pathlib import Path

import pytest
from aldm.format import (
    DamageError,
    FormatError,
    Header,
    NotAldmError,
    Packet,
    Record,
    VersionError,
    pack_end,
    pack_record,
)
from aldm.format import container as c
from aldm.format.stream import StreamReader, read_stream
from hypothesis import given, settings
from hypothesis import strategies as st

headers = st.builds(
    Header,
    sample_rate=st.integers(1, c.MAX_RATE),
    channels=st.integers(1, 255),
    samples=st.none() | st.integers(1, c.UNKNOWN - 1),
    quality=st.integers(0, 255),
    packet_hops=st.integers(1, c.MAX_PACKET_HOPS),
    model=st.binary(min_size=4, max_size=4),
    layers=st.booleans(),
).filter(lambda header: header.layers or header.quality != c.NO_BASE)
HEADER = Header(16000, 1, 48000, 20, 1024, b"abcd")


def packets(bodies: list[bytes]) -> list[bytes]:
    return [pack_record(c.PACKET, body, index) for index, body in enumerate(bodies)]


def read(data: bytes) -> list[tuple[int, bytes]]:
    """Number and body of the packets that a reader gets."""
    records = [r for r in c.read_records(HEADER.pack() + data) if isinstance(r, Record)]
    return [(r.index, r.body) for r in records if r.kind == c.PACKET]


@given(headers)
def test_header_round_trip(header: Header) -> None:
    assert len(header.pack()) == 24
    assert Header.parse(header.pack()) == header


@given(headers, st.integers(0, 24 * 8 - 1))
def test_every_flipped_header_bit_is_noticed(header: Header, bit: int) -> None:
    data = bytearray(header.pack())
    data[bit // 8] ^= 1 << bit % 8
    with pytest.raises(FormatError):
        Header.parse(bytes(data))


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(FormatError):
        Header.parse(data)


def test_versions() -> None:
    newer = Header(16000, 1, 1, 1, 1024, b"abcd", version=(c.MAJOR, 15))
    assert Header.parse(newer.pack()).version == (c.MAJOR, 15)
    other = Header(16000, 1, 1, 1, 1024, b"abcd", version=(c.MAJOR + 1, 0))
    with pytest.raises(VersionError, match=f"version {c.MAJOR + 1}"):
        Header.parse(other.pack())
    with pytest.raises(NotAldmError):
        Header.parse(b"RIFF....WAVEfmt ")


@pytest.mark.parametrize(
    "change",
    [
        dict(sample_rate=0),
        dict(sample_rate=c.MAX_RATE + 1),
        dict(channels=0),
        dict(packet_hops=0),
        dict(packet_hops=1025),
        dict(packet_hops=65535),
    ],
)
def test_fields_out_of_range_are_refused(change: dict[str, int]) -> None:
    with pytest.raises(FormatError, match="invalid header"):
        Header.parse(Header(**{**vars(HEADER), **change}).pack())


@given(st.lists(st.binary(max_size=300), max_size=6))
def test_records_round_trip(bodies: list[bytes]) -> None:
    comment = pack_record(c.COMMENT, b"ARTIST=someone")
    data = HEADER.pack() + comment + b"".join(packets(bodies)) + pack_record(0x7F, b"from the future") + pack_end(48000)
    records = list(c.read_records(data))
    assert not any(isinstance(r, DamageError) for r in records)
    assert [r.body for r in records if r.kind == c.PACKET] == bodies
    assert [r.kind for r in records if r.kind != c.PACKET] == [c.COMMENT, 0x7F, c.END]
    assert sum(r.size for r in records) + 24 == len(data)


@settings(max_examples=300)
@given(st.lists(st.binary(min_size=1, max_size=60), min_size=3, max_size=5), st.data())
def test_damage_costs_one_packet(bodies: list[bytes], data: st.DataObject) -> None:
    records = packets(bodies)
    stream = bytearray(b"".join(records))
    bit = data.draw(st.integers(0, 8 * len(stream) - 1))
    hit, ends = 0, [len(b"".join(records[: i + 1])) for i in range(len(records))]
    while ends[hit] <= bit // 8:
        hit += 1
    stream[bit // 8] ^= 1 << bit % 8
    whole = [(i, b) for i, b in enumerate(bodies) if i != hit]
    # one bit in the kind can make an unknown record, but its checksum still does not hold
    assert read(bytes(stream)) == whole


@given(st.lists(st.binary(max_size=60), min_size=1, max_size=4), st.data())
def test_truncation_keeps_whole_packets(bodies: list[bytes], data: st.DataObject) -> None:
    records = packets(bodies)
    stream = b"".join(records)
    cut = data.draw(st.integers(0, len(stream)))
    whole = [i for i in range(len(records)) if len(b"".join(records[: i + 1])) <= cut]
    assert [i for i, _ in read(stream[:cut])] == whole


def test_lost_repeated_and_moved_packets_are_noticed() -> None:
    a, b, d = packets([b"first", b"second", b"third"])
    assert read(a + d) == [(0, b"first"), (2, b"third")]
    assert read(a + a + b) == [(0, b"first"), (1, b"second")]
    assert read(b + a + d) == [(1, b"second"), (2, b"third")]


@settings(max_examples=300)
@given(st.binary(max_size=2000))
def test_garbage_behind_a_header(garbage: bytes) -> None:
    list(c.read_records(HEADER.pack() + garbage))


def test_hostile_lengths_do_not_hang() -> None:
    # every offset claims a record: the reader stops after RESYNC_BYTES of checking
    for claim in (b"P\xff\xff\x3f", b"P\0", b"P", b"\0\0"):
        started = time.process_time()
        data = HEADER.pack() + claim * 8_000_000
        assert [type(r) for r in c.read_records(data)] == [DamageError]
        assert time.process_time() - started < 20  # without a bound, minutes to hours


def test_the_work_of_a_search_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before every packet's layer is believed or not, all that it claims is checked; so a file could ask for it again
    and again."""
    claim, count = (1 << 20) - 1, 20_000
    bait = b"".join(c.pack_record(c.PACKET, b"", n) + b"D" + c.pack_leb128(claim) for n in range(count))
    checked, calls, plain = 0, 0, zlib.crc32

    def counted(data: bytes, start: int = 0) -> int:
        nonlocal checked, calls
        checked, calls = checked + len(data), calls + 1
        return plain(data, start)

    monkeypatch.setattr(c.zlib, "crc32", counted)
    data = HEADER.pack() + bait + bytes(3 * claim)
    assert isinstance(list(c.read_records(data))[-1], DamageError)
    assert checked < c.RESYNC_BYTES + 8 * len(data)  # without a bound, 40 GB
    assert calls < 70 * (len(data) / 6 + c.RESYNC_BYTES / 500)


@given(st.binary(max_size=40), headers)
def test_packet_bodies(body: bytes, header: Header) -> None:
    try:
        packet = Packet.parse(body, header)
    except FormatError:
        return
    assert 1 <= packet.hops <= header.packet_hops
    assert Packet.parse(packet.pack(), header) == packet


@pytest.mark.skipif(shutil.which("file") is None, reason="needs file(1)")
def test_the_magic_of_the_specification(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "spec/aldm-format.md").read_text()
    (tmp_path / "magic").write_text(re.search(r"```\n(0 .*?)```", text, re.DOTALL)[1])  # type: ignore[index]
    for channels, words in ((1, "mono"), (2, "stereo"), (7, "7 channels")):
        (tmp_path / "a").write_bytes(dataclasses.replace(HEADER, channels=channels, sample_rate=44100).pack())
        for options, expected in (([], f"ALDM audio, version 1, {words}, 44100 Hz"), (["--mime-type"], "audio/x-aldm")):
            command = ["file", "-b", *options, "-m", tmp_path / "magic", tmp_path / "a"]
            assert subprocess.run(command, capture_output=True, text=True).stdout.strip() == expected


def test_comments_can_be_asked_for_before_all_else() -> None:
    """And nothing of the file is lost by it, whatever the damage."""
    tagged = 0
    for file in (Path(__file__).parents[1] / "golden").glob("*/*.aldm"):
        try:
            plain, asked = StreamReader(file.read_bytes()), StreamReader(file.read_bytes())
        except FormatError:
            continue
        tags = asked.tags()
        for first in (0, 1):
            assert list(asked.packets(first)) == list(plain.packets(first))
            assert (asked.comments, asked.damage, asked.samples) == (plain.comments, plain.damage, plain.samples)
        assert plain.comments[: len(tags)] == tags
        tagged += bool(tags)
    assert tagged


@pytest.mark.parametrize(("samples", "counts"), [(0, False), (1, True), (640, True), (c.UNKNOWN, False)])
def test_end_records_behind_a_packet_of_40_ms(samples: int, counts: bool) -> None:
    header = dataclasses.replace(HEADER, samples=None, packet_hops=4)
    data = header.pack() + pack_record(c.PACKET, Packet(4, (c.GAIN_SILENT,), b"").pack()) + pack_end(samples)
    stream = read_stream(data)
    assert stream.samples == (samples if counts else None)
    assert stream.hops == (1 if samples == 1 else 4)
    assert bool(stream.damage) == (samples == 0)


def test_worked_example_of_the_specification() -> None:
    text = (Path(__file__).parents[2] / "spec/aldm-format.md").read_text()
    block = re.search(r"<!-- hex:.*?-->\s+((?:    [0-9A-F ]+\n)+)", text)
    assert block is not None
    data = bytes.fromhex(block[1])
    header = Header.parse(data)
    assert header == Header(16000, 1, 5120, 20, 1024, bytes.fromhex("01234567"))
    (record,) = c.read_records(data)
    assert isinstance(record, Record)
    assert Packet.parse(record.body, header) == Packet(32, (round(-6.5 * 256),), b"\xaa\xbb\xcc")
    # the rule for the checksum, computed from the text
    assert data[-4:] == struct.pack("<I", zlib.crc32(data[24:-4] + struct.pack("<I", 0)))

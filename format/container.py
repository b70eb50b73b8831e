"""The .aldm container: header and records. Specified in spec/aldm-format.md, sections 2 to 4."""

from __future__ import annotations

import binascii
import re
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from .errors import DamageError, FormatError, NotAldmError, VersionError

MAGIC = b"\x89ALD"
MAJOR, MINOR = 0, 1
HEADER = struct.Struct("<4sBBBB3sH5s4s")  # and a CRC-16
HEADER_SIZE = HEADER.size + 2
HOPS_PER_SECOND = 100  # packet durations count hops of 10 ms
MAX_PACKET_HOPS = 1024
MAX_RATE = 768_000
MAX_BODY = (1 << 21) - 1  # three bytes of LEB128
UNKNOWN = (1 << 40) - 1
PACKET, LAYER, COMMENT, END = ord("P"), ord("D"), ord("C"), ord("E")
KINDS = re.compile(b"[PDCE]")
NO_BASE = 255  # instead of a quality: packets have no indices, all is in their enhancement layers
GAIN_SILENT, GAIN_COPY = -32768, -32767
RESYNC_BYTES = 1 << 26  # how much a reader checks in search of the next whole record before it gives up
RESYNC_PACKETS = 64  # how many packets in a row may be missing before a reader stops recognising the next


@dataclass(frozen=True)
class Header:
    """Facts of the whole file.

    Attributes:
        sample_rate: of the original, Hz, 1 .. 768,000.
        channels: 1 .. 255.
        samples: per channel, at the original rate; None if it was not known when writing began.
        quality: level of the codebook, 0 .. 254; what a level means, the model says. NO_BASE: no base layer.
        packet_hops: duration of every packet but the last, in units of 10 ms, 1 .. 1024.
        model: first 4 bytes of the model folder's SHA-256 fingerprint.
    """

    sample_rate: int
    channels: int
    samples: int | None
    quality: int
    packet_hops: int
    model: bytes
    version: tuple[int, int] = (MAJOR, MINOR)

    def pack(self) -> bytes:
        """The header's 24 bytes."""
        samples = UNKNOWN if self.samples is None else self.samples
        fields = HEADER.pack(
            MAGIC,
            self.version[0] << 4 | self.version[1],
            self.channels,
            self.quality,
            0,
            self.sample_rate.to_bytes(3, "little"),
            self.packet_hops,
            samples.to_bytes(5, "little"),
            self.model,
        )
        return fields + struct.pack("<H", binascii.crc_hqx(fields, 0xFFFF))

    @classmethod
    def parse(cls, data: bytes) -> Header:
        """Read the header at the start of `data`.

        Raises:
            NotAldmError, VersionError, DamageError.
        """
        if data[:4] != MAGIC[: len(data[:4])] or not data:
            raise NotAldmError("not an .aldm file: no signature at the start")
        if len(data) > 4 and data[4] >> 4 != MAJOR:  # before all else: another version may lay out the rest anew
            raise VersionError(f"format version {data[4] >> 4}.{data[4] & 15}; this program reads version {MAJOR}")
        if len(data) < HEADER_SIZE:
            raise DamageError(f"truncated: {len(data)} bytes, a header has {HEADER_SIZE}")
        fields = data[: HEADER.size]
        _, version, channels, quality, flags, rate, hops, samples, model = HEADER.unpack(fields)
        if struct.unpack_from("<H", data, HEADER.size)[0] != binascii.crc_hqx(fields, 0xFFFF):
            raise DamageError("damaged header: its checksum does not hold")
        count = int.from_bytes(samples, "little")
        header = cls(
            sample_rate=int.from_bytes(rate, "little"),
            channels=channels,
            samples=None if count == UNKNOWN else count,
            quality=quality,
            packet_hops=hops,
            model=model,
            version=(version >> 4, version & 15),
        )
        if not 1 <= header.sample_rate <= MAX_RATE or not channels or not 1 <= hops <= MAX_PACKET_HOPS or flags:
            raise FormatError("header field out of range: sampling rate, channels, packet duration or flags")
        return header


@dataclass(frozen=True)
class Record:
    """One record: its kind, its body, where it starts, its bytes in the file, and the number of its packet.

    Its checksum holds, but for a layer that is used all the same.
    """

    kind: int
    body: bytes
    offset: int
    size: int
    index: int = 0
    whole: bool = True


@dataclass(frozen=True)
class Packet:
    """Body of a packet record.

    Attributes:
        hops: its duration in units of 10 ms, at least 1 and at most the header's; only the last may be shorter.
        gains: one per channel: Q7.8 decibels, or GAIN_SILENT, or GAIN_COPY for the channel before once more.
        payload: entropy-coded indices of the channels that are neither silent nor a copy.
    """

    hops: int
    gains: tuple[int, ...]
    payload: bytes

    def pack(self) -> bytes:
        """Body of the record."""
        return _leb128(self.hops) + struct.pack(f"<{len(self.gains)}h", *self.gains) + self.payload

    @classmethod
    def parse(cls, body: bytes, header: Header) -> Packet:
        """Read a body.

        Raises:
            DamageError: too short, or fields out of range.
        """
        hops, at = _read_leb128(body, 0)
        if not 1 <= hops <= header.packet_hops or len(body) < at + 2 * header.channels:
            raise DamageError("damaged packet: fields out of range")
        gains = struct.unpack_from(f"<{header.channels}h", body, at)
        if gains[0] == GAIN_COPY:
            raise DamageError("damaged packet: the first channel copies none")
        return cls(hops, gains, body[at + 2 * header.channels :])


def _leb128(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _read_leb128(data: bytes, at: int) -> tuple[int, int]:
    """Value and the offset behind it; at most three bytes."""
    value = 0
    for shift in (0, 7, 14):
        if at >= len(data):
            break
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise DamageError("truncated or overlong number")


def pack_record(kind: int, body: bytes, index: int = 0) -> bytes:
    """A record: kind, length, body, CRC-32 over these and the packet's number."""
    if len(body) > MAX_BODY:
        raise ValueError(f"a record holds at most {MAX_BODY} bytes")
    data = bytes([kind]) + _leb128(len(body)) + body
    return data + struct.pack("<I", zlib.crc32(struct.pack("<I", index), zlib.crc32(data)))


def pack_end(samples: int) -> bytes:
    """The record that closes a file whose length was unknown at first."""
    return pack_record(END, samples.to_bytes(5, "little"))


def _record_at(data: bytes, at: int, expected: int) -> tuple[Record | None, int]:
    """The whole record at an offset, or None, and how many bytes were checked."""
    try:
        length, start = _read_leb128(data, at + 1)
    except DamageError:
        return None, 1
    end = start + length
    if end + 4 > len(data):
        return None, 1
    check = zlib.crc32(memoryview(data)[at:end])
    (stored,) = struct.unpack_from("<I", data, end)
    numbers: Sequence[int] = (0,)
    if data[at] in (PACKET, LAYER):  # a layer follows its packet
        first = max(0, expected - (data[at] == LAYER))
        numbers = range(first, first + RESYNC_PACKETS)
    for index in numbers:
        if zlib.crc32(struct.pack("<I", index), check) == stored:
            return Record(data[at], data[start:end], at, end + 4 - at, index), length
    return None, length


def _damaged_layer(data: bytes, at: int, expected: int) -> Record | None:
    """A layer whose checksum does not hold, but whose length does: a whole record or the end of the file follows.

    Its picks are of fixed length, so that one that is wrong is a little noise in its block.
    """
    if data[at] != LAYER:
        return None
    try:
        length, start = _read_leb128(data, at + 1)
    except DamageError:
        return None
    end = start + length + 4
    if end > len(data) or (end < len(data) and _record_at(data, end, expected)[0] is None):
        return None
    return Record(LAYER, data[start : end - 4], at, end - at, expected - 1, whole=False)


def read_records(data: bytes) -> Iterator[Record | DamageError]:
    """Records behind the header, in order; a DamageError in the place of every stretch that is none.

    A packet's number is known by its checksum, so that lost, repeated and moved packets show. After damage the
    next whole record is searched byte by byte; the work is bounded by RESYNC_BYTES and the file's size.
    """
    at, expected, budget = HEADER_SIZE, 0, RESYNC_BYTES
    previous = 0  # kind of the record that ends here; 0: bytes were passed over
    while at < len(data):
        record, _ = _record_at(data, at, expected)
        if record is None and previous == PACKET and (record := _damaged_layer(data, at, expected)):
            yield DamageError(f"packet {record.index}: damaged enhancement layer")
        elif record is None:
            for candidate in KINDS.finditer(data, at + 1):
                record, cost = _record_at(data, candidate.start(), expected)
                budget -= cost + 500  # what trying the numbers costs, in bytes of checking
                if record is not None or budget < 0:
                    break
            reached = record.offset if record else len(data)
            yield DamageError(f"{reached - at} damaged bytes at offset {at}")
            if record is None:
                return
        yield record
        at, previous = record.offset + record.size, record.kind
        if record.kind == PACKET:
            expected = record.index + 1

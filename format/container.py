"""The .aldm container: header and records. Specified in spec/aldm-format.md, sections 2 to 4."""

from __future__ import annotations

import binascii
import io
import re
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

from .errors import DamageError, FormatError, NotAldmError, VersionError

MAGIC = b"\x89ALD"
MAJOR = 1
VERSION = MAJOR, 0
PARAMETRIC_VERSION = 1, 1  # of files that may have high band and stereo records
MAX_PARAMETRIC_CHANNELS = 2
HEADER = struct.Struct("<4sBBBB3sH5s4s")  # and a CRC-16
HEADER_SIZE = HEADER.size + 2
HOPS_PER_SECOND = 100  # packet durations count hops of 10 ms
MAX_PACKET_HOPS = 1024
MAX_RATE = 768_000
MAX_BODY = (1 << 21) - 1  # three bytes of LEB128
UNKNOWN = (1 << 40) - 1  # instead of a number of samples
END_HOPS = 16  # an end record shortens the last packet by less than this: a reader may have played the rest
PACKET, LAYER, COMMENT, END, INDEX = ord("P"), ord("D"), ord("C"), ord("E"), ord("I")
PARAMETRIC = HIGH_BAND, STEREO = ord("H"), ord("S")  # of the packet that follows
KINDS = re.compile(b"[PDCEIHS]")
# Instead of a quality. OWN_QUALITY: every packet has its own. NO_BASE: packets have enhancement layers only.
OWN_QUALITY, NO_BASE = 254, 255
LAYERS = 1  # a flag: enhancement layers may follow packets
GAIN_SILENT, GAIN_COPY = -32768, -32767
RESYNC_BYTES = 1 << 26  # work of all searches for whole records, in bytes checked, before a reader gives up
SCAN_BYTES = 1 << 16  # read at a time in a search
RESYNC_PACKETS = 64  # numbers that are tried for a record: one packet after 63 missing ones is still recognised


@dataclass(frozen=True)
class Header:
    """Header of a file.

    Attributes:
        sample_rate: of the original, Hz, 1 .. 768,000.
        channels: 1 .. 255.
        samples: per channel, at the original rate; None if the length was unknown when writing began.
        quality: level of the model's codebook, 0 .. 253. OWN_QUALITY: every packet has its own. NO_BASE: no base layer.
        packet_hops: duration of every packet but the last, in units of 10 ms, 1 .. 1024.
        model: first 4 bytes of the model folder's SHA-256 fingerprint.
        layers: enhancement layers may follow packets.
    """

    sample_rate: int
    channels: int
    samples: int | None
    quality: int
    packet_hops: int
    model: bytes
    layers: bool = False
    version: tuple[int, int] = VERSION

    @property
    def parametric(self) -> bool:
        """High band and stereo records may stand before packets: version 1.1, and one or two channels."""
        return self.version >= PARAMETRIC_VERSION and self.channels <= MAX_PARAMETRIC_CHANNELS

    @property
    def hops(self) -> int | None:
        """Duration in units of 10 ms, rounded up; None if unknown."""
        return None if self.samples is None else duration_hops(self.samples, self.sample_rate)

    def pack(self) -> bytes:
        """The 24 bytes of the header."""
        samples = UNKNOWN if self.samples is None else self.samples
        fields = HEADER.pack(
            MAGIC,
            self.version[0] << 4 | self.version[1],
            self.channels,
            self.quality,
            LAYERS * self.layers,
            self.sample_rate.to_bytes(3, "little"),
            self.packet_hops,
            samples.to_bytes(5, "little"),
            self.model,
        )
        return fields + struct.pack("<H", binascii.crc_hqx(fields, 0xFFFF))

    @classmethod
    def parse(cls, data: bytes) -> Header:
        """Parse the header at the start of `data`.

        Raises:
            NotAldmError: no signature. VersionError: another major version. DamageError: truncated, or the checksum
                does not match. FormatError: a field is out of range.
        """
        if data[:4] != MAGIC[: len(data[:4])] or not data:
            raise NotAldmError("not an .aldm file: no signature at the start")
        if len(data) > 4 and data[4] >> 4 != MAJOR:  # first: the layout of another version is unknown
            raise VersionError(f"format version {data[4] >> 4}.{data[4] & 15}; this program reads version {MAJOR}")
        if len(data) < HEADER_SIZE:
            raise DamageError(f"truncated: {len(data)} bytes, a header has {HEADER_SIZE}")
        fields = data[: HEADER.size]
        _, version, channels, quality, flags, rate, hops, samples, model = HEADER.unpack(fields)
        if struct.unpack_from("<H", data, HEADER.size)[0] != binascii.crc_hqx(fields, 0xFFFF):
            raise DamageError("damaged header: its checksum does not match")
        count = int.from_bytes(samples, "little")
        header = cls(
            sample_rate=int.from_bytes(rate, "little"),
            channels=channels,
            samples=None if count == UNKNOWN else count,
            quality=quality,
            packet_hops=hops,
            model=model,
            layers=bool(flags & LAYERS),
            version=(version >> 4, version & 15),
        )
        for fits, what in (
            (1 <= header.sample_rate <= MAX_RATE, f"a sampling rate of {header.sample_rate} Hz"),
            (channels, "no channels"),
            (1 <= hops <= MAX_PACKET_HOPS, f"packets of {hops / HOPS_PER_SECOND:g} s"),
            (header.samples != 0, "no samples"),
            (not flags & ~LAYERS, "unknown flags"),
            (quality != NO_BASE or header.layers, "neither a base layer nor enhancement layers"),
        ):
            if not fits:
                raise FormatError(f"invalid header: {what}")
        return header


def duration_hops(samples: int, sample_rate: int) -> int:
    """Duration in units of 10 ms, rounded up."""
    return -(-samples * HOPS_PER_SECOND // sample_rate)


@dataclass(frozen=True)
class Record:
    """A record.

    Attributes:
        kind: PACKET, LAYER, HIGH_BAND, STEREO, COMMENT, END, INDEX, or an unknown one.
        body: bytes between length and checksum.
        offset: in the file.
        size: bytes in the file.
        index: number of the packet, or of the packet that a layer belongs to; otherwise 0.
        whole: the checksum matches. False only for a damaged layer that is used all the same.
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
        hops: duration in units of 10 ms, 1 up to the header's; only the last packet may be shorter than that.
        gains: for each channel, decibels in Q7.8, GAIN_SILENT, or GAIN_COPY: the channel equals the one before.
        payload: entropy-coded indices of the channels that are neither silent nor a copy.
        quality: 0 .. 253 if the header has OWN_QUALITY; otherwise None.
    """

    hops: int
    gains: tuple[int, ...]
    payload: bytes
    quality: int | None = None

    @property
    def coded(self) -> int:
        """How many channels are neither silent nor a copy."""
        return sum(gain not in (GAIN_SILENT, GAIN_COPY) for gain in self.gains)

    @property
    def doubled(self) -> bool:
        """Whether it has two channels, the first one coded and the second one its copy."""
        return self.coded == 1 and self.gains[1:] == (GAIN_COPY,)

    def pack(self) -> bytes:
        """Body of the record."""
        quality = b"" if self.quality is None else bytes([self.quality])
        return pack_leb128(self.hops) + quality + struct.pack(f"<{len(self.gains)}h", *self.gains) + self.payload

    @classmethod
    def parse(cls, body: bytes, header: Header) -> Packet:
        """Parse a body.

        Raises:
            DamageError: too short, or a field is out of range.
        """
        hops, at = read_leb128(body, 0)
        own = header.quality == OWN_QUALITY
        end = at + own + 2 * header.channels
        if not 1 <= hops <= header.packet_hops or len(body) < end:
            raise DamageError("damaged packet: fields out of range")
        quality = body[at] if own else None
        if quality in (OWN_QUALITY, NO_BASE):
            raise DamageError("damaged packet: invalid quality")
        gains = struct.unpack_from(f"<{header.channels}h", body, at + own)
        if gains[0] == GAIN_COPY:
            raise DamageError("damaged packet: the first channel copies the one before")
        return cls(hops, gains, body[end:], quality)


def pack_leb128(value: int) -> bytes:
    """Unsigned LEB128: 7 bits in a byte, least significant first; the top bit is set if more bytes follow."""
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def read_leb128(data: bytes, at: int) -> tuple[int, int]:
    """Unsigned LEB128 of at most three bytes: the value, and the offset of the byte after it.

    Raises:
        DamageError: truncated, or longer.
    """
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
    """Bytes of a record: kind, length, body, and a CRC-32 over these and the packet's number.

    Raises:
        ValueError: the body is too large.
    """
    if len(body) > MAX_BODY:
        raise ValueError(f"a record holds at most {MAX_BODY} bytes")
    data = bytes([kind]) + pack_leb128(len(body)) + body
    return data + struct.pack("<I", zlib.crc32(struct.pack("<I", index), zlib.crc32(data)))


def pack_comment(text: str) -> bytes:
    """A comment record of "NAME=value".

    Raises:
        ValueError: no name, or a name with characters other than printable ASCII; or a text of more than 2 MB.
    """
    name = text.partition("=")[0]
    if "=" not in text or not name or not all(" " <= letter <= "}" for letter in name):
        raise ValueError(f"a tag is NAME=value, with a name in ASCII, not {text[:40]!r}")
    return pack_record(COMMENT, text.encode())


def pack_end(samples: int) -> bytes:
    """The end record, for a file whose header does not give the length."""
    return pack_record(END, samples.to_bytes(5, "little"))


class _Window:
    """Buffer of a stream: its bytes from offset `base` on. Nothing is read before it is needed: it may be a pipe."""

    def __init__(self, source: BinaryIO, base: int):
        self.source, self.base, self.data = source, base, bytearray()

    def load(self, end: int) -> bool:
        """Load bytes up to an offset; False if the stream ends before it."""
        while (missing := end - self.base - len(self.data)) > 0:
            piece = self.source.read(missing)
            if not piece:
                return False
            self.data += piece
        return True

    def slice(self, start: int, end: int) -> bytes:
        """Bytes from `start` to `end`, or as many of them as the stream has."""
        self.load(end)
        return bytes(self.data[start - self.base : end - self.base])

    def forget(self, end: int) -> None:
        """Drop the bytes before an offset."""
        del self.data[: end - self.base]
        self.base = end

    def find(self, pattern: re.Pattern[bytes], start: int) -> int:
        """Offset of the next byte that matches, or the end of the stream. Bytes before it are dropped."""
        while self.load(start + 1):
            self.forget(start)
            if match := pattern.search(self.data):
                return start + match.start()
            start += len(self.data)
            self.data += self.source.read1(SCAN_BYTES)  # type: ignore[attr-defined]
        return start


def _extent(window: _Window, at: int) -> tuple[int, int] | None:
    """Start and end of the body of the record at an offset; None if the stream ends before the record does."""
    try:
        length, size = read_leb128(window.slice(at + 1, at + 4), 0)
    except DamageError:
        return None
    start = at + 1 + size
    return (start, start + length) if window.load(start + length + 4) else None


def _record_at(window: _Window, at: int, expected: int) -> tuple[Record | None, int]:
    """The record at an offset if its checksum matches, or None; and how many bytes were checked."""
    if (extent := _extent(window, at)) is None:
        return None, 1
    start, end = extent
    data = window.slice(at, end + 4)
    check, kind = zlib.crc32(data[:-4]), data[0]
    stored = int.from_bytes(data[-4:], "little")
    numbers: Sequence[int] = (0,)
    if kind in (PACKET, LAYER):  # `expected` is the number of the next packet, so a layer has the one before
        first = max(0, expected - (kind == LAYER))
        numbers = range(first, first + RESYNC_PACKETS)
    for index in numbers:
        if zlib.crc32(struct.pack("<I", index), check) == stored:
            return Record(kind, data[start - at : -4], at, len(data), index), len(data)
    return None, len(data)


def _damaged_layer(window: _Window, at: int, expected: int) -> tuple[Record | None, int]:
    """A layer at an offset whose checksum does not match, but whose length is right, or None; and bytes checked.

    The length is right if a whole record or the end of the file follows. Picks have fixed length, so that a wrong one
    only changes the noise of its block.
    """
    if window.slice(at, at + 1) != bytes([LAYER]) or (extent := _extent(window, at)) is None:
        return None, 0
    start, end = extent
    if window.load(end + 5):
        follower, cost = _record_at(window, end + 4, expected)
        if follower is None:
            return None, cost
    return Record(LAYER, window.slice(start, end), at, end + 4 - at, expected - 1, whole=False), 0


def is_packet(source: BinaryIO, at: int, number: int) -> bool:
    """Whether the stream, which is at offset `at`, has a whole packet of that number there."""
    record, _ = _record_at(_Window(source, at), at, number)
    return record is not None and (record.kind, record.index) == (PACKET, number)


def read_records(
    source: bytes | BinaryIO, at: int = HEADER_SIZE, expected: int = 0, layers: bool = True
) -> Iterator[Record | DamageError]:
    """Records of a stream, each as soon as it is complete, and a DamageError in place of each damaged stretch.

    The checksum gives a packet's number, so that lost, repeated and moved packets are noticed. After damage, the next
    whole record is searched for byte by byte. The work is bounded by RESYNC_BYTES and the size of the stream.

    Args:
        source: bytes of a file; or a buffered stream (with `read1`) at offset `at`.
        expected: number of the next packet.
        layers: use damaged enhancement layers. Otherwise they are passed over like other damaged records.
    """
    stream = io.BytesIO(source[at:]) if isinstance(source, bytes) else source
    window, budget = _Window(stream, at), RESYNC_BYTES
    previous = 0  # kind of the record that ends here; 0: bytes were passed over
    while window.load(at + 1):
        record, cost = _record_at(window, at, expected)
        layer, more = None, 0
        if layers and record is None and previous == PACKET:
            layer, more = _damaged_layer(window, at, expected)
        if layer:
            record = layer
            yield DamageError(f"packet {record.index}: damaged enhancement layer")
        elif record is None:
            candidate = at
            budget -= cost + more
            while record is None and budget >= 0 and window.load(candidate + 1):
                candidate = window.find(KINDS, candidate + 1)
                record, cost = _record_at(window, candidate, expected)
                budget -= cost + 500  # what trying the numbers costs, in bytes of checking
            damage = f"{candidate - at} damaged bytes at offset {at}"
            yield DamageError(
                damage
                if record or budget >= 0
                else f"damage from offset {at} on; gave up the search for intact records"
            )
            if record is None:
                return
        yield record
        at, previous = record.offset + record.size, record.kind
        window.forget(at)
        if record.kind == PACKET:
            expected = record.index + 1

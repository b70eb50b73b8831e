"""Mutations of .aldm files with their checksums made again, so that they reach the code behind the checksums."""

from __future__ import annotations

import random
import struct
import zlib
from binascii import crc_hqx
from collections.abc import Sequence
from dataclasses import dataclass, replace

from aldm.format.container import (
    COMMENT,
    END,
    HEADER_SIZE,
    HIGH_BAND,
    INDEX,
    LAYER,
    OWN_QUALITY,
    PACKET,
    STEREO,
    UNKNOWN,
    pack_leb128,
    read_leb128,
)
from aldm.format.errors import DamageError

KINDS = (PACKET, LAYER, COMMENT, END, INDEX, HIGH_BAND, STEREO)
OTHER_KINDS = (0x00, 0x21, 0x7A)
NUMBER_STEPS = (1, 1, 2, 3, 62, 63, 64, 65, -1, -2)
HEADER_VALUES = {  # offset and size of a field, and values at its limits
    (4, 1): (0x00, 0x10, 0x11, 0x1F, 0x20),
    (5, 1): (0, 1, 2, 3, 5, 255),
    (6, 1): (0, 4, 24, 39, 47, 48, 253, 254, 255),
    (7, 1): (0, 1, 2, 3, 255),
    (8, 3): (0, 1, 3, 8000, 15_999, 16_001, 44_100, 767_999, 768_000, 768_001),
    (11, 2): (0, 1, 4, 15, 16, 17, 48, 64, 128, 1008, 1024, 1025),
    (13, 5): (0, 1, 159, 160, 161, 2559, 2560, 10_240, 10_241, 41_600, 1 << 33, UNKNOWN - 1, UNKNOWN),
}
LAYER_VALUES = {  # likewise, in the body of an enhancement layer
    (0, 2): (0, 0xFFFF),
    (3, 2): (0, 1, 2, 10, 999, 1000, 1001, 0xFFFF),
    (5, 2): (0, 1, 2, 9, 999, 1000),
    (7, 1): (0, 1, 2, 255),
    (8, 1): (0, 1, 2, 64, 65),
    (9, 1): (0, 1, 14, 15),
    (10, 1): (0, 1, 64, 65),
    (11, 1): (0, 47, 48, 254, 255),
}
GAINS = (-32768, -32767, -32766, -6000, 0, 32767)
HOPS = (0, 1, 15, 16, 17, 32, 48, 63, 64, 65, 1024, 1040, 16_383, (1 << 21) - 1)
BODIES = (b"", b"A=b", b"=x", b"\xff=\xfe", b"\x40\0\0", b"\x10\0\x80", b"\x40\0\x80", (100).to_bytes(5, "little"))


@dataclass(frozen=True)
class Part:
    """A record to write, or raw bytes if `kind` is None.

    Attributes:
        number: that its checksum includes.
        error: is added to the checksum by exclusive or.
        length: that it claims, if it is not the body's.
        padded: the length takes three bytes.
    """

    kind: int | None
    body: bytes
    number: int = 0
    error: int = 0
    length: int | None = None
    padded: bool = False

    def pack(self) -> bytes:
        if self.kind is None:
            return self.body
        length = len(self.body) if self.length is None else self.length
        coded = pack_leb128(length)
        if self.padded:
            coded = bytes([length & 127 | 128, length >> 7 & 127 | 128, length >> 14])
        data = bytes([self.kind]) + coded + self.body
        check = zlib.crc32(struct.pack("<I", self.number & 0xFFFFFFFF), zlib.crc32(data))
        return data + struct.pack("<I", check ^ self.error)


def split(data: bytes) -> tuple[bytes, list[Part]]:
    """Header without its checksum, and the records by their lengths; packets are numbered one by one."""
    parts, at, packets = list[Part](), HEADER_SIZE, 0
    while at < len(data):
        try:
            length, begin = read_leb128(data, at + 1)
        except DamageError:
            length, begin = len(data), at
        if begin + length + 4 > len(data):
            return data[:22], [*parts, Part(None, data[at:])]
        kind = data[at]
        number = packets if kind == PACKET else max(0, packets - 1) if kind == LAYER else 0
        packets += kind == PACKET
        parts.append(Part(kind, data[begin : begin + length], number))
        at = begin + length + 4
    return data[:22], parts


def join(header: bytes, parts: Sequence[Part]) -> bytes:
    return header + struct.pack("<H", crc_hqx(header, 0xFFFF)) + b"".join(part.pack() for part in parts)


def mutate(rng: random.Random, pool: Sequence[bytes]) -> bytes:
    """One of the files, changed in one to five ways; what is in its records may come from another one."""
    header, parts = split(rng.choice(pool))
    if rng.random() < 0.03:
        header, parts = _durations(header, parts, rng.choice((4, 8, 16, 32)))
    for _ in range(rng.choice((1, 1, 2, 2, 3, 5))):
        if rng.random() < 0.1:
            header = _header(rng, header)
        else:
            parts = _records(rng, header, parts, pool)
    data = join(header, parts)
    if rng.random() < 0.03:
        return data[: rng.randrange(HEADER_SIZE, len(data) + 1)]
    for _ in range(rng.randrange(1, 6) if rng.random() < 0.03 and len(data) > HEADER_SIZE else 0):
        at = rng.randrange(HEADER_SIZE, len(data))
        data = data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]
    return data


def _put(data: bytes, at: int, value: bytes) -> bytes:
    return data[:at] + value + data[at + len(value) :]


def _header(rng: random.Random, header: bytes) -> bytes:
    if rng.random() < 0.15:
        return _put(header, rng.randrange(22), rng.randbytes(1))
    (at, size), values = rng.choice(list(HEADER_VALUES.items()))
    return _put(header, at, rng.choice(values).to_bytes(size, "little"))


def _durations(header: bytes, parts: list[Part], hops: int) -> tuple[bytes, list[Part]]:
    """The file with packets of another duration, below 128 hops."""
    changed = [
        replace(p, body=bytes([hops]) + p.body[1:]) if p.kind == PACKET and p.body and p.body[0] < 128 else p
        for p in parts
    ]
    return _put(header, 11, struct.pack("<H", hops)), changed


def _records(rng: random.Random, header: bytes, parts: list[Part], pool: Sequence[bytes]) -> list[Part]:
    """The records with one change to one of them, or to their order."""
    at = rng.randrange(len(parts)) if parts else 0
    change = rng.randrange(16 if parts else 3)
    if change == 0:  # a record that was not there
        kind = rng.choice((*KINDS, *KINDS, *OTHER_KINDS))
        body = rng.choice((*BODIES, rng.randbytes(12), rng.randbytes(30)))
        return [*parts[:at], Part(kind, body, rng.choice((0, 0, 1, 2, 3))), *parts[at:]]
    if change == 1:  # bytes between records
        raw = rng.choice((b"P", b"D\x05", b"P\xff\xff\x7f", bytes(9), rng.randbytes(rng.choice((1, 5, 40)))))
        return [*parts[:at], Part(None, raw), *parts[at:]]
    if change == 2:  # records of another file, numbered anew or not
        others = split(rng.choice(pool))[1]
        parts = [*parts[:at], *rng.sample(others, min(len(others), rng.randrange(1, 4))), *parts[at:]]
        return _numbered(parts) if rng.randrange(2) else parts
    part = parts[at]
    if change == 3:  # once more, elsewhere
        to = rng.randrange(len(parts) + 1)
        return [*parts[:to], part, *parts[to:]]
    if change == 4:  # lost
        return parts[:at] + parts[at + 1 :]
    if change == 5:  # two change places
        to = rng.randrange(len(parts))
        parts = list(parts)
        parts[at], parts[to] = parts[to], parts[at]
        return parts
    if change == 6:  # a gap in the numbers, or one number
        step, end = rng.choice(NUMBER_STEPS), len(parts) if rng.random() < 0.7 else at + 1
        moved = [replace(p, number=p.number + step) if p.kind in (PACKET, LAYER) else p for p in parts[at:end]]
        return [*parts[:at], *moved, *parts[end:]]
    if change == 7:
        part = replace(part, error=rng.choice((1, 0x80000000, 0xFFFF)))
    elif change == 8:
        part = replace(part, padded=True)
    elif change == 9:
        part = replace(part, length=max(0, len(part.body) + rng.choice((-4, -1, 1, 4, 100))))
    elif part.kind is not None:
        part = replace(part, body=_body(rng, header, part))
    return [*parts[:at], part, *parts[at + 1 :]]


def _numbered(parts: list[Part]) -> list[Part]:
    numbered, packets = [], 0
    for part in parts:
        packets += part.kind == PACKET
        numbered.append(replace(part, number=max(0, packets - 1)) if part.kind in (PACKET, LAYER) else part)
    return numbered


def _body(rng: random.Random, header: bytes, part: Part) -> bytes:
    """Another body for a record of its kind."""
    body, choice = part.body, rng.randrange(8)
    if choice == 0:
        return body[: rng.randrange(len(body) + 1)]
    if choice == 1:
        return body + rng.randbytes(rng.choice((1, 4, 40)))
    if part.kind == PACKET:
        return _packet_body(rng, header, body)
    if part.kind == LAYER and len(body) >= 12 and choice < 6:
        (at, size), values = rng.choice(list(LAYER_VALUES.items()))
        return _put(body, at, rng.choice(values).to_bytes(size, "little"))
    if part.kind == END and len(body) == 5 and choice < 6:
        samples = int.from_bytes(body, "little") + rng.choice((-1, 1, -2400, -2559, -2560, -2561, 100_000))
        return rng.choice((max(0, samples) & UNKNOWN, 0, 1, UNKNOWN - 1, UNKNOWN)).to_bytes(5, "little")
    for _ in range(rng.randrange(1, 4) if body else 0):
        body = _put(body, rng.randrange(len(body)), rng.randbytes(1))
    return body


def _packet_body(rng: random.Random, header: bytes, body: bytes) -> bytes:
    channels, own = header[5], header[6] == OWN_QUALITY
    try:
        _, start = read_leb128(body, 0)
    except DamageError:
        return rng.randbytes(40)
    gains = start + own
    payload, choice = gains + 2 * channels, rng.randrange(6)
    if choice == 0:
        return pack_leb128(rng.choice(HOPS)) + body[start:]
    if choice == 1 and own:
        return _put(body, start, bytes([rng.choice((0, 1, 39, 40, 47, 48, 100, 253, 254, 255))]))
    if choice in (2, 3) and channels:
        return _put(body, gains + 2 * rng.randrange(channels), struct.pack("<h", rng.choice(GAINS)))
    if choice == 4 and len(body) > payload:
        return _put(body, rng.randrange(payload, len(body)), rng.randbytes(1))
    return body[:payload] + rng.choice((b"", b"\xff" * 100, bytes(100), rng.randbytes(3), rng.randbytes(400)))

"""Index of the packets of a file, for seeking. Specified in spec/aldm-format.md, section 9."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterable, Sequence
from typing import BinaryIO

from .container import HEADER_SIZE, INDEX, MAX_BODY, PACKET, pack_leb128, pack_record, read_leb128
from .errors import DamageError

OFFSET = struct.Struct("<5s")  # of the first packet
TAIL = struct.Struct("<II")  # size of the record, and its checksum: the last bytes of the file
MIN_RECORD_BYTES = 6 + OFFSET.size + 4


def pack_index(offsets: Sequence[int], end: int) -> bytes:
    """The index record of a file, or no bytes if there are more packets than an index can hold.

    Args:
        offsets: of the records of all packets, from number 0 on.
        end: offset of the first byte after the last packet and its layer.
    """
    if not offsets:
        return b""
    distances = [b - a for a, b in zip(offsets, [*offsets[1:], end], strict=True)]
    if max(distances) > MAX_BODY:
        return b""
    body = OFFSET.pack(offsets[0].to_bytes(5, "little")) + b"".join(map(pack_leb128, distances))
    if len(body) + 4 > MAX_BODY:
        return b""
    length = len(body) + 4
    size = 1 + len(pack_leb128(length)) + length + 4
    return pack_record(INDEX, body + struct.pack("<I", size))


def join_records(records: Iterable[bytes], offset: int | None) -> bytes:
    """Records, one after the other. If the offset of the first one is given, an index of the packets follows."""
    data, packets = bytearray(), []
    for record in records:
        if offset is not None and record[0] == PACKET:
            packets.append(offset + len(data))
        data += record
    return bytes(data) + (b"" if offset is None else pack_index(packets, offset + len(data)))


def read_index(source: BinaryIO) -> list[int]:
    """Offsets of the packets by the index at the end of a seekable file; empty without a valid index."""
    end = source.seek(0, io.SEEK_END)
    if end < HEADER_SIZE + MIN_RECORD_BYTES:
        return []
    source.seek(-TAIL.size, io.SEEK_END)
    size, check = TAIL.unpack(source.read(TAIL.size))
    if not MIN_RECORD_BYTES <= size <= min(end - HEADER_SIZE, MAX_BODY + 8):
        return []
    source.seek(-size, io.SEEK_END)
    record = source.read(size)
    try:
        length, at = read_leb128(record, 1)
        if record[0] != INDEX or at + length + 4 != size or zlib.crc32(record[:-4] + bytes(4)) != check:
            return []
        offset = int.from_bytes(record[at : at + OFFSET.size], "little")
        at += OFFSET.size
        offsets = []
        while at < size - TAIL.size:
            offsets.append(offset)
            distance, at = read_leb128(record, at)
            offset += distance
    except DamageError:
        return []
    return offsets


def find_packet(source: BinaryIO, number: int) -> int | None:
    """Offset of a packet's record in a seekable file, by its index, or else by the lengths of the records before it.

    The caller has to check what is there, since an index can be wrong. None: not found.
    """
    if offsets := read_index(source):
        return offsets[number] if number < len(offsets) else None
    at, count = HEADER_SIZE, 0
    for _ in range(5 * number + 1000):  # packets, what belongs to them, and comments
        source.seek(at)
        head = source.read(4)
        if head[:1] == bytes([PACKET]):
            if count == number:
                return at
            count += 1
        try:
            length, size = read_leb128(head, 1)
        except DamageError:
            return None
        at += size + length + 4
    return None

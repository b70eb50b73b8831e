"""A file as a reader sees it: its packets in order, how long it is, and what is wrong with it."""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

from .container import (
    COMMENT,
    END,
    END_HOPS,
    HEADER_SIZE,
    HOPS_PER_SECOND,
    LAYER,
    PACKET,
    UNKNOWN,
    Header,
    Packet,
    Record,
    duration_hops,
    is_packet,
    read_records,
)
from .errors import DamageError
from .index import find_packet


@dataclass
class Item:
    """A packet in its place; None where it is missing."""

    number: int
    packet: Packet | None
    layer: bytes | None = None


class StreamReader:
    """Reads a file or a stream that is still being written, packet by packet.

    Args:
        source: bytes, or a buffered binary file object; nothing is read of it beyond what is asked for.

    Attributes:
        header: of the file.
        samples: per channel at the original rate; None if the file does not say, or not yet.
        hops: of 10 ms, to the end of the sound that was read.
        comments: "NAME=value", as far as it was read.
        damage: a line for each thing that is missing or changed, as far as it was read.

    Raises:
        FormatError: no readable header. Everything else is reported as damage.
    """

    def __init__(self, source: bytes | BinaryIO):
        self._source = io.BytesIO(source) if isinstance(source, bytes) else source
        self.header = Header.parse(self._source.read(HEADER_SIZE))
        self.samples = self.header.samples
        self.hops = 0
        self.comments: list[str] = []
        self.damage: list[str] = []
        self._records = read_records(self._source, layers=self.header.layers)
        self._broken = False  # something was passed over since the last packet
        self._ended = False
        self._reached = 0  # hops, to the end of the last whole packet
        self._next = 0  # number of the packet that comes next

    def tags(self) -> list[str]:
        """Comments that stand before the first packet, which is read for it; `packets` comes to all of that, too."""
        ahead: list[Record | DamageError] = []
        for record in self._records:
            ahead.append(record)
            if isinstance(record, Record) and record.kind == PACKET:
                break
        self._records = itertools.chain(ahead, self._records)
        return [_text(record) for record in ahead if isinstance(record, Record) and record.kind == COMMENT]

    def packets(self, first: int = 0) -> Iterator[Item]:
        """Packets from number `first` on, without gaps; those that the header's duration has no room for are dropped.

        A packet comes as soon as it is complete and cannot be changed by what follows: one that may have a layer, or
        is shorter than the others, waits for the next record. Parts of a seekable file that are before `first` are
        passed over unread.
        """
        held: Item | None = None
        firm = sought = False  # the held packet has a layer whose checksum holds; the first packet was looked for
        records = self._records
        while (record := next(records, None)) is not None:
            if isinstance(record, DamageError):
                self.damage.append(str(record))
                self._broken = True
            elif record.kind == LAYER:
                if not self.header.layers or held is None or held.number != record.index or firm:
                    self.damage.append(f"{self.place(record.index)}: an enhancement layer that is not its own")
                elif record.whole or held.layer is None:
                    held.layer, firm, self._broken = record.body, record.whole, False
                else:
                    self.damage.append(f"{self.place(record.index)}: an enhancement layer that is not its own")
            elif record.kind == COMMENT:
                self.comments.append(_text(record))
            elif record.kind == END:
                self._end(record, held)
            elif record.kind == PACKET:
                if first and not sought:
                    sought = True
                    if found := self._seek(first):
                        records, self._next = found, first
                        continue
                if held:
                    yield from self._give(held, first, followed=not self._ended)
                held, firm = self._parse(record), False
                if held:
                    self._broken = False
                if held is None:
                    continue
                if not self.header.layers and held.packet and held.packet.hops == self.header.packet_hops:
                    yield from self._give(held, first)
                    held = None
        if held:
            yield from self._give(held, first)
        yield from self._close(first)

    def _seek(self, number: int) -> Iterator[Record | DamageError] | None:
        """Records from a packet on, if the source is seekable and it is where it should be."""
        if not self._source.seekable():
            return None
        back = self._source.tell()
        at = find_packet(self._source, number)
        if at is not None:
            self._source.seek(at)
            found = is_packet(self._source, at, number)
            self._source.seek(at if found else back)
            return read_records(self._source, at, number, self.header.layers) if found else None
        self._source.seek(back)
        return None

    def place(self, number: int) -> str:
        """Which packet it is, and where."""
        return f"packet {number} at {number * self.header.packet_hops / HOPS_PER_SECOND:.2f} s"

    def _parse(self, record: Record) -> Item | None:
        if self._ended:
            self.damage.append(f"{self.place(record.index)}: after the end")
            return None
        try:
            return Item(record.index, Packet.parse(record.body, self.header))
        except DamageError as error:
            self.damage.append(f"{self.place(record.index)}: {error}")
            self._broken = True
            return None

    def _end(self, record: Record, held: Item | None) -> None:
        """The length, if it was unknown, and fits what came before."""
        samples = int.from_bytes(record.body, "little")
        if self.samples is not None or len(record.body) != 5 or samples == UNKNOWN:
            return
        reached = self._reached
        if held and held.packet:
            reached = held.number * self.header.packet_hops + held.packet.hops
        if not reached or duration_hops(samples, self.header.sample_rate) <= reached - END_HOPS:
            self.damage.append("an end before the end of the last packet")
            return
        self.samples, self._ended = samples, True

    def _give(self, item: Item, first: int, followed: bool = False) -> Iterator[Item]:
        """The packet, and the missing ones before it."""
        size = self.header.packet_hops
        if followed and item.packet and item.packet.hops < size:
            self.damage.append(f"{self.place(item.number)}: shorter than it can be before others")
            self._broken = True
            return
        if gap := item.number - self._next:
            last = "" if gap == 1 else f" to {item.number - 1}"
            self.damage.append(f"missing: {self.place(self._next)}{last}")
        end = self.header.hops
        for missing in range(self._next, item.number if end is None else min(item.number, -(-end // size))):
            self.hops = (missing + 1) * size
            if missing >= first:
                yield Item(missing, None)
        self._next = item.number + 1
        if end is None or item.number * size < end:
            self.hops = item.number * size + (item.packet.hops if item.packet else size)
            self._reached = self.hops
            if item.number >= first:
                yield item

    def _close(self, first: int) -> Iterator[Item]:
        """What the end of the stream says: how long it is, and whether a packet was lost there."""
        if not self._next:
            self.damage.append("no packets")
        if self.samples is None:
            return
        expected = duration_hops(self.samples, self.header.sample_rate)
        if self.hops < expected:
            self.damage.append(f"ends at {self.hops / HOPS_PER_SECOND:.2f} of {expected / HOPS_PER_SECOND:.2f} s")
            if self._broken and self._next and self.hops % self.header.packet_hops == 0:  # what the last damage took
                lost = self.hops // self.header.packet_hops
                self.hops = (lost + 1) * self.header.packet_hops
                if lost >= first:
                    yield Item(lost, None)
        self.hops = min(self.hops, expected)


def _text(comment: Record) -> str:
    return comment.body.decode("utf-8", "replace")


@dataclass
class Stream:
    """All that a file holds.

    Attributes:
        header: of the file.
        packets: whole packets by number.
        layers: bodies of enhancement layers by the number of their packet.
        samples, hops, comments, damage: as of `StreamReader`.
    """

    header: Header
    packets: dict[int, Packet] = field(default_factory=dict)
    layers: dict[int, bytes] = field(default_factory=dict)
    samples: int | None = None
    hops: int = 0
    comments: list[str] = field(default_factory=list)
    damage: list[str] = field(default_factory=list)


def read_stream(source: bytes | BinaryIO) -> Stream:
    """Read a file to its end.

    Raises:
        FormatError: no readable header. Everything else is reported as damage.
    """
    reader = StreamReader(source)
    stream = Stream(reader.header)
    for item in reader.packets():
        if item.packet is not None:
            stream.packets[item.number] = item.packet
            if item.layer is not None:
                stream.layers[item.number] = item.layer
    stream.samples, stream.hops = reader.samples, reader.hops
    stream.comments, stream.damage = reader.comments, reader.damage
    return stream

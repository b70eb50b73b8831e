"""Reading of files and streams: packets in order, duration, damage."""

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
    PARAMETRIC,
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
    """A packet and the records that belong to it.

    Attributes:
        number: place in the file, from 0.
        packet: None if it is missing.
        layer: body of the layer record, if there is one; not parsed yet.
        parameters: bodies of its high band and stereo records, by their kinds; not parsed yet.
    """

    number: int
    packet: Packet | None
    layer: bytes | None = None
    parameters: dict[int, bytes] = field(default_factory=dict)


class StreamReader:
    """Reads a file or a stream that is still being written, packet by packet.

    Args:
        source: bytes, or a buffered binary file object. Nothing is read of it before it is needed.

    Attributes:
        header: of the file.
        samples: per channel at the original rate; None if the file does not say, or not yet.
        hops: duration up to what was read, in units of 10 ms.
        comments: "NAME=value" texts that were read.
        damage: a line for each missing or damaged part of what was read.

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
        self._broken = False  # damage since the last packet and its layer
        self._ended = False
        self._reached = 0  # end of the last whole packet, in hops
        self._next = 0  # number of the next packet
        self._parameters: dict[tuple[int, bytes], bytes] = {}  # of the next packet: by kind and number

    def tags(self) -> list[str]:
        """Comments before the first packet. This reads up to that packet; `packets` still gives all of it."""
        ahead: list[Record | DamageError] = []
        for record in self._records:
            ahead.append(record)
            if isinstance(record, Record) and record.kind == PACKET:
                break
        self._records = itertools.chain(ahead, self._records)
        return [_text(record) for record in ahead if isinstance(record, Record) and record.kind == COMMENT]

    def packets(self, first: int = 0) -> Iterator[Item]:
        """Packets from number `first` on, without gaps. Packets after the header's duration are dropped.

        A packet is given as soon as no later record can change it. One that may have a layer, or is shorter than the
        header says, waits for the next record. Of a seekable file, what is before `first` is not read.
        """
        held: Item | None = None
        firm = sought = False  # the held packet has an undamaged layer; the first packet was searched for
        records = self._records
        while (record := next(records, None)) is not None:
            if isinstance(record, DamageError):
                self.damage.append(str(record))
                self._broken = True
            elif record.kind == LAYER:
                if not self.header.layers or held is None or held.number != record.index or firm:
                    self.damage.append(f"{self.place(record.index)}: unexpected enhancement layer")
                elif record.whole or held.layer is None:
                    held.layer, firm, self._broken = record.body, record.whole, False
                else:
                    self.damage.append(f"{self.place(record.index)}: unexpected enhancement layer")
            elif record.kind == COMMENT:
                self.comments.append(_text(record))
            elif record.kind == END:
                self._end(record, held)
            elif record.kind in PARAMETRIC and self.header.parametric:
                self._parameters.setdefault((record.kind, record.body[:1]), record.body)
            elif record.kind == PACKET:
                if first and not sought:
                    sought = True
                    from_ = first - self.header.parametric  # what belongs to a packet stands before it
                    if found := self._seek(from_):
                        records, self._next = found, from_
                        self._parameters.clear()
                        continue
                if held:
                    yield from self._emit(held, first, followed=not self._ended)
                held, firm = self._parse(record), False
                if held:
                    self._broken = False
                if held is None:
                    continue
                if not self.header.layers and held.packet and held.packet.hops == self.header.packet_hops:
                    yield from self._emit(held, first)
                    held = None
        if held:
            yield from self._emit(held, first)
        yield from self._close(first)

    def _seek(self, number: int) -> Iterator[Record | DamageError] | None:
        """Records from a packet on, or None if the source cannot be sought or the packet is not found."""
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
        """Number and time of a packet, for messages."""
        return f"packet {number} at {number * self.header.packet_hops / HOPS_PER_SECOND:.2f} s"

    def _parse(self, record: Record) -> Item | None:
        found, self._parameters = self._parameters, {}
        own = bytes([record.index & 0xFF])
        parameters = {kind: body for (kind, number), body in found.items() if number == own}
        if len(parameters) < len(found):
            self.damage.append(f"{self.place(record.index)}: high band or stereo record of another packet")
        if self._ended:
            self.damage.append(f"{self.place(record.index)}: after the end")
            return None
        try:
            return Item(record.index, Packet.parse(record.body, self.header), None, parameters)
        except DamageError as error:
            self.damage.append(f"{self.place(record.index)}: {error}")
            self._broken = True
            return None

    def _end(self, record: Record, held: Item | None) -> None:
        """Take the length from an end record, if it is unknown and the record fits the packets before it."""
        samples = int.from_bytes(record.body, "little")
        if self.samples is not None or len(record.body) != 5 or samples == UNKNOWN:
            return
        reached = self._reached
        if held and held.packet:
            reached = held.number * self.header.packet_hops + held.packet.hops
        if not samples or not reached or duration_hops(samples, self.header.sample_rate) <= reached - END_HOPS:
            self.damage.append("invalid end record: it ends before the last packet does")
            return
        self.samples, self._ended = samples, True

    def _emit(self, item: Item, first: int, followed: bool = False) -> Iterator[Item]:
        """A packet, after the missing ones before it. One that is short and `followed` by others is dropped."""
        size = self.header.packet_hops
        if followed and item.packet and item.packet.hops < size:
            self.damage.append(f"{self.place(item.number)}: too short for a packet that is not the last")
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
        """Set the final duration; a packet that was lost at the end is missing."""
        if not self._next:
            self.damage.append("no packets")
        if self.samples is None:
            return
        expected = duration_hops(self.samples, self.header.sample_rate)
        if self.hops < expected:
            self.damage.append(f"ends at {self.hops / HOPS_PER_SECOND:.2f} of {expected / HOPS_PER_SECOND:.2f} s")
            if self._broken and self._next and self.hops % self.header.packet_hops == 0:  # lost in the last damage
                lost = self.hops // self.header.packet_hops
                self.hops = (lost + 1) * self.header.packet_hops
                if lost >= first:
                    yield Item(lost, None)
        self.hops = min(self.hops, expected)


def _text(comment: Record) -> str:
    return comment.body.decode("utf-8", "replace")


@dataclass
class Stream:
    """Content of a file.

    Attributes:
        header: of the file.
        packets: whole packets by number.
        layers: bodies of enhancement layers by the number of their packet.
        parameters: bodies of high band and stereo records by the number of their packet and their kind.
        samples, hops, comments, damage: as in `StreamReader`.
    """

    header: Header
    packets: dict[int, Packet] = field(default_factory=dict)
    layers: dict[int, bytes] = field(default_factory=dict)
    parameters: dict[int, dict[int, bytes]] = field(default_factory=dict)
    samples: int | None = None
    hops: int = 0
    comments: list[str] = field(default_factory=list)
    damage: list[str] = field(default_factory=list)


def read_stream(source: bytes | BinaryIO) -> Stream:
    """Read a whole file.

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
            if item.parameters:
                stream.parameters[item.number] = item.parameters
    stream.samples, stream.hops = reader.samples, reader.hops
    stream.comments, stream.damage = reader.comments, reader.damage
    return stream

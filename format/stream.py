"""A whole file as a reader sees it: its packets by number, how long it is, and what is wrong with it."""

from __future__ import annotations

from dataclasses import dataclass, field

from .container import COMMENT, END, HOPS_PER_SECOND, LAYER, PACKET, Header, Packet, read_records
from .errors import DamageError


@dataclass
class Stream:
    """What a file holds.

    Attributes:
        header: of the file.
        packets: whole packets by number.
        layers: bodies of enhancement layers by the number of their packet.
        samples: per channel at the original rate; None if the file does not say.
        hops: of 10 ms, from the start to the end of the sound that the file gives.
        comments: "NAME=value".
        damage: a line for each thing that is missing or changed.
    """

    header: Header
    packets: dict[int, Packet] = field(default_factory=dict)
    layers: dict[int, bytes] = field(default_factory=dict)
    samples: int | None = None
    hops: int = 0
    comments: list[str] = field(default_factory=list)
    damage: list[str] = field(default_factory=list)


def read_stream(data: bytes) -> Stream:
    """Read a file's bytes.

    Raises:
        FormatError: no readable header. Everything else is reported as damage.
    """
    header = Header.parse(data)
    stream = Stream(header, samples=header.samples)
    broken_end = False
    last, doubtful = -1, False  # the packet that a layer may follow, and whether that layer's checksum does not hold
    for record in read_records(data):
        if isinstance(record, DamageError):
            stream.damage.append(str(record))
            broken_end = True
        elif record.kind == LAYER:
            if record.index != last or (last in stream.layers and not (doubtful and record.whole)):
                stream.damage.append(f"packet {record.index}: an enhancement layer that is not its own")
            else:
                stream.layers[last], doubtful = record.body, not record.whole
                broken_end = False
        elif record.kind == COMMENT:
            stream.comments.append(record.body.decode("utf-8", "replace"))
        elif record.kind == END and len(record.body) == 5 and stream.samples is None:
            stream.samples = int.from_bytes(record.body, "little")
        elif record.kind == PACKET:
            last = -1
            broken_end = True
            try:
                packet = Packet.parse(record.body, header)
            except DamageError as error:
                stream.damage.append(f"packet {record.index}: {error}")
                continue
            last = record.index
            stream.packets[record.index] = packet
            stream.hops = record.index * header.packet_hops + packet.hops
            broken_end = False
    for number in sorted(stream.packets)[:-1]:
        if stream.packets[number].hops < header.packet_hops:
            stream.damage.append(f"packet {number}: shorter than it can be before others")
            del stream.packets[number]
    if missing := [i for i in range(max(stream.packets, default=0)) if i not in stream.packets]:
        stream.damage.append(f"{len(missing)} missing packets, the first is number {missing[0]}")
    if not stream.packets:
        stream.damage.append("no packets")
    if stream.samples is not None:
        expected = -(-stream.samples * HOPS_PER_SECOND // header.sample_rate)
        if stream.hops < expected:
            stream.damage.append(f"ends at {stream.hops / HOPS_PER_SECOND:.2f} of {expected / HOPS_PER_SECOND:.2f} s")
            if broken_end:  # the packet that the last damage took: silence in its place
                stream.hops = (-(-stream.hops // header.packet_hops) + 1) * header.packet_hops
        stream.hops = min(stream.hops, expected)
    return stream

"""Analysed packets -> the bytes of a file: header, comments, records, and an optional index."""

from __future__ import annotations

import math
from collections.abc import Iterable

from ...format import container
from ...format.container import Header
from ...format.index import MIN_RECORD_BYTES, join_records
from ..audio.reader import AudioReader
from .analysis import Spool
from .encoder import Encoder, Gains
from .rate_control import OperatingPoint
from .settings import EncodeSettings


def encode_file(
    encoder: Encoder,
    reader: AudioReader,
    packets: Spool,
    channels: int,
    packet_hops: int,
    settings: EncodeSettings,
    comments: Iterable[str],
    index: bool,
) -> bytes:
    """A file of at most the bitrate of `settings`, or the smallest that they allow.

    Args:
        reader: of the audio that the packets come from.
        channels: of the packets.
        packet_hops: duration of every packet but the last.
        comments: "NAME=value".
        index: end with the offsets of the packets.
    """
    extra = b"".join(map(container.pack_comment, comments))
    limit = math.inf if settings.bitrate is None else settings.bitrate * 125 * (reader.samples / reader.sample_rate)
    index_bytes = MIN_RECORD_BYTES + 2 * len(packets) if index else 0
    fixed = container.HEADER_SIZE + len(extra) + index_bytes + packets.parameter_bytes
    version = container.PARAMETRIC_VERSION if packets.parameter_bytes else container.VERSION
    plan = encoder.plan(packets, limit - fixed, settings)
    gains = Gains()

    def write(point: OperatingPoint | None) -> bytes:
        header = Header(
            sample_rate=reader.sample_rate,
            channels=channels,
            samples=reader.samples,
            quality=container.NO_BASE if point is None else point.level,
            packet_hops=packet_hops,
            model=encoder.model.fingerprint[:4],
            layers=plan.layer is not None,
            version=version,
        )
        start = header.pack() + extra
        records = encoder.records(plan.packets, point, plan.layer, gains=gains)
        return start + join_records(records, len(start) if index else None)

    return write(None) if plan.point is None else encoder.rate.encode_within(plan.point, limit, write)

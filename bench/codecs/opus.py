"""Opus through opus-tools."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence

from .base import number
from .commands import Commands, program


class Opus(Commands):
    """Opus through opus-tools: 60 ms frames, no padding, no comments."""

    LOWEST, HIGHEST = 6.0, 256.0  # kbit/s that opusenc takes

    def __init__(self) -> None:
        options = "--quiet --framesize 60 --padding 0 --discard-comments --discard-pictures"
        version = subprocess.run([program("opusenc"), "--version"], capture_output=True, text=True).stdout
        super().__init__(
            "opus",
            f"{program('opusenc')} --bitrate {{bitrate}} {options} {{in}} {{bits}}",
            f"{program('opusdec')} --quiet --rate {{rate}} {{bits}} {{out}}",
            version,
        )

    def settings(self, bitrates: Sequence[float]) -> list[str]:
        return [number(b) for b in sorted({min(self.HIGHEST, max(self.LOWEST, b)) for b in bitrates})]

    def container_bytes(self, data: bytes) -> int:
        return ogg_overhead(data)


def ogg_overhead(data: bytes) -> int:
    """Bytes of an Ogg Opus file that are not audio packets: page headers, OpusHead and OpusTags (RFC 3533, 7845)."""
    position, packets, size = 0, [0], len(data)
    while data[position : position + 4] == b"OggS":
        count = data[position + 26]
        lacing = data[position + 27 : position + 27 + count]
        for length in lacing:
            packets[-1] += length
            if length < 255:
                packets.append(0)
        position += 27 + count + sum(lacing)
    return size - sum(packets[2:])

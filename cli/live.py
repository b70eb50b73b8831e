"""The command as a filter: sound and packets through pipes as they come."""

from __future__ import annotations

import signal
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    import numpy as np

    from ..codec.audio.wav import WavSamples
    from ..codec.codec import Codec

BLOCK_SECONDS = 0.1


def encode_live(codec: Codec, source: WavSamples, out: BinaryIO, options: dict[str, Any]) -> tuple[float, int]:
    """Encode samples until their stream ends or Ctrl-C; every packet goes out at once.

    Returns:
        seconds and bytes.
    """
    form = source.header.form
    encoder = codec.stream(form.sample_rate, form.channels, **options)
    stopped = reading = False

    def stop(*_: object) -> None:
        nonlocal stopped
        stopped = True
        if reading:  # a packet that is being made is made
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, stop)
    blocks = source.blocks(BLOCK_SECONDS)
    try:
        while not stopped:
            reading = True
            try:
                block = next(blocks, None)
            except KeyboardInterrupt:
                break
            finally:
                reading = False
            if block is None:
                break
            if packets := encoder.push(block):
                out.write(packets)
                out.flush()
        out.write(encoder.flush())
    finally:
        signal.signal(signal.SIGINT, before)
    return encoder.samples / form.sample_rate, encoder.bytes


def write_live(out: BinaryIO, blocks: Iterable[np.ndarray], header: bytes, sample: str) -> int:
    """Write samples as they come, as PCM behind a header; count them."""
    from ..codec.audio.pcm import to_bytes

    count = 0
    for block in blocks:
        out.write(header + to_bytes(block, sample))
        out.flush()
        header, count = b"", count + block.shape[1]
    return count

"""The encoder as a filter: sound from a pipe, packets as they are complete."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
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

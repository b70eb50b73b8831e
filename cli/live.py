"""The command as a filter: sound and packets through pipes as they come."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    from ..codec.audio.pcm import Format
    from ..codec.codec import Codec


def encode_live(
    codec: Codec, source: BinaryIO, form: Format, out: BinaryIO, options: dict[str, Any]
) -> tuple[float, int]:
    """Encode samples until their stream ends or Ctrl-C; every packet goes out at once.

    Returns:
        seconds and bytes.
    """
    from ..codec.audio.pcm import read_blocks

    encoder = codec.stream(form.sample_rate, form.channels, **options)
    stopped = reading = False

    def stop(*_: object) -> None:
        nonlocal stopped
        stopped = True
        if reading:  # a packet that is being made is made
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, stop)
    blocks = read_blocks(source, form)
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


def stream_format(start: bytes, source: BinaryIO) -> Format | None:
    """What comes on a stream after its first 12 bytes, if it is WAV; it stands at the first sample then."""
    from ..codec.audio.pcm import read_wav_header

    return read_wav_header(source, start) if start[:4] == b"RIFF" and start[8:] == b"WAVE" else None


def play(out: BinaryIO, blocks: Any, header: bytes) -> int:
    """Write samples as they come, as 16-bit PCM behind a header; count them."""
    from ..codec.audio.pcm import pcm16

    count = 0
    for block in blocks:
        out.write(header + pcm16(block))
        out.flush()
        header, count = b"", count + block.shape[1]
    return count

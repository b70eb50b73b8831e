"""Shared by decode, play and convert: loads the model of a file, and writes sound."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from .messages import note, printable, warn

if TYPE_CHECKING:
    import numpy as np

    from ..codec.codec import Codec
    from ..codec.decoding.decoder import Decoder
    from ..format.stream import StreamReader


def load_codec(reader: StreamReader, model: str | None, options: dict[str, Any]) -> Codec:
    """The codec of the model that a file names, unless `model` does.

    Raises:
        click.ClickException: the file needs a model that is not in the package.
    """
    from ..codec.audioldm2.checkpoint import model_from_comments
    from ..codec.codec import Codec
    from ..codec.model_folder import model_by_fingerprint
    from ..codec.tags import MODEL_TAG, comment_value

    fingerprint = reader.header.model
    if model := model or model_by_fingerprint(fingerprint):
        return Codec.from_pretrained(model, **options)
    model, made = model_from_comments(tags := reader.tags()), comment_value(tags, MODEL_TAG)
    codec = None if made and model is None else Codec.from_pretrained(model, **options)
    if codec is None or (made and codec.model.fingerprint[:4] != fingerprint):
        raise click.ClickException(f"the file needs model {fingerprint.hex()}, {made!r}: name it by --model")
    return codec


def sample_format(bits: str, as_float: bool) -> str:
    """Name of the samples that --bits and --float ask for."""
    return "f32" if as_float else f"s{bits}"


class Sound:
    """Decoded blocks that are written to a file or pipe, limited to full scale if wanted.

    Args:
        sample: "s16", "s24" or "f32"; the last is never limited.
    """

    def __init__(self, blocks: Iterable[np.ndarray], sample_rate: int, channels: int, sample: str, limited: bool):
        from ..codec.audio.limiter import Limiter

        self.sample_rate, self.channels, self.sample = sample_rate, channels, sample
        self._limiter = Limiter(sample_rate) if limited and sample != "f32" else None
        self.blocks = self._limiter.blocks(blocks) if self._limiter else blocks

    def write(
        self, out: BinaryIO, suffix: str, progress: Callable[[float], None], tags: Callable[[], list[str]]
    ) -> int:
        """Write a file; `tags` is called when the first block is there. Returns the samples."""
        from ..codec.audio.writer import write_audio

        blocks = iter(self.blocks)
        first = next(blocks, None)
        everything = itertools.chain([] if first is None else [first], blocks)
        return write_audio(
            out, everything, self.sample_rate, self.channels, suffix,
            lambda done: progress(done / self.sample_rate), tags(), self.sample,
        )  # fmt: skip

    def stream(self, out: BinaryIO, samples: int | None, raw: bool = False) -> int:
        """Write a WAV, or bare samples, as they come. Returns the samples."""
        from ..codec.audio.pcm import to_bytes
        from ..codec.audio.wav import wav_header

        header, count = b"" if raw else wav_header(self.sample_rate, self.channels, samples, self.sample), 0
        for block in self.blocks:
            out.write(header + to_bytes(block, self.sample))
            out.flush()
            header, count = b"", count + block.shape[1]
        return count

    def say_limited(self, name: str) -> None:
        """Note how far beyond full scale the sound was."""
        if self._limiter and self._limiter.reduction:
            decibels = f"{self._limiter.reduction:.1f} dB"
            note(f"{printable(name)}: peaks up to {decibels} above full scale were limited; --float keeps them")


def say_damage(name: str, decoder: Decoder) -> bool:
    """Warn of damage; whether there was any."""
    for line in decoder.damage[:5]:
        warn(f"{printable(name)}: damage: {line}")
    if decoder.damage:
        warn(
            f"{printable(name)}: {len(decoder.damage)} damaged places; "
            f"{decoder.decoded_packets} packets decoded, the others concealed"
        )
    return bool(decoder.damage)


def suffix_of(target: str) -> str:
    """Suffix of a name in lower case; none for devices."""
    return "" if target.startswith(("/dev/", "/proc/")) else Path(target).suffix.lower()

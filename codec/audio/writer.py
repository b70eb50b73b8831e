"""Audio out: files that libsndfile writes, in blocks."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from typing import BinaryIO

import numpy as np
import soundfile as sf

from ..errors import AudioError
from .pcm import interleave
from .sndfile import TAGS
from .suffixes import WRITABLE

SLICE = 1 << 14  # samples that are transposed at once: a block of 255 channels takes 170 MB
FORMATS = {"OGA": "OGG", "OPUS": "OGG", "AIF": "AIFF"}
SUBTYPES = {"s16": "PCM_16", "s24": "PCM_24", "f32": "FLOAT"}


def write_audio(
    file: BinaryIO,
    blocks: Iterable[np.ndarray],
    sample_rate: int,
    channels: int,
    suffix: str,
    progress: Callable[[int], None] = lambda samples: None,
    tags: Iterable[str] = (),
    sample: str = "s16",
) -> int:
    """Write blocks [C, n] in the format of `suffix`; count the samples.

    Args:
        progress: called with the samples that are written.
        tags: "NAME=value"; those that the format can hold are written.
        sample: "s16", "s24" or "f32". Formats that are coded, such as MP3, have none of them and take "s16".

    Raises:
        AudioError: a format that libsndfile cannot write so.
        OSError: of `file`.
    """
    kind = suffix.lstrip(".").upper() or "WAV"
    name = FORMATS.get(kind, kind)
    if suffix and suffix.lower() not in WRITABLE:
        known = ", ".join(sorted(WRITABLE))
        raise AudioError(
            f"cannot write {suffix} files; there are {known}. Or: aldm decode IN - | ffmpeg -i - OUT{suffix}"
        )
    subtype: str | None = SUBTYPES[sample]
    if not sf.check_format(name, subtype):
        if sample != "s16":
            raise AudioError(
                f"{suffix} files hold no {'float' if sample == 'f32' else '24-bit'} samples; .wav files do"
            )
        subtype = "OPUS" if kind == "OPUS" else None
    count, guarded = 0, _Guard(file)
    try:
        with sf.SoundFile(guarded, "w", sample_rate, channels, subtype, format=name) as out:
            for tag, _, value in (text.partition("=") for text in tags):
                if tag.lower() in TAGS:
                    with contextlib.suppress(sf.LibsndfileError):  # not in this format
                        setattr(out, tag.lower(), value)
            for block in blocks:
                for start in range(0, block.shape[1], SLICE):
                    part = interleave(block[:, start : start + SLICE], sample if subtype == SUBTYPES[sample] else "f32")
                    out.write(part << 8 if part.dtype == np.int32 else part)  # libsndfile itself would round down
                count += block.shape[1]
                progress(count)
    except (sf.LibsndfileError, AssertionError) as error:  # soundfile asserts that all was written
        if guarded.error is None:
            reason = getattr(error, "error_string", "")
            raise AudioError(f"cannot write {channels} channels at {sample_rate} Hz as {suffix}: {reason}") from error
    if guarded.error is not None:
        raise guarded.error
    return count


class _Guard:
    """A file for libsndfile that keeps an OSError for later: callbacks from C cannot raise one."""

    def __init__(self, file: BinaryIO):
        self._file = file
        self.error: OSError | None = None
        self.read, self.seek, self.tell = file.read, file.seek, file.tell

    def write(self, data: bytes) -> int:
        try:
            return self._file.write(data)
        except OSError as error:
            self.error = error
            return 0

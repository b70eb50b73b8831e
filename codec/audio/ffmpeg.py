"""Reads audio through FFmpeg (PyAV): formats that libsndfile does not know or cannot read to the end."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from ..errors import AudioError

if TYPE_CHECKING:
    import av

# No playlists and nothing else that names other files or addresses: a file from a stranger opens nothing but itself.
DEMUXERS = (
    "3g2,3gp,aac,ac3,aiff,amr,amrnb,amrwb,ape,asf,au,avi,caf,dsf,dts,dtshd,eac3,flac,flv,loas,m4a,matroska,mj2,mlp,mov,"
    "mp3,mp4,mpc,mpc8,mpeg,mpegts,ogg,oma,qcp,rm,tak,truehd,tta,voc,w64,wav,webm,wv"
)
GUESSED = {"aac", "ac3", "eac3", "mp3", "amr", "amrnb", "amrwb", "dts", "dtshd", "loas", "mpeg", "mpegts"}
CUT_SECONDS = 0.25  # shorter than claimed by less than this: rounding of the container's clock, or padding
PADDING = 4096  # samples at the end that an encoder's frames may have too many
TAGS = {"track": "TRACKNUMBER"} | {
    name: name.upper() for name in ("title", "artist", "album", "date", "genre", "comment", "copyright", "license")
}


class UnknownFormat(AudioError):
    """FFmpeg does not know what a file is."""


class FFmpegFile:
    """The first audio stream of a file. Its samples are counted by decoding it once.

    Attributes:
        sample_rate, channels, samples: of the stream; samples per channel.
        truncated: it ends early, or parts of it do not decode.
        warnings: what a user should know.
        tags: "NAME=value".

    Raises:
        ImportError: PyAV is not installed.
        UnknownFormat: FFmpeg does not know it.
        AudioError: there is no audio in it.
    """

    def __init__(self, file: BinaryIO, claimed: float | None = None):
        import av

        self._av, self._file = av, _Nameless(file)
        self.tags, self.warnings = list[str](), list[str]()
        self.sample_rate = self.channels = self.samples = 0
        with self._open() as container:
            stream = self._stream(container)
            metadata = {**stream.metadata, **container.metadata}
            self.tags = [
                f"{TAGS[k.lower()]}={v.strip()}" for k, v in metadata.items() if k.lower() in TAGS and v.strip()
            ]
            if len(container.streams.audio) > 1:
                self.warnings.append(f"{len(container.streams.audio)} audio streams; the first is taken")
            claimed = self._claimed(container, stream) if claimed is None else claimed
            for frame in self._frames(container, stream):
                self.sample_rate, self.channels = frame.sample_rate, frame.layout.nb_channels
                self.samples += frame.samples
        if not self.samples:
            raise AudioError("damaged: no part of it decodes" if self._bad else "empty: no samples")
        if claimed is not None and "mov" in container.format.name:
            exact = round(claimed * self.sample_rate)
            if 0 < self.samples - exact < PADDING:  # what the last frame is padded with
                self.samples = exact
        seconds = self.samples / self.sample_rate
        short = claimed is not None and seconds < claimed - CUT_SECONDS
        self.truncated = short or self._bad > 0
        if short:
            self.warnings.append(f"ends early: {seconds:.2f} of {claimed:.2f} s are there")
        elif self._cut:
            self.warnings.append(f"ends early, after {seconds:.2f} s: its last packet is not whole")
        elif self._bad:
            self.warnings.append(f"damaged: {self._bad} packets do not decode and are left out")

    def blocks(self) -> Iterator[np.ndarray]:
        """The samples, float32 blocks [C, n]."""
        left = self.samples
        with self._open() as container:
            convert = None
            for frame in self._frames(container, self._stream(container)):
                convert = convert or self._av.AudioResampler("fltp", frame.layout, frame.sample_rate)
                for made in convert.resample(frame):
                    block = made.to_ndarray()[:, :left]
                    left -= block.shape[1]
                    yield block

    def _open(self) -> av.container.InputContainer:
        self._file.seek(0)
        try:
            return self._av.open(self._file, "r", options={"format_whitelist": DEMUXERS}, metadata_errors="replace")
        except self._av.error.FFmpegError as error:
            raise UnknownFormat(error.strerror or str(error)) from error

    def _stream(self, container: Any) -> Any:
        if not container.streams.audio:
            raise AudioError("no audio in it" + (": it is a video without sound" if container.streams.video else ""))
        stream = container.streams.audio[0]
        if stream.codec_context is None:
            raise AudioError("FFmpeg has no decoder for the sound in it")
        return stream

    def _claimed(self, container: Any, stream: Any) -> float | None:
        """Seconds that the container says it has; None where FFmpeg only guesses them by the size."""
        if GUESSED & set(container.format.name.split(",")):
            return None
        if stream.duration is not None:
            return float(stream.duration * stream.time_base)
        return container.duration / self._av.time_base if container.duration else None

    def _frames(self, container: Any, stream: Any) -> Iterator[Any]:
        """Decoded frames. Packets that do not decode, or to another rate or number of channels, are left out."""
        self._bad, self._cut, layout = 0, False, None
        packets = container.demux(stream)
        while True:
            try:
                packet = next(packets, None)
                if packet is None:
                    return
                for frame in packet.decode():
                    found = frame.sample_rate, frame.layout.nb_channels
                    layout = layout or found
                    if found == layout:
                        self._cut = False
                        yield frame
                    else:
                        self._bad += 1
            except self._av.error.FFmpegError:
                self._bad, self._cut = self._bad + 1, True


class _Nameless:
    """A file without its name: FFmpeg would guess by the suffix, and pipes have none."""

    def __init__(self, file: BinaryIO):
        self.read, self.seek, self.tell = file.read, file.seek, file.tell

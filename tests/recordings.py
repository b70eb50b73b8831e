"""Real speech in formats that libsndfile does not write, made by PyAV."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np


def encode(
    path: Path, wave: np.ndarray, rate: int, codec: str, video: bool = False, streams: int = 1, **tags: str
) -> Path:
    """Write samples [N] or [C, N] of that rate; with a picture beside them, several times, or with tags."""
    wave = np.atleast_2d(wave).astype(np.float32)
    with av.open(str(path), "w") as out:
        out.metadata.update(tags)
        sounds = [
            out.add_stream(codec, rate=rate, layout="mono" if len(wave) == 1 else "stereo") for _ in range(streams)
        ]
        pictures = out.add_stream("mpeg4", rate=5, width=32, height=32) if video else None
        for stream in sounds:
            formats = {f.name for f in stream.codec.audio_formats}
            sample = next((name for name in ("s16", "s16p") if name in formats), stream.format.name)
            stream.codec_context.format = sample
            if codec == "wmav2":
                stream.bit_rate = 32000
            stream.codec_context.open()
        for stream in sounds:
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(wave), "fltp", stream.layout.name)
            frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
            size = stream.codec_context.frame_size or 1024
            resampler = av.AudioResampler(stream.format.name, stream.layout, rate, size)
            for part in [*resampler.resample(frame), *resampler.resample(None)]:
                out.mux(stream.encode(part))
            out.mux(stream.encode(None))
        if pictures is not None:
            _encode_pictures(out, pictures)
    return path


def video_only(path: Path) -> Path:
    """A video without sound."""
    with av.open(str(path), "w") as out:
        _encode_pictures(out, out.add_stream("mpeg4", rate=5, width=32, height=32))
    return path


def _encode_pictures(out: av.container.OutputContainer, stream: av.VideoStream) -> None:
    for number in range(5):
        frame = av.VideoFrame(32, 32, "yuv420p")
        frame.pts, frame.time_base = number, Fraction(1, 5)
        out.mux(stream.encode(frame))
    out.mux(stream.encode(None))

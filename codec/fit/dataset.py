"""Training audio: a memory-mapped cache of samples, and random windows of it."""

from __future__ import annotations

import io
import json
import math
import tarfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..audio.reader import read_audio
from ..dsp.loudness import PEAK
from ..dsp.mel import LogMel
from ..errors import AudioError
from ..nn.autoencoder import Autoencoder

SUFFIXES = {".wav", ".flac", ".ogg", ".opus", ".mp3", ".aiff", ".aif", ".au", ".caf"}


def audio_files(source: Path) -> Iterator[tuple[str, io.BytesIO]]:
    """Names and contents of the audio in a folder (recursively) or in tar shards, in sorted order."""
    files = [source] if source.is_file() else sorted(p for p in source.rglob("*") if p.is_file())
    for path in files:
        if path.suffix == ".tar":
            with tarfile.open(path) as tar:
                for member in tar:
                    if member.isfile() and Path(member.name).suffix.lower() in SUFFIXES:
                        handle = tar.extractfile(member)
                        assert handle is not None  # isfile() said so
                        yield f"{path.name}/{member.name}", io.BytesIO(handle.read())
        elif path.suffix.lower() in SUFFIXES:
            yield str(path.relative_to(source) if path != source else path.name), io.BytesIO(path.read_bytes())


def is_validation(name: str, percent: int = 4) -> bool:
    """Whether a clip is held out: by its folder or by what stands before the last `__`, as a speaker or work does."""
    stem = name.rsplit("/", 1)[-1]
    group = stem.rsplit("__", 1)[0] if "__" in stem else name
    return zlib.crc32(group.encode()) % 100 < percent


class AudioCache:
    """Samples of many clips in one int16 file.

    Attributes:
        audio: [total] int16, mono at `sample_rate`.
        clips: (name, first sample, samples) for each clip.
    """

    def __init__(self, folder: Path):
        index = json.loads((folder / "index.json").read_text())
        self.sample_rate: int = index["made_from"]["sample_rate"]
        self.clips: list[tuple[str, int, int]] = [tuple(c) for c in index["clips"]]
        self.audio = np.memmap(folder / "audio.i16", np.int16, "r")

    @property
    def hours(self) -> float:
        return len(self.audio) / self.sample_rate / 3600

    @property
    def size(self) -> tuple[int, int]:
        """Number of clips and of samples."""
        return len(self.clips), len(self.audio)

    @classmethod
    def build(cls, source: list[Path], folder: Path, sample_rate: int, progress: Callable[[str], None]) -> AudioCache:
        """Decode all audio once; a cache that is complete and of the same files is taken as it is.

        Raises:
            AudioError: no readable audio in the sources.
        """
        files = [p for s in source for p in ([s] if s.is_file() else sorted(s.rglob("*"))) if p.is_file()]
        wanted = dict(files=[[str(p), p.stat().st_size] for p in files], sample_rate=sample_rate)
        index = folder / "index.json"
        if index.exists() and json.loads(index.read_text())["made_from"] == wanted:
            return cls(folder)
        folder.mkdir(parents=True, exist_ok=True)
        clips: list[tuple[str, int, int]] = []
        total = 0
        with open(folder / "audio.i16", "wb") as out:
            for name, handle in (item for s in source for item in audio_files(s)):
                try:
                    wave = read_audio(handle, sample_rate).mean(0)
                except AudioError as error:
                    progress(f"skipped {name}: {error}")
                    continue
                if len(wave) < sample_rate // 5:
                    continue
                out.write(np.rint(wave * 32767).clip(-32768, 32767).astype(np.int16).tobytes())
                clips.append((name, total, len(wave)))
                total += len(wave)
                if len(clips) % 500 == 0:
                    progress(f"decoded {len(clips)} clips, {total / sample_rate / 3600:.2f} h")
        if not clips:
            raise AudioError("no readable audio in " + ", ".join(map(str, source)))
        index.write_text(json.dumps(dict(made_from=wanted, clips=clips)))
        return cls(folder)

    def crop(self, start: int, count: int) -> np.ndarray:
        """Samples [count] float32, -1 .. 1."""
        return self.audio[start : start + count].astype(np.float32) / 32768

    def packets(self, size: int, validation: bool, limit: int, longest: int = 64) -> Iterator[Tensor]:
        """Beginnings of clips [n] as the encoder would see them, in a fixed random order, up to `limit` samples.

        Args:
            size: n is a multiple of it, 4 .. longest times.
        """
        order = np.random.default_rng(0).permutation(len(self.clips))
        for name, start, count in (self.clips[i] for i in order):
            count = min(count // size, longest) * size
            if count >= 4 * size and is_validation(name) == validation and limit > 0:
                limit -= count
                yield normalize(torch.from_numpy(self.crop(start, count)))


def normalize(wave: Tensor, pad: int = 0) -> Tensor:
    """Mean-free with a peak of `PEAK`, as the encoder makes it; the outer `pad` samples do not count. [N] -> [N]."""
    wave = wave - wave[pad : len(wave) - pad].mean()
    return wave * (PEAK / wave[pad : len(wave) - pad].abs().max().clamp(min=1e-3))


def encode_clips(
    autoencoder: Autoencoder, mel: LogMel, cache: AudioCache, hours: float, validation: bool = False
) -> list[np.ndarray]:
    """Latents [C, N] of so many hours of clips."""
    packets = cache.packets(autoencoder.patch * mel.hop_length, validation, round(hours * 3600 * mel.sample_rate))
    with torch.inference_mode():
        return [autoencoder.encode(mel(wave[None]))[0].numpy() for wave in packets]


class Windows:
    """Random windows of training audio: clips one after the other at levels of their own, tilted and mixed.

    Args:
        length: frames of the front-end; the waveforms have its `pad` in addition on either side.
    """

    FADE = 160  # samples, where one clip follows another

    def __init__(self, cache: AudioCache, mel: LogMel, length: int, seed: int):
        self.cache, self.seed, self.pad = cache, seed, mel.pad
        self.samples = length * mel.hop_length + 2 * mel.pad
        clips = [c for c in cache.clips if not is_validation(c[0])]
        self.starts = np.array([start for _, start, _ in clips])
        self.ends = np.cumsum([count for _, _, count in clips])
        if self.ends[-1] <= self.samples:
            raise ValueError(f"{cache.hours * 3600:.1f} s of audio are too little to train on")

    def _stretch(self, rng: np.random.Generator) -> np.ndarray:
        """A random stretch of all clips together [samples], peak 1."""
        position = int(rng.integers(self.ends[-1] - self.samples))
        parts: list[np.ndarray] = []
        missing = self.samples
        clip = int(np.searchsorted(self.ends, position, "right"))
        ramp = np.linspace(0, 1, self.FADE, dtype=np.float32)
        while missing:
            offset = position - (self.ends[clip - 1] if clip else 0)
            count = min(missing, int(self.ends[clip]) - position)
            part = self.cache.crop(int(self.starts[clip] + offset), count)
            part = part / max(float(np.abs(part).max()), 1e-3)
            if parts:
                part *= np.exp(-rng.uniform(0, 1.6))  # down to -14 dB
                fade = min(self.FADE, count)
                part[:fade] *= ramp[:fade]
            missing -= count
            if missing:
                fade = min(self.FADE, count)
                part[count - fade :] *= ramp[:fade][::-1]
            parts.append(part)
            position += count
            clip += 1
        return np.concatenate(parts)

    def batch(self, step: int, size: int) -> Tensor:
        """[size, samples] float32; a function of seed and step alone, so that a resumed run sees the same data."""
        rng = np.random.default_rng([self.seed, step])
        waves = []
        for _ in range(size):
            wave = self._stretch(rng)
            if rng.random() < 0.2:
                wave = wave + self._stretch(rng) * np.float32(np.exp(-rng.uniform(0.3, 2.5)))
            if rng.random() < 0.5:
                spectrum = np.fft.rfft(wave)
                hz = np.linspace(0, 1, len(spectrum))
                bands = math.pi * np.log1p(20 * hz) / math.log(21)  # about a mel scale
                tilt = sum(rng.normal(0, 0.25) * np.cos(k * bands) for k in (1, 2, 3))
                wave = np.fft.irfft(spectrum * np.exp(tilt), len(wave)).astype(np.float32)
            waves.append(normalize(torch.from_numpy(wave), self.pad))
        return torch.stack(waves)

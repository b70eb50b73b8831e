"""Training audio: all clips decoded once into a memory-mapped file of samples."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...audio.reader import read_audio
from ...audio.suffixes import READABLE
from ...dsp.loudness import PEAK
from ...dsp.mel import LogMel
from ...errors import AudioError
from ...nn.autoencoder import Autoencoder

HELD_OUT = 4  # per cent of speakers and works


def audio_files(source: Path) -> Iterator[tuple[str, io.BytesIO]]:
    """Names and contents of the audio in a folder (recursively) or in tar shards, in sorted order."""
    files = [source] if source.is_file() else sorted(p for p in source.rglob("*") if p.is_file())
    for path in files:
        if path.suffix == ".tar":
            with tarfile.open(path) as tar:
                for member in tar:
                    if member.isfile() and Path(member.name).suffix.lower() in READABLE:
                        handle = tar.extractfile(member)
                        assert handle is not None  # isfile() said so
                        yield f"{path.name}/{member.name}", io.BytesIO(handle.read())
        elif path.suffix.lower() in READABLE:
            yield str(path.relative_to(source) if path != source else path.name), io.BytesIO(path.read_bytes())


def is_held_out(name: str, percent: int = HELD_OUT) -> bool:
    """Whether a clip is held out: by its folder or by what stands before the last `__`, as a speaker or work does."""
    stem = name.rsplit("/", 1)[-1]
    group = stem.rsplit("__", 1)[0] if "__" in stem else name
    return zlib.crc32(group.encode()) % 100 < percent


class AudioCache:
    """Samples of many clips in one int16 file.

    Args:
        folder: where `build` wrote it.
        held_out: per cent of speakers and works that are not trained on.

    Attributes:
        audio: [total] int16, mono at `sample_rate`.
        clips: (name, first sample, samples) for each clip.
        sha256: of the samples.
    """

    def __init__(self, folder: Path, held_out: int = HELD_OUT):
        index = json.loads((folder / "index.json").read_text())
        self.sample_rate: int = index["made_from"]["sample_rate"]
        self.clips: list[tuple[str, int, int]] = [tuple(c) for c in index["clips"]]
        self.sha256: str = index["sha256"]
        self.held_out = held_out
        self.audio = np.memmap(folder / "audio.i16", np.int16, "r")

    @property
    def hours(self) -> float:
        return len(self.audio) / self.sample_rate / 3600

    def part(self, held_out: bool) -> list[tuple[str, int, int]]:
        """The clips that are held out, or all others."""
        return [clip for clip in self.clips if is_held_out(clip[0], self.held_out) == held_out]

    @classmethod
    def build(
        cls,
        source: list[Path],
        folder: Path,
        sample_rate: int,
        progress: Callable[[str], None],
        held_out: int = HELD_OUT,
    ) -> AudioCache:
        """Decode all audio once; a complete cache of the same files is reused.

        Raises:
            AudioError: no readable audio in the sources.
        """
        files = [p for s in source for p in ([s] if s.is_file() else sorted(s.rglob("*"))) if p.is_file()]
        wanted = dict(files=[[str(p), p.stat().st_size] for p in files], sample_rate=sample_rate)
        index = folder / "index.json"
        if index.exists() and json.loads(index.read_text())["made_from"] == wanted:
            return cls(folder, held_out)
        folder.mkdir(parents=True, exist_ok=True)
        clips: list[tuple[str, int, int]] = []
        total, digest = 0, hashlib.sha256()
        with open(folder / "audio.i16", "wb") as out:
            for name, handle in (item for s in source for item in audio_files(s)):
                try:
                    wave = read_audio(handle, sample_rate).mean(0)
                except AudioError as error:
                    progress(f"skipped {name}: {error}")
                    continue
                if len(wave) < sample_rate // 5:
                    continue
                samples = np.rint(wave * 32767).clip(-32768, 32767).astype(np.int16).tobytes()
                out.write(samples)
                digest.update(samples)
                clips.append((name, total, len(wave)))
                total += len(wave)
                if len(clips) % 500 == 0:
                    progress(f"decoded {len(clips)} clips, {total / sample_rate / 3600:.2f} h")
        if not clips:
            raise AudioError("no readable audio in " + ", ".join(map(str, source)))
        index.write_text(json.dumps(dict(made_from=wanted, sha256=digest.hexdigest(), clips=clips)))
        return cls(folder, held_out)

    def crop(self, start: int, count: int) -> np.ndarray:
        """Samples [count] float32, -1 .. 1."""
        return self.audio[start : start + count].astype(np.float32) / 32768

    def packets(self, size: int, held_out: bool, limit: int, longest: int = 64) -> Iterator[Tensor]:
        """Beginnings of clips [n] as the encoder would see them, in a fixed random order, up to `limit` samples.

        Args:
            size: n is a multiple of it, 4 .. longest times.
        """
        order = np.random.default_rng(0).permutation(len(self.clips))
        for name, start, count in (self.clips[i] for i in order):
            count = min(count // size, longest) * size
            if count >= 4 * size and is_held_out(name, self.held_out) == held_out and limit > 0:
                limit -= count
                yield normalize(torch.from_numpy(self.crop(start, count)))


def normalize(wave: Tensor, pad: int = 0) -> Tensor:
    """Mean-free with a peak of `PEAK`, as the encoder makes it; the outer `pad` samples do not count. [N] -> [N]."""
    wave = wave - wave[pad : len(wave) - pad].mean()
    return wave * (PEAK / wave[pad : len(wave) - pad].abs().max().clamp(min=1e-3))


def encode_clips(
    autoencoder: Autoencoder, mel: LogMel, cache: AudioCache, hours: float, held_out: bool = False
) -> list[np.ndarray]:
    """Latents [C, N] of so many hours of clips."""
    packets = cache.packets(autoencoder.patch * mel.hop_length, held_out, round(hours * 3600 * mel.sample_rate))
    with torch.inference_mode():
        return [autoencoder.encode(mel(wave[None]))[0].numpy() for wave in packets]

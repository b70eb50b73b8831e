"""Training audio -> a memory-mapped cache of log-mel frames."""

from __future__ import annotations

import io
import json
import tarfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..audio import AudioError, read_audio
from ..mel import LogMel

SUFFIXES = {".wav", ".flac", ".ogg", ".opus", ".mp3", ".aiff", ".aif", ".au", ".caf"}
QUIET = 18.0  # nats: the cache's floor, below every level that a normalised crop can need


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


class MelCache:
    """Log-mel frames of many clips in one float16 file, with the peak of every hop.

    Attributes:
        frames: [total, n_mels] float16, natural log, of the waveform as it is (no gain).
        peaks: [total] float32, largest absolute sample of each hop.
        clips: (name, first frame, frames) for each clip.
    """

    def __init__(self, folder: Path, mel: LogMel):
        self.mel = mel
        index = json.loads((folder / "index.json").read_text())
        self.clips: list[tuple[str, int, int]] = [tuple(c) for c in index["clips"]]
        self.frames = np.memmap(folder / "mel.f16", np.float16, "r").reshape(-1, mel.n_mels)
        self.peaks = np.fromfile(folder / "peaks.f32", np.float32)

    @classmethod
    def build(cls, source: list[Path], folder: Path, mel: LogMel, progress: Callable[[str], None]) -> MelCache:
        """Decode all audio once; a cache that is complete and of the same front-end is taken as it is.

        Raises:
            AudioError: no readable audio in the sources.
        """
        files = [p for s in source for p in ([s] if s.is_file() else sorted(s.rglob("*"))) if p.is_file()]
        wanted = dict(files=[[str(p), p.stat().st_size] for p in files], mel=mel.config())
        index = folder / "index.json"
        if index.exists() and json.loads(index.read_text())["made_from"] == wanted:
            return cls(folder, mel)
        folder.mkdir(parents=True, exist_ok=True)
        wide = LogMel(**{**mel.config(), "floor": -QUIET})
        clips: list[tuple[str, int, int]] = []
        total = 0
        with open(folder / "mel.f16", "wb") as frames, open(folder / "peaks.f32", "wb") as peaks:
            for name, handle in (item for s in source for item in audio_files(s)):
                try:
                    wave = torch.from_numpy(read_audio(handle, mel.sample_rate).mean(0))
                except AudioError as error:
                    progress(f"skipped {name}: {error}")
                    continue
                count = len(wave) // mel.hop_length
                if count < 20:  # 0.2 s
                    continue
                wave = wave[: count * mel.hop_length] - wave.mean()
                frames.write(wide(wave[None])[0].half().numpy().tobytes())
                peaks.write(wave.abs().view(count, -1).amax(1).numpy().tobytes())
                clips.append((name, total, count))
                total += count
                if len(clips) % 500 == 0:
                    progress(f"decoded {len(clips)} clips, {total * mel.hop_length / mel.sample_rate / 3600:.2f} h")
        if not clips:
            raise AudioError("no readable audio in " + ", ".join(map(str, source)))
        index.write_text(json.dumps(dict(made_from=wanted, clips=clips)))
        return cls(folder, mel)

    def crop(self, start: int, count: int) -> Tensor:
        """Frames [count, n_mels] as the encoder would see them: gain for a peak of 0.5, then the floor."""
        peak = max(float(self.peaks[start : start + count].max()), 1e-4)
        frames = torch.from_numpy(self.frames[start : start + count].astype(np.float32))
        return (frames + float(np.log(0.5 / peak))).clamp(min=self.mel.floor)

    def blocks(self, patch: int, validation: bool, limit: int, longest: int = 1024) -> Iterator[Tensor]:
        """Crops of whole clips [T, n_mels], T a multiple of `patch`, in a fixed random order, up to `limit` frames."""
        order = np.random.default_rng(0).permutation(len(self.clips))
        for name, start, count in (self.clips[i] for i in order):
            count = min(count, longest) // patch * patch
            if count >= 4 * patch and is_validation(name) == validation and limit > 0:
                limit -= count
                yield self.crop(start, count)

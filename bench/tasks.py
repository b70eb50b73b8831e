"""One clip through one codec: coding, measuring, and the row of facts that both leave in a file."""

from __future__ import annotations

import json
import tempfile
import zlib
from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import soundfile as sf

from ..codec.audio.suffixes import readable
from ..codec.processes import in_processes
from .codecs import AudioCodec, CodecError, Commands, make_codec
from .codecs.base import run_fullband
from .metrics import (
    FAMILIES,
    FULLBAND_FAMILIES,
    FULLBAND_METRICS,
    METRICS,
    SAMPLE_RATE,
    Embedding,
    Family,
    FullBandPair,
    Metric,
    Wave,
    absent,
    applicable,
    embeddings,
    fit_channels,
    fit_length,
    score,
    score_fullband,
)
from .sources import BenchError, folder_name, load, load_fullband
from .statistics import Row

ORIGINAL = "original"


def peak_memory(reset: bool = False) -> int | None:
    """Peak resident bytes of this process since the last reset; None where the system does not tell (not Linux)."""
    try:
        if reset:
            Path("/proc/self/clear_refs").write_text("5")
        status = Path("/proc/self/status").read_text()
    except OSError:
        return None
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


_codecs: dict[str, AudioCodec] = {}


def obtain(spec: str | Commands) -> AudioCodec:
    """The codec of a spec, one for each process. Raises Missing, ValueError."""
    if isinstance(spec, Commands):
        return spec
    if spec not in _codecs:
        import torch

        torch.set_num_threads(1)
        _codecs[spec] = make_codec(spec)
    return _codecs[spec]


@dataclass(frozen=True)
class Task:
    """One clip through one codec at one setting; its facts are in a file of their own, its sound beside it.

    Attributes:
        codec: name of the codec in rows.
        yamnet: file of that network, if there is one.
        fullband: the clip is coded and measured at its own rate, in stereo if it is.
    """

    spec: str | Commands
    codec: str
    clip: Path
    domain: str
    setting: str
    out: Path
    yamnet: Path | None = None
    fullband: bool = False

    @property
    def path(self) -> Path:
        """The file of the facts."""
        return self.out / "audio" / folder_name(self.clip) / f"{quote(self.codec, '')}@{self.setting}.json"

    def vectors(self, embedding: Embedding) -> Path:
        """The file of the clip's vectors in an embedding."""
        return self.path.with_suffix(f".{embedding.name}.npy")

    def load(self) -> tuple[Wave, int]:
        """The clip as codecs and metrics get it: [N] at 16 kHz, or [C, N] at its rate in Hz. Raises BenchError."""
        return load_fullband(self.clip) if self.fullband else (load(self.clip), SAMPLE_RATE)

    def key(self) -> str:
        """Changes when the clip, the codec or what it is given does; empty if the clip cannot be read."""
        given = " full band" if self.fullband else ""
        try:
            if not self.clip.is_file():  # a pipe would be waited for
                return ""
            return f"{zlib.crc32(self.clip.read_bytes()):08x} {obtain(self.spec).identity}{given}"
        except OSError:
            return ""

    def read(self) -> Row | None:
        """The stored facts, or None if there are none or the clip or codec has changed since."""
        try:
            row: Row = json.loads(self.path.read_text())
            return row if row["key"] == self.key() else None
        except (OSError, ValueError, KeyError):
            return None

    def write(self, **facts: Any) -> None:
        """Replace the stored facts atomically; what is not given is None."""
        empty = dict.fromkeys(("seconds", "bytes", "container_bytes", "kbps", "encode_rtf", "decode_rtf", "memory_mb"))
        empty |= dict.fromkeys(metric.name for metric in metrics_of(self.fullband) if not metric.pooled)
        names = dict(codec=self.codec, setting=self.setting, clip=readable(self.clip.stem), domain=self.domain)
        row = names | empty | dict(error=None, audio=None, scored=[]) | facts
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_name(self.path.name + ".new")
        partial.write_text(json.dumps(row, indent=1))
        partial.replace(self.path)

    def unscored(self, row: Row) -> tuple[list[Family[Any]], list[Embedding]]:
        """What can be measured on it here and is not in the row yet."""
        families: list[Family[Any]] = (
            [*applicable(FULLBAND_FAMILIES, self.domain, row["seconds"])]
            if self.fullband
            else [*applicable(FAMILIES, self.domain, row["seconds"])]
        )
        spaces = [] if self.fullband else usable(self.yamnet, self.domain)
        return [
            family
            for family in families
            if family.name not in row["scored"] and not (family.compares and self.codec == ORIGINAL)
        ], [space for space in spaces if space.name not in row["scored"]]


def metrics_of(fullband: bool) -> tuple[Metric, ...]:
    """All metrics of a benchmark."""
    return FULLBAND_METRICS if fullband else METRICS


def usable(yamnet: Path | None, domain: str) -> list[Embedding]:
    """Embeddings for a kind of sound whose packages are installed."""
    return [e for e in embeddings(yamnet) if (domain == "speech" or not e.speech_only) and not absent(e.modules)]


def one_line(error: Exception) -> str:
    """What went wrong, for a row."""
    known = isinstance(error, BenchError | CodecError)
    first = (str(error).splitlines() or [""])[0]
    return first if known else f"{type(error).__name__}: {first}"


def code(task: Task) -> None:
    """Encode and decode; the metrics are left to `rate`, whose packages would count as the codec's memory."""
    facts = dict[str, Any](key=task.key())
    try:
        codec = obtain(task.spec)
        wave, sample_rate = task.load()
        seconds = wave.shape[-1] / sample_rate
        with tempfile.TemporaryDirectory() as temporary:
            peak_memory(reset=True)
            if task.fullband:
                coded = run_fullband(codec, wave, sample_rate, task.setting, Path(temporary))
            else:
                coded = codec.run(wave, task.setting, Path(temporary))
            memory = coded.memory or peak_memory()
        sound = task.path.with_suffix(".flac")
        sound.parent.mkdir(parents=True, exist_ok=True)
        sf.write(sound, coded.decoded.T.clip(-1, 1), sample_rate, subtype="PCM_16")
        if coded.size is None:  # a ceiling costs nothing that a codec would
            memory = None
        task.write(
            **facts,
            seconds=seconds,
            bytes=coded.size,
            container_bytes=coded.container_bytes,
            kbps=None if coded.size is None else coded.size * 8 / seconds / 1000,
            encode_rtf=coded.encode_seconds / seconds,
            decode_rtf=coded.decode_seconds / seconds,
            memory_mb=None if memory is None else memory / 1e6,
            audio=str(sound.relative_to(task.out)),
        )
    except Exception as error:  # another codec's library may raise anything
        task.write(**facts, error=one_line(error))


def rate(task: Task) -> None:
    """Add to what `code` wrote the metrics that are not there yet, and the vectors for pooled metrics."""
    row = json.loads(task.path.read_text())
    try:
        wave, sample_rate = task.load()
        decoded = sf.read(task.out / row["audio"], dtype="float32")[0].T
        families, spaces = task.unscored(row)
        names = [metric.name for family in families for metric in family.metrics]
        if task.fullband:
            found = score_fullband(FullBandPair(wave, fit_channels(decoded, *wave.shape), sample_rate), names)
        else:
            found = score(wave, decoded, task.domain, names)
        for space in spaces:
            np.save(task.vectors(space), space.embed(fit_length(decoded, len(wave))).astype(np.float16))
        row |= {name: found[name] for name in names}
        task.write(
            **row | dict(scored=row["scored"] + [family.name for family in families] + [space.name for space in spaces])
        )
    except Exception as error:  # so may a metric's
        task.write(**row | dict(error=one_line(error)))


def run_all(function: Callable[[Task], None], tasks: list[Task], jobs: int, done: Callable[[], None]) -> None:
    """Call the function in `jobs` processes. A task whose process dies gets a row that says so."""
    for task, result in in_processes(function, tasks, jobs):
        if result is BrokenProcessPool:
            task.write(key=task.key(), error="its process died")
        done()

"""What `aldm batch` is to read: folders, patterns and manifests -> files, and the name of each in the output."""

from __future__ import annotations

import glob
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import click

Wanted = dict[str, list[tuple[Path, Path]]]  # by name

SUFFIXES = {".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aiff", ".aif", ".au", ".caf", ".w64", ".rf64"}


def find_sources(inputs: tuple[str, ...], manifest: Path | None) -> Iterator[tuple[Path, Path]]:
    """Audio files, and where each belongs below the output folder."""
    for name in inputs:
        path = Path(name)
        if path.is_dir():
            files = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
            yield from ((p, p.relative_to(path)) for p in files)
        elif glob.has_magic(name) and not path.exists():
            fixed = [part for part in path.parts[: next(i for i, p in enumerate(path.parts) if glob.has_magic(p))]]
            matches = sorted(p for p in map(Path, glob.iglob(name, recursive=True)) if p.is_file())
            yield from ((p, p.relative_to(Path(*fixed))) for p in matches)
        else:
            yield path, Path(path.name)
    for line in _lines(manifest) if manifest else ():
        if line.strip():
            path = Path(line.strip())
            inside = not path.is_absolute() and ".." not in path.parts
            assert manifest is not None
            yield manifest.parent / path, path if inside else Path(path.name)


def _lines(manifest: Path) -> list[str]:
    try:
        return manifest.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise click.ClickException(f"{manifest}: not a text of paths: {error.reason}") from error


def plan(inputs: tuple[str, ...], manifest: Path | None) -> Wanted:
    """Names, and the inputs that want each, with their places: `a` for `a.wav`, or `a.wav` if there is an `a.flac`."""
    sources = dict.fromkeys(find_sources(inputs, manifest))
    shared = Counter(place.with_suffix("") for _, place in sources)
    wanted: Wanted = {}
    for source, place in sources:
        stem = place.with_suffix("")
        wanted.setdefault(str(place if shared[stem] > 1 else stem), []).append((source, place))
    return wanted

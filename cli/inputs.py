"""Inputs of `aldm batch`: folders, patterns and manifests -> files, and their names in the output."""

from __future__ import annotations

import glob
import os
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import click

from ..codec.audio.suffixes import ALDM, READABLE, SIGNATURE_BYTES, guess_format


class Input(NamedTuple):
    """A file to encode.

    Attributes:
        source: where it is.
        place: where it belongs below the output folder, with its suffix.
        error: why it cannot be encoded, or "".
    """

    source: Path
    place: Path
    error: str = ""


class LeftOut(NamedTuple):
    """A file that is not sound, by its name and first bytes."""

    source: Path
    reason: str


def find_inputs(inputs: tuple[str, ...], manifest: Path | None) -> tuple[dict[str, Input], list[LeftOut]]:
    """Files to encode, by their names in the output (without .aldm), and files in folders that are no sound.

    A name is `a` for `a.wav`, or `a.wav` if there is an `a.flac` too. Inputs with the same place get the
    folders in which they differ.
    """
    found, left_out = dict[str, Input](), list[LeftOut]()
    for item in _search(inputs, manifest):
        if isinstance(item, LeftOut):
            left_out.append(item)
        else:
            found.setdefault(os.path.abspath(item.source), item)
    placed = defaultdict[Path, list[str]](list)
    for path, item in found.items():
        placed[item.place].append(path)
    for place, paths in placed.items():
        if len(paths) > 1:
            common = os.path.commonpath([os.path.dirname(path) for path in paths])
            for path in paths:
                found[path] = found[path]._replace(place=Path(os.path.relpath(path, common)))
        assert not place.is_absolute()
    stems = Counter(item.place.with_suffix("") for item in found.values())
    named = dict[str, Input]()
    for item in sorted(found.values(), key=lambda i: stems[i.place.with_suffix("")] > 1):  # those without a rival first
        stem = item.place.with_suffix("")
        name = wanted = str(item.place if stems[stem] > 1 else stem)
        number = 1
        while name in named:
            number += 1
            name = f"{wanted}-{number}"
        named[name] = item
    order = {path: number for number, path in enumerate(found)}
    return dict(sorted(named.items(), key=lambda pair: order[os.path.abspath(pair[1].source)])), left_out


def _search(inputs: tuple[str, ...], manifest: Path | None) -> Iterator[Input | LeftOut]:
    for name in inputs:
        path = Path(name)
        if os.path.isdir(path):  # not Path.is_dir, which raises for a name that is too long
            yield from _files_below(path)
        elif glob.has_magic(name) and not os.path.exists(path):
            fixed = [part for part in path.parts[: next(i for i, p in enumerate(path.parts) if glob.has_magic(p))]]
            matches = sorted(p for p in map(Path, glob.iglob(name, recursive=True)) if not p.is_dir())
            yield from (_input(p, p.relative_to(Path(*fixed))) for p in matches)
        else:
            yield _input(path, Path(path.name))
    for line in _lines(manifest) if manifest else ():
        path = Path(line)
        inside = not path.is_absolute() and ".." not in path.parts
        assert manifest is not None
        yield _input(manifest.parent / path, path if inside else Path(path.name))


def _input(source: Path, place: Path) -> Input:
    if os.path.isfile(source):
        return Input(source, place)
    if os.path.isdir(source):
        return Input(source, place, "A folder; name it as an INPUT")
    if os.path.exists(source):
        return Input(source, place, "Neither a file nor a folder")
    return Input(source, place, "Broken link" if os.path.islink(source) else "No such file")


def _files_below(root: Path) -> Iterator[Input | LeftOut]:
    """Files of a folder and of the folders below and behind links, without going round in circles."""
    ancestors = {str(root): [os.path.realpath(root)]}  # real paths of a folder and those above it, in the search
    errors = list[OSError]()
    for folder, folders, files in os.walk(root, onerror=errors.append, followlinks=True):
        above = ancestors.pop(folder)
        for name in sorted(folders):
            path = os.path.join(folder, name)
            if (real := os.path.realpath(path)) in above:
                folders.remove(name)
                yield LeftOut(Path(path), "link to a folder above it")
            else:
                ancestors[path] = [*above, real]
        folders.sort()
        for name in sorted(files):
            source = Path(folder, name)
            item = _input(source, source.relative_to(root))
            reason = "" if item.error else _not_audio(source)
            yield LeftOut(source, reason) if reason else item
    for error in errors:
        unread = Path(str(error.filename))
        yield Input(unread, unread.relative_to(root), error.strerror or str(error))


def _not_audio(path: Path) -> str:
    """Why a file of a folder does not count as audio, or ""."""
    suffix = path.suffix.lower()
    if suffix in READABLE:
        return ""
    if suffix == ALDM:
        return "an .aldm file already"
    try:
        with open(path, "rb") as file:
            start = file.read(SIGNATURE_BYTES)
    except OSError:
        return ""  # it may be sound; encoding it says what is wrong
    return "" if guess_format(start) else f"no audio: {suffix or 'no suffix'}"


def _lines(manifest: Path) -> list[str]:
    """Lines of a manifest; names that are not UTF-8 stay what they are."""
    data = manifest.read_bytes()
    if b"\0" in data:
        raise click.ClickException(f"{manifest}: not a text of paths in UTF-8")
    lines = data.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    return [os.fsdecode(line) for line in (line.removesuffix(b"\r") for line in lines) if line.strip()]

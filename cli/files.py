"""Inputs and outputs of the command: pipes, and files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import io
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import click

from .locks import try_lock
from .messages import printable

TEMPORARY = ".aldm-tmp-"  # begin of the names of files that are not complete
STALE_SECONDS = 60  # a younger one may be about to be locked


def standard(name: str) -> BinaryIO:
    """Bytes of "stdin" or "stdout". Raises click.ClickException if the shell closed it."""
    stream = getattr(sys, name)
    if stream is None:
        raise click.ClickException(f"standard {'input' if name == 'stdin' else 'output'} is closed")
    return stream.buffer


def read_input(name: str) -> bytes:
    """Content of a file, or of standard input for `-`."""
    return standard("stdin").read() if name == "-" else Path(name).read_bytes()


@contextlib.contextmanager
def open_input(name: str) -> Iterator[BinaryIO]:
    """A file, pipe or device, or standard input for `-`, opened once: what is read of a pipe is gone."""
    if name == "-":
        yield standard("stdin")
    else:
        with open(name, "rb") as file:
            yield file


def refuse_same_file(source: BinaryIO, target: str) -> None:
    """Raises click.UsageError if writing `target` would replace an input that is open."""
    with contextlib.suppress(OSError):
        if os.path.isfile(target) and os.path.samestat(os.fstat(source.fileno()), os.stat(target)):
            raise click.UsageError(f"IN and OUT are the same file: {printable(target)}")


@contextlib.contextmanager
def output_file(
    name: str, force: bool, live: bool = False, partial: Path | None = None, source: BinaryIO | None = None
) -> Iterator[BinaryIO]:
    """A seekable binary file that takes its name only when the block ends without an error.

    `-` is standard output, written when the block ends, as is a device or pipe; or itself, not seekable, if `live`.

    Args:
        partial: folder for incomplete files, on the same file system; default: the file's. Remains of killed runs in
            it are removed.
        source: an open input, which is not to be replaced.

    Raises:
        click.UsageError: the file is `source`.
        click.ClickException: the file exists and `force` is not given.
    """
    if name == "-" and live:
        stream = standard("stdout")
        yield stream
        stream.flush()
        return
    if source is not None:
        refuse_same_file(source, name)
    path = Path(os.path.realpath(name))  # a link stays a link
    if name == "-" or name.startswith(("/dev/", "/proc/")) or (path.exists() and not path.is_file()):
        if path.is_dir():
            raise click.ClickException(f"{name} is a folder")
        whole = standard("stdout") if name == "-" else None
        buffer = io.BytesIO()
        yield buffer
        if whole:
            whole.write(buffer.getbuffer())
            whole.flush()
        else:
            Path(name).write_bytes(buffer.getbuffer())
        return
    if not path.parent.is_dir():
        raise click.ClickException(f"{printable(str(path.parent))}: No such file or directory")
    if path.exists() and not force:
        raise click.ClickException(f"{printable(name)} exists; --force replaces it")
    folder = partial or path.parent
    remove_stale(folder)
    with tempfile.NamedTemporaryFile(dir=folder, prefix=TEMPORARY, delete=False) as out:
        try_lock(out)
        try:
            yield out  # type: ignore[misc]
            out.flush()
            mask = os.umask(0)
            os.umask(mask)
            os.chmod(out.name, 0o666 & ~mask)  # as a plain open() would have made it
            os.replace(out.name, path)
        except BaseException:
            with contextlib.suppress(OSError):
                out.close()
            os.unlink(out.name)
            raise


def remove_stale(folder: Path) -> None:
    """Remove temporary files of killed runs: their locks are free."""
    for path in folder.glob(f"{TEMPORARY}*"):
        with contextlib.suppress(OSError):
            if path.is_file() and time.time() - path.stat().st_mtime > STALE_SECONDS:
                with open(path, "rb") as file:
                    if try_lock(file):
                        path.unlink()

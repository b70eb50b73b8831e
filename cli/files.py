"""Inputs and outputs of the command: pipes, and files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import io
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import click


def read_input(name: str) -> bytes:
    """Content of a file, or of standard input for `-`."""
    return sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()


@contextlib.contextmanager
def output_file(name: str, force: bool, live: bool = False, partial: Path | None = None) -> Iterator[BinaryIO]:
    """A seekable binary file that takes its name only when the block ends without an error.

    `-` is standard output, written when the block ends, as is a device or pipe; or itself, not seekable, if `live`.

    Args:
        partial: folder for what is not complete yet, on the same file system; default: where the file will be.

    Raises:
        click.ClickException: the file exists and `force` is not given.
    """
    if name == "-" and live:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    path = Path(os.path.realpath(name))  # a link stays a link
    if name == "-" or name.startswith(("/dev/", "/proc/")) or (path.exists() and not path.is_file()):
        if path.is_dir():
            raise click.ClickException(f"{name} is a folder")
        buffer = io.BytesIO()
        yield buffer
        if name == "-":
            sys.stdout.buffer.write(buffer.getbuffer())
            sys.stdout.buffer.flush()
        else:
            Path(name).write_bytes(buffer.getbuffer())
        return
    if not path.parent.is_dir():
        raise click.ClickException(f"{path.parent}: No such file or directory")
    if path.exists() and not force:
        raise click.ClickException(f"{name} exists; --force replaces it")
    with tempfile.NamedTemporaryFile(dir=partial or path.parent, prefix=".aldm-", delete=False) as out:
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

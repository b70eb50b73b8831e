"""Tasks of a worker of `aldm batch`: encode or tokenize one file, with a codec that is loaded once."""

from __future__ import annotations

import errno
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .files import output_file
from .messages import one_line

if TYPE_CHECKING:
    from ..codec.audio.reader import AudioReader
    from ..codec.codec import Codec

Task = dict[str, Any]  # absolute paths of source, target, and a folder for incomplete files; options
Result = dict[str, Any]  # of a task

_codec: Codec  # of this process


def start(model: str | None, wanted: str, threads: int, device: str | None) -> None:
    """Load this process's codec; its model must have that fingerprint."""
    global _codec
    import torch

    from ..codec.codec import Codec

    torch.set_num_threads(threads)
    _codec = Codec.from_pretrained(model, device=device)
    if (found := _codec.model.fingerprint.hex()) != wanted:
        raise ValueError(f"a worker has another model {model or 'base'}: {found[:8]}, not {wanted[:8]}")


def start_process(model: str | None, wanted: str, threads: int, device: str | None) -> None:
    """The same in a child process of a terminal: it ignores Ctrl-C, which the parent handles."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    start(model, wanted, threads, device)


def encode(task: Task) -> Result:
    """Encode one file. Errors go to `error`; `full` marks a full disk."""
    return _with_errors(_encode, task)


def tokenize(task: Task) -> Result:
    """Tokens of one file, [C, N, groups] in `tokens`; errors as of `encode`."""
    return _with_errors(_tokenize, task)


def _encode(task: Task) -> Result:
    from ..codec.audio.reader import AudioReader
    from ..codec.tags import affordable_tags

    with open(task["source"], "rb") as file:
        reader = AudioReader(file)
        rates = {name: task["options"][name] for name in ("bitrate", "quality")}
        seconds = reader.samples / reader.sample_rate
        tags, dropped = affordable_tags(reader.tags, rates["bitrate"], seconds)
        data = _codec.encode(reader, **rates, comments=tags)
        Path(task["target"]).parent.mkdir(parents=True, exist_ok=True)
        with output_file(task["target"], force=True, partial=Path(task["partial"]), source=file) as out:
            out.write(data)
    facts = _facts(reader) | dict(bytes=len(data), kbps=len(data) * 8e-3 / seconds)
    if dropped:
        facts["warnings"] += [f"tags left out: {', '.join(tag.partition('=')[0] for tag in dropped)}"]
    return facts


def _tokenize(task: Task) -> Result:
    from ..codec.audio.reader import AudioReader

    options = task["options"]
    with open(task["source"], "rb") as file:
        reader = AudioReader(file)
        tokens = _codec.tokens(file, codebook=options["codebook"], quality=options["quality"]).numpy()
    return _facts(reader) | dict(samples=reader.samples, sample_rate=reader.sample_rate, tokens=tokens)


def _facts(reader: AudioReader) -> Result:
    seconds = reader.samples / reader.sample_rate
    return dict(seconds=seconds, channels=reader.channels, partial=reader.truncated, warnings=list(reader.warnings))


def _with_errors(function: Callable[[Task], Result], task: Task) -> Result:
    started = time.perf_counter()
    try:
        result = function(task)
    except click.ClickException as error:
        result = dict(error=error.message)
    except OSError as error:
        result = dict(error=error.strerror or str(error), full=error.errno in (errno.ENOSPC, errno.EDQUOT))
    except (ValueError, RuntimeError, MemoryError) as error:
        result = dict(error=one_line(error))
    return result | dict(took=time.perf_counter() - started)

"""`aldm play`: an .aldm file through the loudspeakers."""

from __future__ import annotations

import contextlib
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import click

from ..format.stream import StreamReader
from .checkpoint import loading_options
from .files import open_input
from .messages import PARTIAL, naming, verbosity_options
from .options import Command, render_options
from .rendering import Sound, load_codec, say_damage

PLAYERS = (
    "ffplay -nodisp -autoexit -loglevel error -i -",
    "aplay -q -",
    "play -q -t wav -",
    "mpv --really-quiet -",
    "afplay {}",
)
GROUPS = {
    "Options": ("start", "duration", "player", "device", "quiet", "help"),
    "Sound": ("vocoder", "layers", "refine", "model"),
}
EXAMPLES = """
aldm play talk.aldm
aldm play talk.aldm --start 60 --duration 5
aldm encode talk.wav - --bitrate 0.75 | aldm play -
"""


@click.command(cls=Command, groups=GROUPS, examples=EXAMPLES)
@click.argument("source", metavar="FILE")
@click.option("--start", type=click.FloatRange(min=0), default=0.0, metavar="S", help="Begin at this second.")
@click.option("--duration", type=click.FloatRange(min=0, min_open=True), metavar="S", help="Play this many seconds.")
@click.option(
    "--player", metavar="COMMAND",
    help="Program that plays a WAV from its standard input, or the file {}.  [default: ffplay, aplay, play, mpv, "
    "afplay or Python's sounddevice, whichever is there]",
)  # fmt: skip
@render_options
@click.option("--model", "-m", metavar="M", help="Model folder; not needed if the file names its model.")
@loading_options()
@verbosity_options
def play(
    source: str,
    start: float,
    duration: float | None,
    player: str | None,
    vocoder: str | None,
    layers: str,
    refine: int,
    model: str | None,
    loading: dict[str, Any],
) -> None:
    """Play an .aldm file. `-` is standard input; sound begins with its first packet. Ctrl-C ends it."""
    with open_input(source) as stream, naming(source):
        reader = StreamReader(stream)
        header = reader.header
        codec = load_codec(reader, model, {"vocoder": vocoder, **loading})
        decoder = codec.decoder(reader, layers=layers, refine=refine)
        blocks = decoder.blocks(start=start, duration=duration)
        sound = Sound(blocks, decoder.output_rate(), header.channels, "s16", True)
        command = shlex.split(player) if player else _find_player()
        if "{}" in command:
            _play_file(command, sound)
        elif command:
            with _piped(command) as out, contextlib.suppress(BrokenPipeError):  # the player was closed
                sound.stream(out, decoder.length(start=start, duration=duration))
        else:
            _play_here(sound)
    if say_damage(source, decoder):
        sys.exit(PARTIAL)


def _find_player() -> list[str]:
    """The command of the first player that is there; empty if that is the package sounddevice.

    Raises:
        click.ClickException: there is none.
    """
    for line in PLAYERS:
        command = shlex.split(line)
        if shutil.which(command[0]):
            return command
    with contextlib.suppress(ImportError, OSError):  # OSError: without its library
        import sounddevice  # noqa: F401

        return []
    raise click.ClickException(
        "no player found: install ffmpeg (ffplay), or run: pip install sounddevice; or name one by --player"
    )


@contextlib.contextmanager
def _piped(command: list[str]) -> Iterator[BinaryIO]:
    """Standard input of a player, which is waited for.

    Raises:
        click.ClickException: it fails.
    """
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        try:
            yield process.stdin  # type: ignore[misc]
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()
            process.wait()
        except BaseException:
            process.terminate()
            raise
    if process.returncode > 0:
        raise click.ClickException(f"{command[0]} failed with exit code {process.returncode}")


def _play_file(command: list[str], sound: Sound) -> None:
    """Play with a program that reads no pipe.

    Raises:
        click.ClickException: it fails.
    """
    with tempfile.TemporaryDirectory(prefix="aldm-") as folder:
        path = Path(folder, "sound.wav")
        with open(path, "wb") as file:
            sound.write(file, ".wav", lambda seconds: None, list)
        done = subprocess.run([str(path) if word == "{}" else word for word in command])
    if done.returncode:
        raise click.ClickException(f"{command[0]} failed with exit code {done.returncode}")


def _play_here(sound: Sound) -> None:
    import sounddevice

    with sounddevice.OutputStream(sound.sample_rate, channels=sound.channels, dtype="float32") as out:
        for block in sound.blocks:
            out.write(block.T.copy())

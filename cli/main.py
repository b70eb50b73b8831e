"""The `aldm` command: each subcommand parses, calls, reports. Heavy modules load inside the subcommands."""

from __future__ import annotations

import io
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from .batch import batch
from .bench import analyze, bench
from .files import output_file, read_input
from .info import info

# Threads that wait by spinning make two commands at once on two cores three to ten times slower than one alone.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch is imported

PROGRESS_SECONDS = 60.0  # shorter clips are done before a bar says anything


class Group(click.Group):
    """Turns the library's errors into one line on stderr and exit code 1."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            raise click.ClickException(f"{where}{error.strerror or error}") from error
        except MemoryError as error:
            raise click.ClickException("out of memory") from error
        except (click.exceptions.Exit, click.Abort):
            raise
        except RuntimeError as error:  # torch, when it gets no memory
            raise click.ClickException(str(error).splitlines()[0]) from error
        except ValueError as error:  # AudioError, FormatError, ModelError, and options out of range
            raise click.ClickException(" ".join(str(error).split())) from error


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="aldm")
def main() -> None:
    """Neural audio codec with a compact, versioned bitstream.

    Exit codes: 0 done, 1 failed, 2 wrong usage, 3 done as far as a damaged file allows.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that temporary files are removed


for command in (info, batch, bench, analyze):
    main.add_command(command)


def _progress(label: str, seconds: float) -> tuple[Any, Callable[[float], None]]:
    """A bar over seconds of audio on stderr, shown for long files on a terminal."""
    hidden = seconds < PROGRESS_SECONDS or not sys.stderr.isatty()
    bar = click.progressbar(length=max(1, round(seconds)), label=label, file=sys.stderr, hidden=hidden)
    return bar, lambda done: bar.update(round(done) - bar.pos)


def _say(message: str) -> None:
    click.echo(message, err=True)


@main.command()
@click.argument("source", metavar="IN")
@click.argument("target", metavar="OUT")
@click.option(
    "--bitrate",
    "-b",
    type=click.FloatRange(min=0, min_open=True),
    metavar="KBPS",
    help="Largest size of the file, in kbit/s of its duration.",
)
@click.option(
    "--quality", "-q", type=click.IntRange(min=0), metavar="Q", help="Quality instead of a bitrate; 0 is the coarsest."
)
@click.option(
    "--layers",
    type=click.Choice(["base", "both", "ddcm"]),
    default="base",
    show_default=True,
    help="Codebook indices; with an enhancement layer (DDCM) on top; or that alone.",
)
@click.option("--steps", type=click.IntRange(2, 255), metavar="N", help="Of DDCM's walk.  [default: 14 to 40]")
@click.option("--codebook", type=click.IntRange(1), metavar="K", help="Atoms of DDCM's codebooks, a power of two.")
@click.option("--block", type=click.IntRange(1, 64), metavar="V", help="Latent vectors of 160 ms that share a pick.")
@click.option("--atoms", type=click.IntRange(1, 64), metavar="M", help="Picks for each block and step.")
@click.option("--model", "-m", metavar="M", help="Model in the package, or a model folder.")
@click.option(
    "--packet",
    type=click.FloatRange(2, 10.24),
    metavar="S",
    help="Seconds in a packet.",
    default=10.24,
    show_default=True,
)
@click.option("--force", "-f", is_flag=True, help="Replace OUT if it exists.")
def encode(
    source: str,
    target: str,
    bitrate: float | None,
    quality: int | None,
    layers: str,
    steps: int | None,
    model: str | None,
    packet: float,
    force: bool,
    **sizes: int | None,
) -> None:
    """Encode the audio file IN as the .aldm file OUT. `-` is standard input or output.

    With --layers both, --quality is that of the base layer, and --bitrate that of the whole.
    """
    if bitrate is not None and quality is not None and layers != "both":
        raise click.UsageError("give --bitrate or --quality, not both")
    given = {name: value for name, value in {"steps": steps, **sizes}.items() if value is not None}
    if layers == "base" and given:
        raise click.UsageError(f"--{next(iter(given))} is for --layers both and ddcm")
    with output_file(target, force) as out:
        content = source if Path(source).is_file() else io.BytesIO(read_input(source))
        from ..codec.audio import AudioReader
        from ..codec.codec import Codec
        from ..codec.diffusion import DDCM
        from ..format.container import NO_BASE, Header

        started = time.perf_counter()
        ddcm = DDCM(**given) if given.keys() - {"steps"} else None
        codec = Codec.from_pretrained(model, packet_seconds=packet)
        reader = AudioReader(content)
        seconds = reader.samples / reader.sample_rate
        bar, progress = _progress("encoding", seconds)
        with bar:
            options: dict[str, Any] = {"layers": layers, "ddcm": ddcm, "steps": steps}
            data = codec.encode(reader, bitrate=bitrate, quality=quality, progress=progress, **options)
        out.write(data)
        took = time.perf_counter() - started
    kbps = len(data) * 8 / seconds / 1000
    level = Header.parse(data).quality
    quality_name = "no base layer" if level == NO_BASE else f"quality {level}"
    _say(f"{seconds:.2f} s -> {len(data)} bytes, {kbps:.3f} kbit/s, {quality_name}, in {took:.2f} s")
    if bitrate is not None and kbps > bitrate:
        _say(f"note: {bitrate:g} kbit/s cannot be met: this is the least that these options take")


@main.command()
@click.argument("source", metavar="IN")
@click.argument("target", metavar="OUT")
@click.option("--start", type=click.FloatRange(min=0), default=0.0, metavar="S", help="Begin at this second.")
@click.option("--duration", type=click.FloatRange(min=0, min_open=True), metavar="S", help="Decode this many seconds.")
@click.option("--original-rate", is_flag=True, help="Resample to the rate of the original instead of 16 kHz.")
@click.option(
    "--vocoder",
    type=click.Choice(["network", "griffin-lim"]),
    help="With the model's networks before and behind Griffin-Lim (default if it has them), or without any.",
)
@click.option("--layers", type=click.Choice(["all", "base"]), default="all", help="base: ignore enhancement layers.")
@click.option(
    "--refine",
    type=click.IntRange(0, 255),
    default=0,
    metavar="N",
    help="Steps of diffusion that put seeded noise in the place of what the quantiser removed.",
)
@click.option("--strict", is_flag=True, help="Refuse a damaged file instead of decoding what is whole.")
@click.option("--model", "-m", metavar="M", help="Model folder; models in the package are found by themselves.")
@click.option("--force", "-f", is_flag=True, help="Replace OUT if it exists.")
def decode(
    source: str,
    target: str,
    start: float,
    duration: float | None,
    original_rate: bool,
    vocoder: str | None,
    layers: str,
    refine: int,
    strict: bool,
    model: str | None,
    force: bool,
) -> None:
    """Decode the .aldm file IN to the audio file OUT (WAV, FLAC, ... by its name). `-` is a pipe."""
    with output_file(target, force) as out:
        started = time.perf_counter()
        data = read_input(source)
        from ..format.container import Header

        header = Header.parse(data)
        from ..codec.audio import write_audio
        from ..codec.codec import Codec
        from ..codec.folder import model_with

        codec = Codec.from_pretrained(model or model_with(header.model), vocoder=vocoder)
        decoder = codec.decoder(data, strict, layers, refine)
        blocks = decoder.blocks(original_rate, start, duration)
        rate = header.sample_rate if original_rate else codec.sample_rate
        bar, progress = _progress("decoding", duration or (header.samples or 0) / header.sample_rate)
        with bar:
            suffix = "" if target == "-" else Path(target).suffix
            samples = write_audio(out, blocks, rate, header.channels, suffix, lambda n: progress(n / rate))
        took = time.perf_counter() - started
    if refine and not decoder.refine:
        _say("note: this quality leaves nothing to refine; decoded as it is")
    _say(f"{len(data)} bytes -> {samples / rate:.2f} s, {header.channels} x {rate} Hz, in {took:.2f} s")
    if decoder.damage:
        for line in decoder.damage[:5]:
            _say(f"damage: {line}")
        _say(
            f"warning: {len(decoder.damage)} damaged places; {decoder.decoded} packets decoded, silence for the others"
        )
        sys.exit(3)


@main.command()
@click.argument("target", metavar="OUT")
@click.option("--seconds", type=click.FloatRange(0.01, 3600), default=10.0, show_default=True, help="Duration.")
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True, help="Of the random picks.")
@click.option("--steps", type=click.IntRange(2, 255), default=14, show_default=True, help="Of the walk.")
@click.option("--model", "-m", metavar="M", help="Model in the package, or a model folder.")
@click.option("--force", "-f", is_flag=True, help="Replace OUT if it exists.")
def generate(target: str, seconds: float, seed: int, steps: int, model: str | None, force: bool) -> None:
    """Write an .aldm file OUT of sound that nobody made: a diffusion whose noise is picked at random."""
    with output_file(target, force) as out:
        from ..codec.codec import Codec
        from ..codec.diffusion import DDCM

        data = Codec.from_pretrained(model).generate(seconds, seed, DDCM(steps))
        out.write(data)
    _say(f"{seconds:.2f} s, {len(data)} bytes")


@main.command()
@click.argument("data", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Model folder to write.")
@click.option("--work", type=click.Path(path_type=Path), help="Cache and checkpoints; default: OUT with .work behind.")
@click.option("--init", metavar="M", help="Model that goes on learning, instead of one that starts anew.")
@click.option("--steps", default=30000, show_default=True, help="Training steps; 0 leaves the linear transform alone.")
@click.option("--decoder-steps", default=5000, show_default=True, help="Further steps, of the decoding side; 0: none.")
@click.option("--corrector-steps", default=5000, show_default=True, help="Further steps, behind Griffin-Lim; 0: none.")
@click.option("--denoiser-steps", default=12000, show_default=True, help="Further steps, of the denoiser; 0: none.")
@click.option("--tokens", default=16, show_default=True, help="Of the vector codebook per latent vector; 0: none.")
@click.option("--n-mels", default=96, show_default=True, help="Bands of the front-end.")
@click.option("--channels", default=384, show_default=True, help="Latent channels.")
@click.option("--width", default=384, show_default=True, help="Channels of the autoencoder's convolutions.")
@click.option("--decoder-width", default=512, show_default=True, help="Channels of the magnitude network.")
@click.option("--batch-size", default=16, show_default=True, help="Examples of 3.84 s.")
@click.option("--table-hours", default=1.0, show_default=True, help="Audio to count tables on.")
@click.option("--seed", default=0, show_default=True, help="Of the training examples.")
def fit(data: tuple[Path, ...], out: Path, work: Path | None, **options: Any) -> None:
    """Fit a model to the audio in folders or tar shards DATA. Goes on where a stopped run left off."""
    from ..codec.fit import fit_model

    work = work or out.with_name(out.name + ".work")
    fit_model(list(data), out, work, lambda line: _say(f"{time.strftime('%H:%M:%S')}  {line}"), **options)
    _say(f"wrote {out}")

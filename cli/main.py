"""The `aldm` command: each subcommand parses, calls, reports. Heavy modules load inside the subcommands."""

from __future__ import annotations

import contextlib
import io
import itertools
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from ..format.container import NO_BASE, Header
from ..format.stream import StreamReader
from .batch import batch
from .bench import analyze, bench
from .checkpoint import MODEL_HELP, loading_options
from .files import output_file, read_input
from .fit import fit, fit_checkpoint
from .generate import generate
from .info import info
from .live import encode_live, play, stream_format
from .quick import import_torch

# Before torch is imported. Threads that wait by spinning make two commands at once on two cores three to ten times
# slower than one alone; threads that never spin make one alone half as slow again. GNU's OpenMP can spin for a few
# microseconds.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

LOW_LATENCY = 0.32  # seconds in a packet
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


for command in (info, batch, bench, analyze, generate, fit, fit_checkpoint):
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
@click.option(
    "--block",
    type=click.IntRange(1, 64),
    metavar="V",
    help="Latent vectors (160 ms; AudioLDM 2: 40) that share a pick.",
)
@click.option("--atoms", type=click.IntRange(1, 64), metavar="M", help="Picks for each block and step.")
@click.option("--prompt", metavar="TEXT", help="AudioLDM 2: what the sound is, for its diffusion; stored.")
@click.option("--model", "-m", metavar="M", help=MODEL_HELP)
@loading_options("posterior", "std_limit")
@click.option(
    "--packet",
    type=click.FloatRange(0.16, 10.24),
    metavar="S",
    help="Seconds in a packet.  [default: 10.24]",
)
@click.option("--low-latency", is_flag=True, help=f"For live sound: packets of {LOW_LATENCY} s, more bits.")
@click.option("--raw", metavar="RATE[:CHANNELS[:SAMPLE]]", help="IN is bare samples: u8, s16, s24, s32, f32 or f64.")
@click.option("--tag", "tags", multiple=True, metavar="NAME=VALUE", help="Store it in the file. May be repeated.")
@click.option("--no-tags", is_flag=True, help="Do not take over what IN says of itself.")
@click.option("--index", is_flag=True, help="Write where packets are, for readers that cannot scan the file.")
@click.option("--force", "-f", is_flag=True, help="Replace OUT if it exists.")
def encode(
    source: str,
    target: str,
    bitrate: float | None,
    quality: int | None,
    layers: str,
    steps: int | None,
    prompt: str | None,
    model: str | None,
    packet: float | None,
    low_latency: bool,
    raw: str | None,
    tags: tuple[str, ...],
    no_tags: bool,
    index: bool,
    force: bool,
    loading: dict[str, Any],
    **sizes: int | None,
) -> None:
    """Encode the audio file IN as the .aldm file OUT. `-` is standard input or output.

    With --layers both, --quality is that of the base layer, and --bitrate that of the whole. WAV and raw samples from
    standard input are encoded while they come, each packet as good as the bitrate allows so far; Ctrl-C ends them.
    """
    if bitrate is not None and quality is not None and layers != "both":
        raise click.UsageError("give --bitrate or --quality, not both")
    if packet is not None and low_latency:
        raise click.UsageError("give --packet or --low-latency, not both")
    given = {name: value for name, value in {"steps": steps, **sizes}.items() if value is not None}
    if layers == "base" and given:
        raise click.UsageError(f"--{next(iter(given))} is for --layers both and ddcm")
    piped = source == "-" and layers == "base"
    started = time.perf_counter()
    with output_file(target, force, live=piped) as out:
        start = b"" if raw or not piped else sys.stdin.buffer.read(12)
        if source != "-" and not Path(source).is_file():
            read_input(source)  # says what is wrong with it
        import_torch()
        from ..codec.audio.pcm import Format
        from ..codec.audio.reader import AudioReader
        from ..codec.codec import PACKET_SECONDS, Codec
        from ..codec.diffusion.ddcm import DDCM

        form = Format.parse(raw) if raw else stream_format(start, sys.stdin.buffer) if piped else None
        ddcm = DDCM(**given) if given.keys() - {"steps"} else None
        loading["packet_seconds"] = LOW_LATENCY if low_latency else packet or PACKET_SECONDS
        codec = Codec.from_pretrained(model, **loading)
        if form:
            if layers != "base" or index:
                raise click.UsageError("streams have no enhancement layers and no index")
            with contextlib.nullcontext(sys.stdin.buffer) if source == "-" else open(source, "rb") as stream:
                rates = {"bitrate": bitrate, "quality": quality, "comments": tags}
                seconds, size = encode_live(codec, stream, form, out, rates)
            level = None
        else:
            content = io.BytesIO(start + sys.stdin.buffer.read()) if source == "-" else source
            reader = AudioReader(content)
            seconds = reader.samples / reader.sample_rate
            bar, progress = _progress("encoding", seconds)
            with bar:
                options: dict[str, Any] = {"layers": layers, "ddcm": ddcm, "steps": steps, "index": index}
                options["prompt"] = prompt
                options["comments"] = [*tags] if no_tags else [*reader.tags, *tags]
                data = codec.encode(reader, bitrate=bitrate, quality=quality, progress=progress, **options)
            out.write(data)
            size, level = len(data), Header.parse(data).quality
    took = time.perf_counter() - started
    kbps = size * 8 / seconds / 1000
    quality_name = "live" if level is None else "no base layer" if level == NO_BASE else f"quality {level}"
    _say(f"{seconds:.2f} s -> {size} bytes, {kbps:.3f} kbit/s, {quality_name}, in {took:.2f} s")
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
    type=click.Choice(["network", "griffin-lim", "hifi-gan", "hybrid"]),
    help="Griffin-Lim with the model's networks before and behind it (default if it has them), or without any. "
    "AudioLDM 2: HiFi-GAN (default), Griffin-Lim, or one after the other.",
)
@click.option("--layers", type=click.Choice(["all", "base"]), default="all", help="base: ignore enhancement layers.")
@click.option(
    "--refine",
    type=click.IntRange(0, 255),
    default=0,
    metavar="N",
    help="Steps of diffusion that put seeded noise in the place of what the quantiser removed.",
)
@click.option("--prompt", metavar="TEXT", help="AudioLDM 2: what the sound shall be instead, in a file of diffusion.")
@click.option(
    "--from-step", type=click.IntRange(0, 255), default=0, metavar="T", help="Step from which on --prompt counts."
)
@click.option("--strict", is_flag=True, help="Refuse a damaged file instead of decoding what is whole.")
@click.option("--raw", is_flag=True, help="Bare 16-bit samples to standard output, without the header of a WAV.")
@click.option("--model", "-m", metavar="M", help="Model folder; models that the file tells are found by themselves.")
@loading_options("emphasis", "match_loudness")
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
    prompt: str | None,
    from_step: int,
    strict: bool,
    raw: bool,
    model: str | None,
    force: bool,
    loading: dict[str, Any],
) -> None:
    """Decode the .aldm file IN to the audio file OUT (WAV, FLAC, ... by its name). `-` is a pipe.

    To standard output, sound is written as soon as its packet is read.
    """
    if raw and target != "-":
        raise click.UsageError("--raw is for standard output")
    if from_step and prompt is None:
        raise click.UsageError("--from-step is for --prompt")
    with contextlib.ExitStack() as stack:
        out = stack.enter_context(output_file(target, force, live=True))
        started = time.perf_counter()
        stream = sys.stdin.buffer if source == "-" else stack.enter_context(open(source, "rb"))
        reader = StreamReader(stream)
        header = reader.header
        import_torch()
        from ..codec.audio.reader import write_audio
        from ..codec.audioldm2.checkpoint import tagged_model
        from ..codec.codec import Codec
        from ..codec.model_folder import model_with
        from ..codec.tags import MODEL_TAG, comment_value

        model = model or model_with(header.model) or tagged_model(tags := reader.tags())
        if model is None and (made := comment_value(tags, MODEL_TAG)):
            raise click.ClickException(f"the file needs model {header.model.hex()}, {made!r}: say where by --model")
        codec = Codec.from_pretrained(model, vocoder=vocoder, **loading)
        decoder = codec.decoder(reader, strict, layers, refine, prompt, from_step)
        blocks = decoder.blocks(original_rate, start, duration)
        rate = header.sample_rate if original_rate else codec.sample_rate
        if target == "-":
            from ..codec.audio.pcm import wav_header

            samples = decoder.length(original_rate, start, duration)
            samples = play(out, blocks, b"" if raw else wav_header(rate, header.channels, samples))
        else:
            bar, progress = _progress("decoding", duration or (header.samples or 0) / header.sample_rate)
            first = next(blocks, None)  # by now, comments are read
            with bar:
                everything = itertools.chain([] if first is None else [first], blocks)
                told = lambda n: progress(n / rate)  # noqa: E731
                tags = reader.comments
                samples = write_audio(out, everything, rate, header.channels, Path(target).suffix, told, tags)
        took = time.perf_counter() - started
    if refine and not decoder.refine:
        _say("note: this quality leaves nothing to refine; decoded as it is")
    if prompt is not None and not (decoder.refine or (header.layers and layers != "base")):
        _say("note: nothing is diffused here, so --prompt changes nothing; --refine N would")
    _say(f"{samples / rate:.2f} s, {header.channels} x {rate} Hz, in {took:.2f} s")
    if decoder.damage:
        for line in decoder.damage[:5]:
            _say(f"damage: {line}")
        _say(f"warning: {len(decoder.damage)} damaged places; {decoder.decoded} packets decoded, the others concealed")
        sys.exit(3)

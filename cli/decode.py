"""`aldm decode`: an .aldm file to sound."""

from __future__ import annotations

import sys
from typing import Any

import click

from ..format.stream import StreamReader
from .checkpoint import loading_options
from .files import open_input, output_file
from .messages import PARTIAL, Clock, detail, naming, note, printable, progress_bar, say, verbosity_options
from .names import check_sound_name, output_name
from .options import (
    Command,
    check_output_rate,
    force_option,
    output_rate_options,
    render_options,
    sample_options,
)
from .rendering import Sound, load_codec, sample_format, say_damage, suffix_of

MAX_DURATION_HOURS = 100.0
GROUPS = {
    "Options": ("start", "duration", "original_rate", "rate", "device", "force", "help"),
    "Output": ("bits", "as_float", "no_limiter", "raw", "strict", "max_duration", "quiet", "verbose"),
    "Sound": ("vocoder", "layers", "refine", "model"),
    "AudioLDM 2 checkpoints": ("prompt", "from_step", "dtype", "emphasis", "match_loudness"),
}
EXAMPLES = """
aldm decode talk.aldm                         # writes talk.wav
aldm decode talk.aldm part.flac --start 60 --duration 5
aldm decode talk.aldm - | ffmpeg -i - talk.m4a
ssh there 'cat live.aldm' | aldm decode - - | aplay
"""


@click.command(cls=Command, groups=GROUPS, examples=EXAMPLES)
@click.argument("source", metavar="IN")
@click.argument("target", metavar="[OUT]", required=False)
@click.option("--start", type=click.FloatRange(min=0), default=0.0, metavar="S", help="Begin at this second.")
@click.option("--duration", type=click.FloatRange(min=0, min_open=True), metavar="S", help="Decode this many seconds.")
@output_rate_options
@force_option
@sample_options
@click.option("--raw", is_flag=True, help="Bare samples to standard output, without the header of a WAV.")
@click.option("--strict", is_flag=True, help="Refuse a damaged file instead of decoding its intact parts.")
@click.option(
    "--max-duration",
    type=click.FloatRange(min=0, min_open=True),
    default=MAX_DURATION_HOURS,
    show_default=True,
    metavar="H",
    help="Refuse to write more than so many hours: a file of 1 kB can claim that.",
)
@render_options
@click.option("--model", "-m", metavar="M", help="Model folder; not needed if the file names its model.")
@click.option("--prompt", metavar="TEXT", help="Another description than the file's, for its diffusion.")
@click.option(
    "--from-step", type=click.IntRange(0, 255), default=0, metavar="T", help="Diffusion step at which --prompt begins."
)
@loading_options("emphasis", "match_loudness")
@verbosity_options
def decode(
    source: str,
    target: str | None,
    start: float,
    duration: float | None,
    original_rate: bool,
    rate: int | None,
    bits: str,
    as_float: bool,
    no_limiter: bool,
    vocoder: str | None,
    layers: str,
    refine: int,
    prompt: str | None,
    from_step: int,
    strict: bool,
    max_duration: float,
    raw: bool,
    model: str | None,
    force: bool,
    loading: dict[str, Any],
) -> None:
    """Decode the .aldm file IN to the audio file OUT.

    OUT is WAV, FLAC, Ogg, MP3 ... by its suffix; the name of IN with .wav behind it unless given; and may be a folder.
    `-` is standard input or output, where sound is written as soon as its packet is read.

    Exit codes: 0 done, 1 failed, 2 wrong usage, 3: the file was damaged; the intact parts were decoded.
    """
    target = output_name(source, target, ".wav")
    if raw and target != "-":
        raise click.UsageError("--raw is for standard output")
    if from_step and prompt is None:
        raise click.UsageError("--from-step is for --prompt")
    check_output_rate(original_rate, rate)
    check_sound_name(target)
    clock = Clock()
    with (
        open_input(source) as stream,
        naming(source),
        output_file(target, force, live=True, source=stream) as out,
    ):
        reader = StreamReader(stream)
        header = reader.header
        codec = load_codec(reader, model, {"vocoder": vocoder, **loading})
        detail(f"model {codec.model.name or model}, device {codec.model.device}")
        decoder = codec.decoder(
            reader, strict=strict, layers=layers, refine=refine, prompt=prompt, from_step=from_step,
            max_duration=3600 * max_duration,
        )  # fmt: skip
        rate = decoder.output_rate(original_rate, rate)
        blocks = decoder.blocks(start=start, duration=duration, rate=rate)
        sound = Sound(blocks, rate, header.channels, sample_format(bits, as_float), not no_limiter)
        if target == "-":
            samples = sound.stream(out, decoder.length(start=start, duration=duration, rate=rate), raw)
        else:
            bar, progress = progress_bar("decoding", duration or (header.samples or 0) / header.sample_rate)
            with bar:
                samples = sound.write(out, suffix_of(target), progress, lambda: reader.comments)
    if refine and not decoder.refine:
        note("this quality leaves nothing to refine; decoded as it is")
    if prompt is not None and not (decoder.refine or (header.layers and layers != "base")):
        note("nothing is diffused here, so --prompt changes nothing; --refine N would")
    shown = printable(source if target == "-" else target)
    say(f"{shown}: {samples / rate:.2f} s, {header.channels} x {rate} Hz, {clock.speed(samples / rate)}")
    sound.say_limited(shown)
    if say_damage(source, decoder):
        sys.exit(PARTIAL)

"""`aldm convert`: encode and decode in one go, to hear the effect of a bitrate."""

from __future__ import annotations

import sys
from typing import Any

import click

from ..format.container import Header
from .checkpoint import MODEL_HELP, loading_options
from .files import open_input, output_file
from .messages import PARTIAL, Clock, naming, note, printable, progress_bar, say, verbosity_options, warn
from .names import check_sound_name, output_name
from .options import Command, check_output_rate, force_option, output_rate_options, rate_options, sample_options
from .rendering import Sound, sample_format, suffix_of

GROUPS = {
    "Options": ("bitrate", "quality", "model", "device", "force", "help"),
    "Output": ("original_rate", "rate", "bits", "as_float", "no_limiter", "quiet", "verbose"),
    "Sound": ("vocoder",),
}
EXAMPLES = """
aldm convert talk.m4a heard.wav --bitrate 0.75
for rate in 0.5 0.75 1.5 3; do aldm convert talk.m4a talk-$rate.wav --bitrate $rate; done
"""


@click.command(cls=Command, groups=GROUPS, examples=EXAMPLES)
@click.argument("source", metavar="IN")
@click.argument("target", metavar="OUT")
@rate_options
@click.option("--model", "-m", metavar="M", help=MODEL_HELP)
@force_option
@output_rate_options
@sample_options
@click.option("--vocoder", type=click.Choice(["network", "griffin-lim", "hifi-gan", "hybrid"]), help="As for decode.")
@loading_options()
@verbosity_options
def convert(
    source: str,
    target: str,
    bitrate: float | None,
    quality: int | None,
    model: str | None,
    force: bool,
    original_rate: bool,
    rate: int | None,
    bits: str,
    as_float: bool,
    no_limiter: bool,
    vocoder: str | None,
    loading: dict[str, Any],
) -> None:
    """Encode the audio file IN, decode it again, and write the sound to OUT: how it would sound as an .aldm file.

    Exit codes: 0 done, 1 failed, 2 wrong usage, 3 done, but IN is cut or damaged.
    """
    if bitrate is not None and quality is not None:
        raise click.UsageError("give --bitrate or --quality, not both")
    check_output_rate(original_rate, rate)
    target = output_name(source, target, ".wav")
    check_sound_name(target)
    clock = Clock()
    with open_input(source) as stream, naming(source), output_file(target, force, live=True, source=stream) as out:
        from ..codec.audio.reader import AudioReader
        from ..codec.codec import Codec

        reader = AudioReader(stream)
        codec = Codec.from_pretrained(model, vocoder=vocoder, **loading)
        seconds = reader.samples / reader.sample_rate
        bar, progress = progress_bar("converting", 2 * seconds)
        with bar:
            data = codec.encode(reader, bitrate=bitrate, quality=quality, progress=progress)
            decoder = codec.decoder(data)
            rate, sample = decoder.output_rate(original_rate, rate), sample_format(bits, as_float)
            sound = Sound(decoder.blocks(rate=rate), rate, decoder.header.channels, sample, not no_limiter)
            if target == "-":
                sound.stream(out, None)
            else:
                sound.write(out, suffix_of(target), lambda done: progress(seconds + done), lambda: reader.tags)
    shown = printable(source if target == "-" else target)
    kbps, level = len(data) * 8 / seconds / 1000, Header.parse(data).quality
    say(f"{shown}: {seconds:.2f} s at {kbps:.3f} kbit/s, quality {level}, {clock.speed(seconds)}")
    sound.say_limited(shown)
    if bitrate is not None and kbps > bitrate:
        note(f"{shown}: cannot reach {bitrate:g} kbit/s; this is the smallest size these options allow")
    for warning in reader.warnings:
        warn(f"{printable(source)}: {warning}")
    if reader.truncated:
        sys.exit(PARTIAL)

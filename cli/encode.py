"""`aldm encode`: an audio file or live sound to an .aldm file."""

from __future__ import annotations

import sys
from typing import Any

import click

from ..format.container import NO_BASE, Header
from .checkpoint import MODEL_HELP, loading_options
from .files import open_input, output_file
from .live import encode_live
from .messages import (
    PARTIAL,
    Clock,
    WrongUsage,
    detail,
    naming,
    note,
    printable,
    progress_bar,
    say,
    verbosity_options,
    warn,
)
from .names import check_encoded_name, output_name
from .options import Command, force_option, rate_options

LOW_LATENCY = 0.32  # seconds in a packet
MIN_RATE_USE = 0.9  # of a bitrate: if the finest quality takes less, a note says so

GROUPS = {
    "Options": ("bitrate", "quality", "model", "device", "force", "help"),
    "Input and output": ("strict", "raw", "tags", "no_tags", "index", "quiet", "verbose"),
    "Full band and stereo": ("stereo", "no_high_band"),
    "Packets and latency": ("packet", "low_latency"),
    "Diffusion": ("layers", "steps", "codebook", "block", "atoms"),
    "AudioLDM 2 checkpoints": ("prompt", "dtype", "posterior", "std_limit"),
}
EXAMPLES = """
aldm encode talk.m4a                          # writes talk.aldm
aldm encode talk.wav small.aldm --bitrate 0.75
ffmpeg -i film.mkv -f wav - | aldm encode - film.aldm
arecord -f S16_LE -r 16000 | aldm encode - live.aldm --low-latency
"""


@click.command(cls=Command, groups=GROUPS, examples=EXAMPLES)
@click.argument("source", metavar="IN")
@click.argument("target", metavar="[OUT]", required=False)
@rate_options
@click.option("--model", "-m", metavar="M", help=MODEL_HELP)
@force_option
@click.option("--strict", is_flag=True, help="Refuse a damaged or cut input instead of encoding what is there.")
@click.option(
    "--raw", metavar="RATE[:CHANNELS[:SAMPLE]]",
    help="IN is bare samples: u8, s16 (default), s24, s32, f32, f64, mulaw or alaw.",
)  # fmt: skip
@click.option("--tag", "tags", multiple=True, metavar="NAME=VALUE", help="Store it in the file. May be repeated.")
@click.option("--no-tags", is_flag=True, help="Do not take over the tags of IN.")
@click.option("--index", is_flag=True, help="Write where packets are, for readers that cannot scan the file.")
@click.option(
    "--stereo", type=click.Choice(["auto", "parametric", "discrete", "mono"]), default="auto", show_default=True,
    help="Two channels. parametric: one coded channel and the stereo image as parameters; discrete: two coded "
    "channels; mono: mixed to one; auto: parametric below 12 kbit/s.",
)  # fmt: skip
@click.option("--no-high-band", is_flag=True, help="Leave out what is above 8 kHz, instead of describing it.")
@click.option("--packet", type=click.FloatRange(0.16, 10.24), metavar="S", help="Packet length.  [default: 10.24 s]")
@click.option("--low-latency", is_flag=True, help=f"For live sound: packets of {LOW_LATENCY} s, which cost more bits.")
@click.option(
    "--layers", type=click.Choice(["base", "both", "ddcm"]), default="base", show_default=True,
    help="base: codebook indices; both: with an enhancement layer (DDCM) on top; ddcm: that alone.",
)  # fmt: skip
@click.option("--steps", type=click.IntRange(2, 255), metavar="N", help="DDCM: diffusion steps.  [default: 14 to 40]")
@click.option("--codebook", type=click.IntRange(1), metavar="K", help="DDCM: codebook size, a power of two.")
@click.option(
    "--block", type=click.IntRange(1, 64), metavar="V",
    help="DDCM: latent vectors (160 ms; AudioLDM 2: 40 ms) that share a pick.",
)  # fmt: skip
@click.option("--atoms", type=click.IntRange(1, 64), metavar="M", help="DDCM: picks for each block and step.")
@click.option("--prompt", metavar="TEXT", help="Description of the sound for the diffusion; stored in the file.")
@loading_options("posterior", "std_limit")
@verbosity_options
def encode(
    source: str,
    target: str | None,
    bitrate: float | None,
    quality: int | None,
    layers: str,
    steps: int | None,
    prompt: str | None,
    model: str | None,
    packet: float | None,
    low_latency: bool,
    stereo: str,
    no_high_band: bool,
    strict: bool,
    raw: str | None,
    tags: tuple[str, ...],
    no_tags: bool,
    index: bool,
    force: bool,
    loading: dict[str, Any],
    **sizes: int | None,
) -> None:
    """Encode the audio file IN as the .aldm file OUT.

    IN is anything that libsndfile or FFmpeg reads: WAV, FLAC, MP3, Ogg, M4A, WMA, the sound of a video ... OUT is the
    name of IN with .aldm behind it unless given, and may be a folder. `-` is standard input or output. WAV and raw
    samples from a pipe are encoded while they come; Ctrl-C ends them.

    Exit codes: 0 done, 1 failed, 2 wrong usage, 3 done, but IN is cut or damaged.
    """
    if bitrate is not None and quality is not None and layers != "both":
        raise click.UsageError("give --bitrate or --quality, not both")
    if packet is not None and low_latency:
        raise click.UsageError("give --packet or --low-latency, not both")
    given = {name: value for name, value in {"steps": steps, **sizes}.items() if value is not None}
    if layers == "base" and given:
        raise click.UsageError(f"--{next(iter(given))} is for --layers both and ddcm")
    if raw and (layers != "base" or index):
        raise click.UsageError("streams have no enhancement layers and no index")
    target = output_name(source, target, ".aldm")
    check_encoded_name(target, source)
    clock = Clock()
    with open_input(source) as stream, naming(source):
        piped = not stream.seekable() and layers == "base" and not index
        with output_file(target, force, live=piped or bool(raw), source=stream) as out:
            from ..codec.audio.pcm import Format
            from ..codec.audio.reader import AudioReader, spool
            from ..codec.audio.wav import WavHeader, WavSamples, read_wav_header
            from ..codec.codec import PACKET_SECONDS, Codec
            from ..codec.diffusion.ddcm import DDCM

            loading["packet_seconds"] = LOW_LATENCY if low_latency else packet or PACKET_SECONDS
            ddcm = DDCM(**given) if given.keys() - {"steps"} else None
            header, start = read_wav_header(stream) if piped and not raw else (None, b"")
            if raw:
                try:
                    header = WavHeader(Format.parse(raw), None)
                except ValueError as error:
                    raise WrongUsage(f"--raw: {error}") from error
            codec = Codec.from_pretrained(model, **loading)
            detail(f"model {codec.model.name or model}, device {codec.model.device}")
            level, warnings = None, list[str]()
            bands: dict[str, Any] = {"high_band": not no_high_band, "stereo": stereo}
            if header is not None:
                samples = WavSamples(stream, header)
                rates = {"bitrate": bitrate, "quality": quality, "comments": tags, **bands}
                seconds, size = encode_live(codec, samples, out, rates)
                cut = samples.truncated
                warnings = [samples.shortfall] if cut else []
            else:
                reader = AudioReader(stream if stream.seekable() else spool(stream, start))
                seconds, cut, warnings = reader.samples / reader.sample_rate, reader.truncated, reader.warnings
                if strict and cut:
                    raise click.ClickException(f"{printable(source)}: {warnings[-1]}; --strict refuses it")
                comments = [*([] if no_tags else _kept_tags(reader.tags, bitrate, seconds)), *tags]
                bar, progress = progress_bar("encoding", seconds)
                with bar:
                    data = codec.encode(
                        reader, bitrate=bitrate, quality=quality, layers=layers, ddcm=ddcm, steps=steps, prompt=prompt,
                        comments=comments, index=index, progress=progress, **bands,
                    )  # fmt: skip
                out.write(data)
                size, level = len(data), Header.parse(data).quality
            if strict and cut:
                raise click.ClickException(f"{printable(source)}: {warnings[-1]}; --strict refuses it")
    kbps = size * 8 / seconds / 1000
    quality_name = "live" if level is None else "no base layer" if level == NO_BASE else f"quality {level}"
    shown = printable(source if target == "-" else target)
    say(f"{shown}: {seconds:.2f} s -> {size} bytes, {kbps:.3f} kbit/s, {quality_name}, {clock.speed(seconds)}")
    if bitrate is not None and kbps > bitrate:
        note(f"{shown}: cannot reach {bitrate:g} kbit/s; this is the smallest size these options allow")
    if bitrate is not None and level == codec.levels - 1 and kbps < MIN_RATE_USE * bitrate:
        note(f"{shown}: cannot use {bitrate:g} kbit/s; this is the finest quality")
    for warning in warnings:
        warn(f"{printable(source)}: {warning}")
    if cut:
        sys.exit(PARTIAL)


def _kept_tags(tags: list[str], bitrate: float | None, seconds: float) -> list[str]:
    """The tags of an input that leave enough of the bitrate for the sound; the others are named."""
    from ..codec.tags import affordable_tags

    kept, dropped = affordable_tags(tags, bitrate, seconds)
    if dropped:
        names = ", ".join(f"{tag.partition('=')[0]} ({len(tag.encode(errors='replace'))} bytes)" for tag in dropped)
        note(f"tags left out, which would take more than 5 % of the bitrate: {names}; --tag adds them")
    return kept

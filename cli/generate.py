"""`aldm generate`: sound that nobody made, at random or after a text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .checkpoint import MODEL_HELP, loading_options
from .files import output_file

TEXT_STEPS = 200
FOR_AUDIO = ("guidance", "negative", "scheduler", "vocoder", "emphasis", "match_loudness")


@click.command()
@click.argument("words", nargs=-1, required=True, metavar="[PROMPT] OUT")
@click.option("--seconds", type=click.FloatRange(0.01, 3600), default=10.0, show_default=True, help="Duration.")
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True, help="Of the randomness.")
@click.option(
    "--steps", type=click.IntRange(2, 1000), help=f"Of the diffusion.  [default: 14; with PROMPT {TEXT_STEPS}]"
)
@click.option("--model", "-m", metavar="M", help=MODEL_HELP)
@click.option("--negative", default="", metavar="TEXT", help="What the sound shall not be.")
@click.option(
    "--guidance", type=click.FloatRange(0, 100), default=3.5, show_default=True, help="How much PROMPT counts."
)
@click.option(
    "--scheduler",
    type=click.Choice(["ddim", "dpm", "euler", "lms", "pndm", "unipc"]),
    default="ddim",
    show_default=True,
    help="Of diffusers.",
)
@click.option(
    "--candidates",
    type=click.IntRange(1, 4096),
    metavar="N",
    help="For .aldm: random picks among which PROMPT chooses each.  [default: 64]",
)
@click.option(
    "--vocoder", type=click.Choice(["hifi-gan", "hybrid", "griffin-lim"]), help="For a WAV.  [default: hifi-gan]"
)
@click.option("--force", "-f", is_flag=True, help="Replace OUT if it exists.")
@loading_options("emphasis", "match_loudness")
def generate(
    words: tuple[str, ...],
    seconds: float,
    seed: int,
    steps: int | None,
    model: str | None,
    negative: str,
    guidance: float,
    scheduler: str,
    candidates: int | None,
    vocoder: str | None,
    force: bool,
    loading: dict[str, Any],
) -> None:
    """Write an .aldm file OUT of sound that nobody made: a diffusion whose noise is picked at random.

    With a PROMPT and an AudioLDM 2 model that has its text encoders: the sound that it describes. OUT is an .aldm file,
    whose picks the prompt led (DDCM; --candidates, up to 255 steps), or audio such as WAV (--guidance, --negative,
    --scheduler).
    """
    if len(words) > 2:
        raise click.UsageError("one PROMPT, in quotes, and OUT")
    *prompts, target = words
    prompt = prompts[0] if prompts else None
    to_file = target == "-" or Path(target).suffix.lower() == ".aldm"
    if prompt is None and not to_file:
        raise click.UsageError("without a PROMPT, OUT is an .aldm file")
    if prompt is not None and model is None:
        raise click.UsageError("a PROMPT needs --model: music, speech, large, or a folder")
    for name in FOR_AUDIO if to_file else ("candidates",):
        if _given(name, loading):
            raise click.UsageError(f"--{name.replace('_', '-')} is {'not ' * to_file}for .aldm files")
    if prompt is None and candidates is not None:
        raise click.UsageError("--candidates is for a PROMPT")
    with output_file(target, force) as out:
        from ..codec.codec import Codec

        if vocoder is not None:
            loading["vocoder"] = vocoder
        codec = Codec.from_pretrained(model, **loading)
        if to_file:
            data = _file(codec, seconds, seed, steps, prompt, candidates)
            out.write(data)
            click.echo(f"{seconds:.2f} s, {len(data)} bytes", err=True)
        else:
            from ..codec.audio.writer import write_audio

            options: dict[str, Any] = {"guidance": guidance, "negative": negative, "scheduler": scheduler}
            wave = codec.synthesize(str(prompt), seconds, seed, steps=steps or TEXT_STEPS, **options)
            samples = write_audio(out, iter([wave]), codec.sample_rate, 1, Path(target).suffix, lambda done: None)
            click.echo(f"{samples / codec.sample_rate:.2f} s", err=True)


def _given(name: str, loading: dict[str, Any]) -> bool:
    """Whether the user gave an option."""
    source = click.get_current_context().get_parameter_source(name)
    return name in loading or source == click.core.ParameterSource.COMMANDLINE


def _file(
    codec: Any, seconds: float, seed: int, steps: int | None, prompt: str | None, candidates: int | None
) -> bytes:
    from ..codec.diffusion.ddcm import DDCM

    if prompt is None:
        return codec.generate(seconds, seed, DDCM(steps or DDCM.steps))
    from ..codec.generation import generation_setting

    return codec.generate(seconds, seed, generation_setting(steps or TEXT_STEPS), prompt, candidates)

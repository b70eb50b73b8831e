"""`aldm generate`: unconditional generation, or generation from a text."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .checkpoint import MODEL_HELP, loading_options
from .files import output_file
from .messages import naming, printable, say, verbosity_options
from .options import Command, force_option

if TYPE_CHECKING:
    from ..codec.codec import Codec

TEXT_STEPS = 200
FOR_AUDIO = ("guidance", "negative", "scheduler", "vocoder", "emphasis", "match_loudness")


GROUPS = {
    "Options": ("seconds", "seed", "steps", "model", "device", "force", "help"),
    "With a PROMPT": ("negative", "guidance", "scheduler", "candidates", "vocoder"),
    "AudioLDM 2 checkpoints": ("dtype", "emphasis", "match_loudness"),
}
EXAMPLES = """
aldm generate noise.aldm --seconds 5 --seed 3
aldm generate "techno with a strong beat" beat.wav --model music --steps 200
"""


@click.command(cls=Command, groups=GROUPS, examples=EXAMPLES)
@click.argument("words", nargs=-1, required=True, metavar="[PROMPT] OUT")
@click.option("--seconds", type=click.FloatRange(0.01, 3600), default=10.0, show_default=True, help="Duration.")
@click.option(
    "--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True, help="Seed of the random numbers."
)
@click.option(
    "--steps", type=click.IntRange(2, 1000), help=f"Diffusion steps.  [default: 14; with PROMPT {TEXT_STEPS}]"
)
@click.option("--model", "-m", metavar="M", help=MODEL_HELP)
@click.option("--negative", default="", metavar="TEXT", help="Description of what the sound shall not be.")
@click.option(
    "--guidance",
    type=click.FloatRange(0, 100),
    default=3.5,
    show_default=True,
    help="Weight of PROMPT (classifier-free guidance).",
)
@click.option(
    "--scheduler",
    type=click.Choice(["ddim", "dpm", "euler", "lms", "pndm", "unipc"]),
    default="ddim",
    show_default=True,
    help="Scheduler of diffusers.",
)
@click.option(
    "--candidates",
    type=click.IntRange(1, 4096),
    metavar="N",
    help="For .aldm: number of random picks from which PROMPT chooses.  [default: 64]",
)
@click.option(
    "--vocoder", type=click.Choice(["hifi-gan", "hybrid", "griffin-lim"]), help="For a WAV.  [default: hifi-gan]"
)
@force_option
@loading_options("emphasis", "match_loudness")
@verbosity_options
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
    """Generate an .aldm file OUT by diffusion from random noise.

    With a PROMPT and an AudioLDM 2 model that has its text encoders: the sound that it describes. OUT is an .aldm file
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
    with naming(target), output_file(target, force) as out:
        from ..codec.codec import Codec

        if vocoder is not None:
            loading["vocoder"] = vocoder
        codec = Codec.from_pretrained(model, **loading)
        if to_file:
            data = _file(codec, seconds, seed, steps, prompt, candidates)
            out.write(data)
            say(f"{printable(target)}: {seconds:.2f} s, {len(data)} bytes")
        else:
            from .rendering import Sound

            options: dict[str, Any] = {"guidance": guidance, "negative": negative, "scheduler": scheduler}
            wave = codec.synthesize(str(prompt), seconds, seed, steps=steps or TEXT_STEPS, **options)
            sound = Sound([wave], codec.sample_rate, 1, "s16", True)
            samples = sound.write(out, Path(target).suffix, lambda done: None, list)
            sound.say_limited(target)
            say(f"{printable(target)}: {samples / codec.sample_rate:.2f} s")


def _given(name: str, loading: dict[str, Any]) -> bool:
    """Whether the user gave an option."""
    source = click.get_current_context().get_parameter_source(name)
    return name in loading or source == click.core.ParameterSource.COMMANDLINE


def _file(
    codec: Codec, seconds: float, seed: int, steps: int | None, prompt: str | None, candidates: int | None
) -> bytes:
    from ..codec.diffusion.ddcm import DDCM

    if prompt is None:
        return codec.generate(seconds, seed, DDCM(steps or DDCM.steps))
    from ..codec.generation import generation_setting

    return codec.generate(seconds, seed, generation_setting(steps or TEXT_STEPS), prompt, candidates)

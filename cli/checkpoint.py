"""Options for loading models, most of them for AudioLDM 2 checkpoints; its warnings are printed as notes."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any, TextIO

import click

from ..codec.errors import AldmWarning

MODEL_HELP = "Model in the package, model folder, or AudioLDM 2: music, speech, large."
DEVICE_HELP = "Where networks run: cpu (default), cuda, ...; auto: a GPU if there is one."
OPTIONS: dict[str, Callable[..., Any]] = {
    "device": click.option("--device", metavar="D", help=DEVICE_HELP),
    "dtype": click.option(
        "--dtype",
        type=click.Choice(["float32", "float16", "bfloat16"]),
        help="AudioLDM 2: numbers of the networks.  [default: float16 on a GPU, else float32]",
    ),
    "posterior": click.option(
        "--posterior",
        type=click.FloatRange(0, 1),
        metavar="P",
        help="AudioLDM 2: latents from the posterior's mode (0, default), a sample of it (1), or between.",
    ),
    "std_limit": click.option(
        "--std-limit",
        type=click.FloatRange(min=0, min_open=True),
        metavar="S",
        help="AudioLDM 2: largest deviation of the posterior that is sampled.",
    ),
    "emphasis": click.option(
        "--emphasis", type=click.FloatRange(-12, 12), metavar="DB", help="AudioLDM 2: raise the sound from 4 to 8 kHz."
    ),
    "match_loudness": click.option(
        "--match-loudness", is_flag=True, default=None, help="AudioLDM 2: HiFi-GAN as loud as its log-mel."
    ),
}


def loading_options(*names: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Adds `--device`, `--dtype` and the options named to a command, which gets those given as a dict `loading`."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        wanted = ("device", "dtype", *names)

        @functools.wraps(command)
        def wrapper(**options: Any) -> None:
            loading = {name: value for name in wanted if (value := options.pop(name)) is not None}
            with warnings.catch_warnings():
                warnings.simplefilter("always", AldmWarning)
                warnings.showwarning = _show(warnings.showwarning)
                command(loading=loading, **options)

        for name in reversed(wanted):
            wrapper = OPTIONS[name](wrapper)
        return wrapper

    return decorate


def _show(otherwise: Callable[..., None]) -> Callable[..., None]:
    def show(
        message: Warning | str, category: type[Warning], file: str, line: int, out: TextIO | None = None, *more: Any
    ) -> None:
        if issubclass(category, AldmWarning):
            click.echo(f"note: {message}", err=True)
        else:
            otherwise(message, category, file, line, out, *more)

    return show

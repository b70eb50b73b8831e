"""Help in groups with examples, and options that several commands share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import click

from ..format.container import MAX_RATE

Function = TypeVar("Function", bound=Callable[..., Any])

DEFAULT_QUALITY = "24, about 1.2 kbit/s for speech"


class Command(click.Command):
    """A command whose help lists options by groups, the most needed first, and ends with examples.

    Args:
        groups: titles and the options of each, by the names of their parameters; what is in none comes last.
        examples: command lines.
    """

    def __init__(
        self, *args: Any, groups: Mapping[str, Sequence[str]] | None = None, examples: str = "", **kwargs: Any
    ):
        super().__init__(*args, **kwargs)
        self._groups, self._examples = groups or {}, examples

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the groups."""
        options = [option for option in self.get_params(ctx) if isinstance(option, click.Option)]
        records = {
            "help" if "--help" in option.opts else option.name: record
            for option in options
            if (record := option.get_help_record(ctx)) is not None
        }
        grouped = {name for names in self._groups.values() for name in names}
        rest = [name for name in records if name not in grouped]
        for title, names in [*self._groups.items(), ("Other options" if self._groups else "Options", rest)]:
            if rows := [records[name] for name in names if name in records]:
                with formatter.section(title):
                    formatter.write_dl(rows)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples."""
        if self._examples:
            with formatter.section("Examples"):
                for line in self._examples.strip().splitlines():
                    formatter.write(f"  {line.strip()}\n")


def rate_options(command: Function) -> Function:
    """Adds --bitrate and --quality."""
    bitrate = click.option(
        "--bitrate", "-b", type=click.FloatRange(min=0, min_open=True), metavar="KBPS",
        help="Upper limit for the whole file, in kbit/s of its duration: 0.3 to 6.",
    )  # fmt: skip
    quality = click.option(
        "--quality", "-q", type=click.IntRange(min=0), metavar="Q",
        help=f"Constant quality instead of a bitrate, 0 (coarsest) to 47.  [default: {DEFAULT_QUALITY}]",
    )  # fmt: skip
    return bitrate(quality(command))


def force_option(command: Function) -> Function:
    """Adds --force."""
    return click.option("--force", "-f", is_flag=True, help="Replace OUT if it exists.")(command)


def output_rate_options(command: Function) -> Function:
    """Adds --original-rate and --rate."""
    original = click.option(
        "--original-rate", is_flag=True,
        help="Resample to the rate of the original instead of 16 kHz; files with a high band always are.",
    )  # fmt: skip
    rate = click.option(
        "--rate", type=click.IntRange(1000, MAX_RATE), metavar="HZ",
        help="Sampling rate of OUT; at 16000 or less the high band is left out.",
    )  # fmt: skip
    return original(rate(command))


def check_output_rate(original_rate: bool, rate: int | None) -> None:
    """Raise what a user who gave both is told."""
    if original_rate and rate is not None:
        raise click.UsageError("give --original-rate or --rate, not both")


def render_options(command: Function) -> Function:
    """Adds what commands share that turn an .aldm file into sound."""
    options = [
        click.option(
            "--vocoder", type=click.Choice(["network", "griffin-lim", "hifi-gan", "hybrid"]),
            help="network: Griffin-Lim between the model's networks (default if it has them); griffin-lim: without "
            "networks. AudioLDM 2: hifi-gan (default), griffin-lim, or both (hybrid).",
        ),
        click.option("--layers", type=click.Choice(["all", "base"]), default="all", help="base: ignore enhancement."),
        click.option(
            "--refine", type=click.IntRange(0, 255), default=0, metavar="N",
            help="Diffusion steps that replace what the quantiser removed by seeded noise.",
        ),
    ]  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command


def sample_options(command: Function) -> Function:
    """Adds the sample format of sound that is written."""
    options = [
        click.option(
            "--bits", type=click.Choice(["16", "24"]), default="16", show_default=True, help="Bits of integer samples."
        ),
        click.option("--float", "as_float", is_flag=True, help="32-bit float samples, never limited."),
        click.option("--no-limiter", is_flag=True, help="Clip sound beyond full scale instead of limiting it."),
    ]
    for option in reversed(options):
        command = option(command)
    return command

"""`aldm fit`: make a model from audio by a recipe; `aldm fit-checkpoint`: learn what an AudioLDM 2 checkpoint lacks."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from .checkpoint import loading_options

data_argument = click.argument("data", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
out_option = click.option("--out", required=True, type=click.Path(path_type=Path), help="Model folder to write.")
WORK_HELP = "Cache of samples, checkpoints and log.  [default: OUT with .work behind]"
work_option = click.option("--work", type=click.Path(path_type=Path), help=WORK_HELP)


def _say(line: str) -> None:
    click.echo(f"{time.strftime('%H:%M:%S')}  {line}", err=True)


@click.command()
@click.argument("recipe")
@data_argument
@out_option
@work_option
@click.option("--stage", metavar="NAME", help="Run this stage alone; those before it must be done.")
@click.option(
    "--set", "overrides", multiple=True, metavar="STAGE.KEY=VALUE", help="Change the recipe. May be repeated."
)
def fit(
    recipe: str, data: tuple[Path, ...], out: Path, work: Path | None, stage: str | None, overrides: tuple[str, ...]
) -> None:
    """Make a model by RECIPE (base, klt, or a TOML file) from the audio in folders or tar shards DATA.

    A stopped run is resumed; finished stages are not run again. Losses go to log.jsonl in the work
    folder. docs/training.md describes recipes.
    """
    from ..codec.fit import read_recipe, run_recipe

    read = read_recipe(recipe, overrides)
    work = work or out.with_name(out.name + ".work")
    if run_recipe(read, list(data), out, work, _say, stage) is not None:
        click.echo(f"wrote {out}", err=True)


@click.command("fit-checkpoint")
@click.argument("checkpoint")
@data_argument
@out_option
@work_option
@click.option("--table-hours", default=1.0, show_default=True, help="Audio to count tables on.")
@click.option("--tokens", default=16, show_default=True, help="Of the vector codebook per latent vector; 0: none.")
@loading_options()
def fit_checkpoint(
    checkpoint: str, data: tuple[Path, ...], out: Path, work: Path | None, loading: dict[str, Any], **options: Any
) -> None:
    """Learn tables and a vector codebook for an AudioLDM 2 CHECKPOINT (music, speech, large, or a folder) from DATA.

    Its networks stay as they are.
    """
    from ..codec.audioldm2.checkpoint import is_checkpoint
    from ..codec.fit.checkpoint import fit_checkpoint as learn

    if not is_checkpoint(checkpoint):
        raise click.UsageError(f"{checkpoint} is no AudioLDM 2 checkpoint; for other models there is aldm fit")
    work = work or out.with_name(out.name + ".work")
    learn(checkpoint, list(data), out, work, _say, **loading, **options)
    click.echo(f"wrote {out}", err=True)

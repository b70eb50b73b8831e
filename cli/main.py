"""The `aldm` command: each subcommand parses, calls, reports. Heavy modules load inside the subcommands."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import click

from .batch import batch
from .bench import analyze, bench
from .checkpoint import loading_options
from .convert import convert
from .decode import decode
from .encode import encode
from .generate import generate
from .info import info
from .messages import one_line
from .play import play

# Before torch is imported. Threads that wait by spinning make two commands at once on two cores three to ten times
# slower than one alone; threads that never spin make one alone half as slow again. GNU's OpenMP can spin for a few
# microseconds.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "1000")


class Group(click.Group):
    """Turns the library's errors into one line on stderr and exit code 1; lists commands in the order of their use."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order in which they were added."""
        return list(self.commands)

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
            raise click.ClickException(one_line(error)) from error


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="aldm")
def main() -> None:
    """Neural audio codec with a compact, versioned bitstream: 0.3 to 6 kbit/s.

    Exit codes: 0 done, 1 failed, 2 wrong usage, 3 the input was damaged or cut; its intact parts were taken.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that temporary files are removed


for command in (encode, decode, play, convert, info, batch, bench, analyze, generate):
    main.add_command(command)


@main.command()
@click.argument("data", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Model folder to write.")
@click.option("--work", type=click.Path(path_type=Path), help="Cache and checkpoints; default: OUT with .work behind.")
@click.option("--init", metavar="M", help="Model that goes on learning, instead of one that starts anew.")
@click.option("--model", "-m", metavar="M", help="AudioLDM 2 checkpoint to learn tables and codebooks for.")
@loading_options()
@click.option("--steps", default=30000, show_default=True, help="Training steps; 0 leaves the linear transform alone.")
@click.option("--weigh/--no-weigh", default=None, help="Finer steps for what is heard; default: if --steps or grown.")
@click.option("--predictor-steps", default=1500, show_default=True, help="Further steps, of the predictor; 0: none.")
@click.option("--decoder-steps", default=5000, show_default=True, help="Further steps, of the decoding side; 0: none.")
@click.option("--corrector-steps", default=5000, show_default=True, help="Further steps, behind Griffin-Lim; 0: none.")
@click.option("--joint-steps", default=3000, show_default=True, help="Further steps, of both together; 0: none.")
@click.option("--denoiser-steps", default=12000, show_default=True, help="Further steps, of the denoiser; 0: none.")
@click.option("--tokens", default=16, show_default=True, help="Of the vector codebook per latent vector; 0: none.")
@click.option("--n-mels", default=96, show_default=True, help="Bands of the front-end.")
@click.option("--channels", type=click.IntRange(1), help="Latent channels.  [default: 640, or as --init has]")
@click.option("--width", default=384, show_default=True, help="Channels of the autoencoder's convolutions.")
@click.option("--decoder-width", default=512, show_default=True, help="Channels of the magnitude network.")
@click.option("--batch-size", default=16, show_default=True, help="Examples of 3.84 s.")
@click.option("--table-hours", default=1.0, show_default=True, help="Audio to count tables on.")
@click.option("--seed", default=0, show_default=True, help="Of the training examples.")
def fit(
    data: tuple[Path, ...], out: Path, work: Path | None, model: str | None, loading: dict[str, Any], **options: Any
) -> None:
    """Fit a model to the audio in folders or tar shards DATA. Goes on where a stopped run left off.

    With --model, only --table-hours and --tokens count: the networks stay as they are.
    """
    work = work or out.with_name(out.name + ".work")

    def progress(line: str) -> None:
        click.echo(f"{time.strftime('%H:%M:%S')}  {line}", err=True)

    if model is None:
        if loading:
            raise click.UsageError(f"--{next(iter(loading))} is for --model")
        from ..codec.fit import fit_model

        fit_model(list(data), out, work, progress, **options)
    else:
        from ..codec.audioldm2.checkpoint import is_checkpoint
        from ..codec.fit.checkpoint import fit_checkpoint

        if not is_checkpoint(model) or options["init"] is not None:
            raise click.UsageError("--model is for AudioLDM 2 checkpoints; --init for others")
        chosen: dict[str, Any] = {name: options[name] for name in ("table_hours", "tokens")}
        fit_checkpoint(model, list(data), out, work, progress, **loading, **chosen)
    click.echo(f"wrote {out}", err=True)

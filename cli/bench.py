"""`aldm bench` and `aldm analyze`: objective measures of what a bitrate sounds like."""

from __future__ import annotations

import importlib.util
import json
import shlex
import sys
from pathlib import Path

import click

DOMAINS = ("speech", "music", "environment")


def _bitrates(context: click.Context, parameter: click.Parameter, value: str) -> list[float]:
    try:
        rates = [float(rate) for rate in value.split(",")]
    except ValueError:
        raise click.BadParameter(f"{value!r} is not a list of numbers, such as 0.75,1.5") from None
    if not all(0 < rate < 1000 for rate in rates):
        raise click.BadParameter("bitrates are in kbit/s, above 0 and below 1000")
    return rates


def _need_packages() -> None:
    """Fail before any work if packages that every run needs are not installed."""
    needed = ("bjontegaard", "matplotlib", "pesq", "pystoi", "scipy", "visqol")
    if missing := [name for name in needed if importlib.util.find_spec(name) is None]:
        raise click.ClickException(f"packages are missing ({', '.join(missing)}): pip install 'aldm[bench]'")


def _say(line: str) -> None:
    click.echo(line, err=True)


@click.command()
@click.argument("clips", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option(
    "--codec",
    "codecs",
    multiple=True,
    metavar="C",
    help="NAME, NAME:MODEL, NAME:FOLDER, any with @R1,R2 (kbit/s); repeat for more.",
)
@click.option(
    "--command", "commands", multiple=True, type=(str, str, str), metavar="NAME ENCODE DECODE",
    help="Any codec, as two shell commands with {in}, {bits}, {out}, {bitrate} and {rate} in them; repeat.",
)  # fmt: skip
@click.option("--bitrate", default="0.75,1.5,3,6", show_default=True, callback=_bitrates, help="kbit/s, with commas.")
@click.option("--out", required=True, type=click.Path(path_type=Path, file_okay=False), help="Folder of the results.")
@click.option(
    "--domain",
    default="music",
    show_default=True,
    type=click.Choice(DOMAINS),
    help="Of clips whose name does not begin with it.",
)
@click.option("--anchor", metavar="C", help="Codec that rate savings refer to; default: the first that is not aldm.")
@click.option("--jobs", "-j", default=1, show_default=True, type=click.IntRange(1), help="Processes.")
@click.option("--listen", default=3, show_default=True, type=click.IntRange(0), help="Clips per domain to listen to.")
@click.option(
    "--yamnet", type=click.Path(exists=True, dir_okay=False, path_type=Path), metavar="FILE",
    help="YAMNet as TFLite (0.975 s of sound in), for the distance between sets of any sounds.",
)  # fmt: skip
@click.option(
    "--fullband", is_flag=True,
    help="Code and measure at the clips' own rate and in stereo; codecs that cannot get 16 kHz mono.",
)  # fmt: skip
@click.option(
    "--ratings", multiple=True, type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="File that a blind session of the report exported, for its table of ratings; repeat for more.",
)  # fmt: skip
def bench(
    clips: tuple[Path, ...],
    codecs: tuple[str, ...],
    commands: tuple[tuple[str, str, str], ...],
    bitrate: list[float],
    out: Path,
    domain: str,
    anchor: str | None,
    jobs: int,
    listen: int,
    yamnet: Path | None,
    fullband: bool,
    ratings: tuple[Path, ...],
) -> None:
    """Measure codecs on CLIPS (files or folders): bitrate against fidelity, naturalness, speed and memory.

    Codecs: aldm; with its diffusion aldm-refine, aldm-both and aldm-ddcm (:N steps); its tokens aldm-vq; its ceilings
    exact-mel and unquantized; opus, codec2, lyra:FOLDER, encodec, dac, mimi, and any pair of commands. The originals
    are always rated too, by the metrics that need no reference. Metrics whose package is missing are skipped.
    Writes results.tsv, results.json, table.md, curves and report.html into --out. The same command resumes a
    stopped run, and adds metrics that were missing before.
    """
    _need_packages()
    from ..bench.codecs import Commands
    from ..bench.plots import plot_curves
    from ..bench.report import write_report
    from ..bench.run import bench as run
    from ..bench.sources import BenchError
    from ..bench.statistics import read_ratings
    from ..bench.table import COLUMNS, markdown_table

    try:
        named = [Commands(*triple) for triple in commands]
        with click.progressbar(length=1000, label="measuring", file=sys.stderr, hidden=not sys.stderr.isatty()) as bar:
            results = run(
                clips,
                [*(codecs or (() if named else ("aldm", "opus"))), *named],
                bitrate,
                out,
                domain=domain,
                anchor=anchor,
                jobs=jobs,
                listen=listen,
                yamnet=yamnet,
                fullband=fullband,
                command="aldm " + shlex.join(sys.argv[1:]),
                say=_say,
                progress=lambda done, total: bar.update(1000 * done // total - bar.pos),
            )
        results["ratings"] = read_ratings(ratings)
    except (BenchError, ValueError) as error:
        raise click.ClickException(str(error)) from error
    (out / "results.json").write_text(json.dumps(results, indent=1))
    plot_curves(results, out)
    (out / "table.md").write_text(markdown_table(results))
    report = write_report(out)
    for row in results["summary"]:
        shown = {name: value for name, value in row["metrics"].items() if name in COLUMNS}
        metrics = "  ".join(f"{name} {value['mean']:.3f}" for name, value in shown.items())
        rate = "" if row["kbps"] is None else f"{row['kbps']:.2f} kbit/s"
        click.echo(f"{row['codec']:12} {row['domain']:11} n={row['n']:<3} {rate:12}  {metrics}")
    failed = [row for row in results["rows"] if row["error"]]
    for row in failed[:5]:
        _say(f"failed: {row['codec']} at {row['setting']} on {row['clip']}: {row['error']}")
    _say(f"wrote {report}" + (f"; {len(failed)} of {len(results['rows'])} results failed" if failed else ""))
    if failed:
        sys.exit(3)


@click.command()
@click.argument("clip", metavar="FILE", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path, file_okay=False), help="Folder to write.")
@click.option("--bitrate", default="0.75,1.5,3,6", show_default=True, callback=_bitrates, help="kbit/s, with commas.")
@click.option("--domain", type=click.Choice(DOMAINS), help="Default: what the name begins with, or music.")
@click.option("--model", "-m", default="", metavar="M", help="Embedded model or model folder.")
def analyze(clip: Path, out: Path, bitrate: list[float], domain: str | None, model: str) -> None:
    """Take FILE through every stage of the codec: WAVs, spectrograms and analysis.json with all metrics."""
    _need_packages()
    from ..bench.analyze import analyze as run
    from ..bench.codecs import Missing
    from ..bench.sources import BenchError, domain_of

    try:
        run(clip, out, bitrate, domain=domain or domain_of(clip, "music"), model=model, say=click.echo)
    except (BenchError, Missing, OSError) as error:
        raise click.ClickException(str(error)) from error
    _say(f"wrote {out}")

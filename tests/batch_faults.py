"""`aldm batch` under faults: whatever happens to a run, the same command makes the outputs of an undisturbed one.

Usage: python tests/batch_faults.py [--seed N] [--rounds N] [--engine local|ray] [--tokens]

Each round starts a run and disturbs it at a random moment, in one of these ways: kill -9 of a worker; kill -9 of the
parent; an input that changes while it is read, and back; a clock that goes back; a second run; a full disk; an output
that becomes read-only (the latter two need root, to mount a small file system). Whole outputs have to be right after
each, and all of them after a last run that is left alone. Prints what was done as JSON.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import soundfile as sf

DATA = Path(__file__).parent / "data"
MARK = "ALDM_BATCH_FAULTS"  # in the environment of all processes of a run
KINDS = ("worker", "parent", "input", "clock", "two", "disk", "read-only")
CLOCK = """
import time
real, started = time.time, time.time()
time.time = lambda: real() - (86400 if real() - started > 2 else 0)
"""


class Wrong(Exception):
    """An output is not what it has to be, or a run did not end as it has to."""


class Library:
    """Short clips, a command that encodes them, and what it has to make of them.

    Args:
        folder: empty; for everything.
        engine: of the command.
        tokens: whether to write shards of tokens.
        clips: how many.
        jobs: of the command.
        encode: what a file becomes; default: what a run that is left alone makes of it.
    """

    def __init__(
        self,
        folder: Path,
        engine: str = "local",
        tokens: bool = False,
        clips: int = 12,
        jobs: int = 2,
        encode: Callable[[Path], bytes] | None = None,
    ):
        self.inputs, self.out, self.mark = folder / "clips", folder / "out", secrets.token_hex(8)
        self.clock = folder / "clock"
        self.inputs.mkdir()
        self.clock.mkdir()
        (self.clock / "sitecustomize.py").write_text(CLOCK)
        wave, rate = sf.read(DATA / "speech.flac", dtype="float32")
        for number in range(clips):
            sf.write(self.inputs / f"{number:02}.wav", wave[1000 * number : 1000 * number + 12000], rate)
        self.command = [
            *(sys.executable, "-m", "aldm.cli", "batch", str(self.inputs), "--jobs", str(jobs), "--engine", engine),
            *(("--tokens", "--shards", "webdataset", "--shard-size", "3") if tokens else ("--bitrate", "1.5")),
        ]
        self.expected, self.seconds = dict[str, bytes](), 5.0
        if encode:
            self.expected = {f"{path.stem}.aldm": encode(path) for path in self.inputs.iterdir()}
            return
        started = time.monotonic()
        self.run(self.out)
        self.expected, self.seconds = self.written(self.out), time.monotonic() - started
        shutil.rmtree(self.out)

    def start(self, out: Path, **environment: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [*self.command, "--out", str(out)],
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
            env={**os.environ, MARK: self.mark, "OMP_NUM_THREADS": "1", **environment},
        )

    def run(self, out: Path) -> None:
        """A run that is left alone."""
        with self.start(out) as process:
            said = end(process)
        if process.returncode:
            raise Wrong(f"exit code {process.returncode}: {said}")
        self.check(out, whole=True)

    def check(self, out: Path, whole: bool = False) -> None:
        """Raises Wrong if an output is not what it has to be; `whole`: or if one is missing, or something is left."""
        found = self.written(out)
        if self.expected and (wrong := [name for name, data in found.items() if data != self.expected.get(name)]):
            raise Wrong(f"{wrong[0]} is not what it has to be")
        if whole and (found.keys() < self.expected.keys() or list(out.rglob(".aldm-*"))):
            raise Wrong(f"{len(found)} of {len(self.expected)} outputs, or something temporary is left")

    @staticmethod
    def written(out: Path) -> dict[str, bytes]:
        files = (*out.glob("*.aldm"), *out.glob("*.tar"))
        return {path.name: path.read_bytes() for path in files}

    def processes(self) -> dict[int, str]:
        """Numbers and command lines of all processes of its runs."""
        found = {}
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                if f"{MARK}={self.mark}".encode() in (folder / "environ").read_bytes():
                    found[int(folder.name)] = line
        return found


def end(process: subprocess.Popen[bytes], seconds: float = 300) -> str:
    """Wait for a run; what it said, of which no line is a traceback."""
    said = process.communicate(timeout=seconds)[1].decode(errors="replace")
    if "Traceback" in said:
        raise Wrong(f"a traceback: {said}")
    return said


@contextlib.contextmanager
def small_disk(folder: Path, kilobytes: int) -> Iterator[Callable[[str], bool]]:
    """A file system of that size, and a function that remounts it with other options; both say whether they can."""

    def mount(options: str) -> bool:
        call = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        return not subprocess.run(call, capture_output=True).returncode

    folder.mkdir(exist_ok=True)
    there = mount(f"size={kilobytes}k")
    try:
        yield (lambda options: mount(f"remount,{options}")) if there else lambda options: False
    finally:
        if there:
            subprocess.run(["umount", "-l", str(folder)], check=True)


def disturb(kind: str, library: Library, rng: random.Random) -> bool:
    """Start a run and disturb it; False: that cannot be done here.

    Raises:
        Wrong: what it wrote is wrong.
    """
    if kind in ("disk", "read-only"):
        return disturb_disk(kind, library, rng)
    extra = {"PYTHONPATH": str(library.clock)} if kind == "clock" else {}
    with library.start(library.out, **extra) as process:
        time.sleep(rng.uniform(0.1, 1) * library.seconds)
        if kind == "parent":
            process.kill()
        elif kind == "worker":
            workers = [n for n, line in library.processes().items() if "spawn_main" in line or "ray::Map" in line]
            for worker in workers[:1]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(worker, signal.SIGKILL)
        elif kind == "input":
            for path in rng.sample(sorted(library.inputs.iterdir()), 3):
                before = path.read_bytes()
                with open(path, "r+b") as file:  # in place: whoever reads it sees both
                    file.seek(len(before) // 2)
                    file.write(bytes(len(before) // 4))
                time.sleep(rng.uniform(0, 0.5))
                path.write_bytes(before)
        elif kind == "two" and process.poll() is None:
            with library.start(library.out) as second:
                said = end(second)
            if process.poll() is None and (second.returncode != 1 or "another aldm batch" not in said):
                raise Wrong(f"a second run ended with {second.returncode}: {said}")
        end(process)
    until_alone(library)
    if kind != "input":  # what was made of half a change is right only after the next run
        library.check(library.out)
    return True


def disturb_disk(kind: str, library: Library, rng: random.Random) -> bool:
    out = library.out.with_name("small")
    size = sum(map(len, library.expected.values())) // 1024
    with small_disk(out, rng.randint(8, 16 + size) if kind == "disk" else 65536) as remount:
        if not remount("rw"):
            return False
        with library.start(out) as process:
            if kind == "read-only":
                time.sleep(rng.uniform(0.1, 1) * library.seconds)
                remount("ro")
            said = end(process)
        if process.returncode not in (0, 1, 3):
            raise Wrong(f"exit code {process.returncode}: {said}")
        library.check(out)
        remount("rw,size=64m")
        library.run(out)
    return True


def until_alone(library: Library, seconds: float = 300) -> None:
    """Wait until no process of a run is left; those of Ray may take a minute to notice that theirs is gone."""
    last = time.monotonic() + seconds
    while found := library.processes():
        if time.monotonic() > last:
            raise Wrong(f"processes are left: {', '.join(line.strip() for line in found.values())}")
        time.sleep(0.1)


def faults(library: Library, kinds: tuple[str, ...], rounds: int, seed: int) -> Counter[str]:
    """Disturb runs into one output folder, each kind `rounds` times in random order; then leave one alone.

    Raises:
        Wrong: an output is.
    """
    rng, done = random.Random(seed), Counter[str]()
    order = [kind for kind in kinds for _ in range(rounds)]
    rng.shuffle(order)
    for kind in order:
        done[kind if disturb(kind, library, rng) else f"{kind}, not possible here"] += 1
        if rng.random() < 0.3:  # else a fault meets what the one before left
            shutil.rmtree(library.out, ignore_errors=True)
    library.run(library.out)
    return done


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=3, help="of each kind of fault (default: 3)")
    parser.add_argument("--engine", choices=["local", "ray"], default="local")
    parser.add_argument("--tokens", action="store_true", help="shards of tokens instead of .aldm files")
    parser.add_argument("--kinds", default=",".join(KINDS), help="with commas (default: all)")
    options = parser.parse_args()
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        library = Library(Path(folder), options.engine, options.tokens)
        done = faults(library, tuple(options.kinds.split(",")), options.rounds, options.seed)
    print(json.dumps({"faults": done, "outputs": len(library.expected), "seconds": round(time.monotonic() - started)}))
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""`aldm batch --engine ray` on real local clusters of two workers."""

import importlib.util
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from aldm.codec import Codec
from conftest import DATA, aldm

pytestmark = pytest.mark.skipif(not importlib.util.find_spec("ray"), reason="Ray is not installed")

# Its GPU is only said to be there, so that it can be seen who gets a share of it.
HEAD = """
import ray, sys
ray.init("local", num_cpus=2, num_gpus=1, _temp_dir=sys.argv[1], include_dashboard=False, log_to_driver=False)
print(ray.get_runtime_context().gcs_address, flush=True)
sys.stdin.read()  # until whoever started this is gone
"""

KILLER = """
import json, os, signal, sys
from pathlib import Path
from aldm.cli.ray_engine import on_ray

def work(task):
    if task == 5:
        os.kill(os.getpid(), signal.SIGKILL)
    return task**2

options = dict(scratch=Path(sys.argv[1]), address=os.environ["RAY_ADDRESS"])
with on_ray(work, range(12), None, lambda: None, **options) as results:
    found = {task: result if isinstance(result, int) else None for task, result in results}
print(json.dumps(found))
"""

SHARES = """
import json, os, sys
from pathlib import Path
from aldm.cli.ray_engine import on_ray

options = dict(scratch=Path(sys.argv[1]), address=os.environ["RAY_ADDRESS"], per_gpu=2)
for device in ("cuda", "auto", None):
    start, seen = lambda: None, lambda task: (os.environ.get("CUDA_VISIBLE_DEVICES"), os.getpid())
    with on_ray(seen, range(8), None, start, **options, device=device) as results:
        found = [result for _, result in results]
    print(json.dumps([sorted({str(gpu) for gpu, _ in found}), len({process for _, process in found})]))
"""


def processes(mark: str) -> dict[int, str]:
    """Command lines, by number, of processes whose environment or command line has a mark."""
    found = {}
    for folder in Path("/proc").iterdir():
        try:
            line = (folder / "cmdline").read_bytes()
            if folder.name.isdigit() and mark.encode() in line + (folder / "environ").read_bytes():
                found[int(folder.name)] = line.decode(errors="replace")
        except OSError:
            continue
    return found


def until(what: Callable[[], object], seconds: float = 240) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.fixture(scope="module")
def cluster() -> Iterator[dict[str, str]]:
    """Environment of commands that use a cluster, which is gone afterwards whatever happened."""
    mark = secrets.token_hex(16)
    environment = os.environ | dict(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=mark, RAY_USAGE_STATS_ENABLED="0")
    folder = tempfile.mkdtemp(prefix="aldm-")  # pytest's are too long for the names of Ray's sockets
    command = [sys.executable, "-c", HEAD, folder]
    pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    with subprocess.Popen(command, env=environment, text=True, **pipes) as head:  # type: ignore[call-overload]
        try:
            address = head.stdout.readline().strip()
            assert address
            yield environment | dict(RAY_ADDRESS=address)
        finally:
            head.stdin.close()
            try:
                head.wait(30)
                until(lambda: not processes(mark), 30)
            finally:
                for number in processes(mark):
                    os.kill(number, signal.SIGKILL)
                shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """Thirty clips."""
    folder = tmp_path / "library"
    folder.mkdir()
    for number in range(30):
        shutil.copy(DATA / "speech.flac", folder / f"{number:02}.flac")
    return folder


def start(library: Path, out: Path, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    """A run that has coded some of the clips, and not all."""
    command = [sys.executable, "-m", "aldm.cli", "batch", str(library), "--out", str(out), "--engine", "ray"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, env=environment, start_new_session=True)
    log = out / "batch.jsonl"  # 30 lines of what is to be done, and then of what is
    until(lambda: process.poll() is not None or (log.exists() and log.read_text().count("\n") >= 33))
    assert process.poll() is None
    assert len(list(out.glob("*.aldm"))) < 28
    return process


def contents(out: Path) -> set[bytes]:
    return {path.read_bytes() for path in out.glob("*.aldm")}


@pytest.mark.slow
def test_own_cluster_does_what_the_local_engine_does(tmp_path: Path) -> None:
    library = tmp_path / "library"
    (library / "deep").mkdir(parents=True)
    for name in ("speech.flac", "deep/music.flac", "environment.flac"):
        shutil.copy(DATA / Path(name).name, library / name)
    (library / "bad.wav").write_bytes(b"RIFF, but not really")
    mark = secrets.token_hex(16)
    results = {}
    for engine in ("local", "ray"):
        arguments = ("library", "--out", engine, "--bitrate", 1, "--jobs", 2, "--engine", engine)
        environment = os.environ | dict(ALDM_TEST=mark, TMPDIR=tempfile.gettempdir())
        results[engine] = aldm("batch", *arguments, cwd=tmp_path, env=environment)
    said = {engine: result.stderr.split(b";")[0].splitlines() for engine, result in results.items()}
    said = {engine: [x for x in lines if b" of 4 files, " not in x] for engine, lines in said.items()}  # if it is slow
    assert said["ray"] == said["local"]  # nothing of Ray's
    assert [r.returncode for r in results.values()] == [3, 3]
    assert results["ray"].stdout == b""
    files = {str(p.relative_to(tmp_path / "local")) for p in (tmp_path / "local").rglob("*")}
    assert files == {str(p.relative_to(tmp_path / "ray")) for p in (tmp_path / "ray").rglob("*")}
    for name in ("speech.aldm", "deep/music.aldm", "environment.aldm"):
        assert (tmp_path / "ray" / name).read_bytes() == (tmp_path / "local" / name).read_bytes()
    facts = [json.loads((tmp_path / engine / "summary.json").read_text()) for engine in results]
    assert [{k: v for k, v in f.items() if k not in ("took", "times_real_time")} for f in facts] == [
        {k: v for k, v in facts[0].items() if k not in ("took", "times_real_time")}
    ] * 2
    until(lambda: not processes(mark), 60)


@pytest.mark.slow
def test_a_killed_worker_costs_nothing(library: Path, tmp_path: Path, cluster: dict[str, str], codec: Codec) -> None:
    out = tmp_path / "out"
    with start(library, out, cluster) as process:
        workers = [n for n, line in processes(cluster["RAY_AUTH_TOKEN"]).items() if "ray::MapWorker" in line]
        assert len(workers) == 2
        os.kill(workers[0], signal.SIGKILL)
        _, said = process.communicate(timeout=300)
    assert process.returncode == 0, said
    assert said.splitlines()[-1].startswith(b"30 coded, 0 done before, 0 failed")  # after progress, if it is slow
    assert contents(out) == {codec.encode(DATA / "speech.flac")}
    assert {p.name for p in out.iterdir() if p.suffix != ".aldm"} == {"batch.jsonl", "summary.json", "summary.parquet"}


@pytest.mark.slow
def test_a_stopped_run_goes_on_with_the_other_engine(library: Path, tmp_path: Path, cluster: dict[str, str]) -> None:
    out = tmp_path / "out"
    with start(library, out, cluster) as process:
        os.killpg(process.pid, signal.SIGINT)
        _, said = process.communicate(timeout=300)
    assert process.returncode == 1
    assert b"stopped: interrupted" in said
    assert b"Traceback" not in said
    whole = len(list(out.glob("*.aldm")))
    assert 3 <= whole < 30
    assert len(contents(out)) == 1
    assert {p.name for p in out.iterdir() if p.suffix != ".aldm"} == {"batch.jsonl", "summary.json", "summary.parquet"}
    result = aldm("batch", library, "--out", out)
    assert result.returncode == 0, result.stderr
    facts = json.loads((out / "summary.json").read_text())
    assert facts["coded"] + facts["skipped"] == 30
    assert facts["skipped"] >= 3
    assert len(contents(out)) == 1


@pytest.mark.slow
def test_shards_are_those_of_the_local_engine(library: Path, tmp_path: Path, cluster: dict[str, str]) -> None:
    shutil.copy(DATA / "music.flac", library / "07.flac")
    (library / "11.flac").write_bytes(b"fLaC?")
    for engine in ("local", "ray"):
        arguments = ("--engine", engine, "--tokens", "--shard-size", 8, "--jobs", 2)
        result = aldm("batch", library, "--out", tmp_path / engine, *arguments, env=cluster)
        assert result.returncode == 3, result.stderr
        assert b"29 coded, 0 done before, 1 failed" in result.stderr
    for number in range(4):
        name = f"tokens-{number:06}.parquet"
        assert (tmp_path / "ray" / name).read_bytes() == (tmp_path / "local" / name).read_bytes()


@pytest.mark.slow
def test_what_kills_every_worker_is_given_up(tmp_path: Path, cluster: dict[str, str]) -> None:
    result = subprocess.run([sys.executable, "-c", KILLER, tmp_path], env=cluster, capture_output=True, timeout=300)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout) == {str(n): None if n == 5 else n**2 for n in range(12)}
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_workers_share_a_gpu_if_they_are_to_use_one(tmp_path: Path, cluster: dict[str, str]) -> None:
    result = subprocess.run([sys.executable, "-c", SHARES, tmp_path], env=cluster, capture_output=True, timeout=300)
    assert result.returncode == 0, result.stderr
    cuda, auto, none = map(json.loads, result.stdout.splitlines())
    assert cuda[0] == auto[0] == ["0"]
    assert max(cuda[1], auto[1]) <= 2
    assert none[0] != ["0"]


@pytest.mark.slow
def test_a_cluster_without_a_gpu(tmp_path: Path) -> None:
    arguments = ("--out", tmp_path / "out", "--engine", "ray", "--jobs", 1, "--device", "abacus")
    result = aldm("batch", DATA / "speech.flac", *arguments)
    assert result.returncode == 1
    assert result.stderr == b"Error: this cluster has no GPU for --device abacus\n"


@pytest.mark.slow
def test_no_ray_and_no_cluster(tmp_path: Path) -> None:
    shutil.copy(DATA / "speech.flac", tmp_path)
    command = ["batch", str(tmp_path / "speech.flac"), "--out", str(tmp_path / "out"), "--engine", "ray"]
    script = f"import sys; sys.modules['ray'] = None\nfrom aldm.cli.main import main\nmain({command})"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=300)
    assert result.returncode == 1
    assert result.stderr.startswith(b"Error: --engine ray needs Ray Data: pip install 'aldm[ray]'")
    assert result.stderr.count(b"\n") == 1
    result = aldm(*command, "--address", "127.0.0.1:1")
    assert result.returncode == 1
    assert result.stderr == b"Error: no Ray cluster at 127.0.0.1:1: [Errno 111] Connection refused\n"
    assert not (tmp_path / "out/.aldm-partial").exists()

"""Ray as the engine of `aldm batch`: like `codec.processes.in_processes`, with the workers of a cluster."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import pickle
import secrets
import socket
import sys
import tempfile
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, TypeVar

import click

Task = TypeVar("Task")

BLOCKS = 10_000  # at most, that Ray Data has to keep books of
IN_FLIGHT = 4  # blocks that a worker has, so that it need not wait for the next
CONNECT_SECONDS = 10
TRIES = 3  # of a task whose worker dies
STORE = 256 << 20  # bytes of a local cluster's object store: rows and tokens, no audio


@contextlib.contextmanager
def on_ray(
    function: Callable[[Task], Any],
    tasks: Sequence[Task],
    jobs: int | None,
    initializer: Callable[..., None],
    *initargs: Any,
    scratch: Path,
    address: str | None,
    per_gpu: int = 1,
    device: str | None = None,
) -> Iterator[Iterator[tuple[Task, Any]]]:
    """Call the function in Ray Data's actors of one CPU, and a share of a GPU: pairs of task and result as they come.

    Ray repeats the tasks of a worker that died; a task that killed TRIES workers gets BrokenProcessPool as its result.
    Leaving the context ends running tasks.

    Args:
        jobs: workers; default: as many as the cluster has CPUs.
        initializer: called with `initargs` in every worker first.
        scratch: folder that all machines of the cluster see.
        address: of a cluster; default: one of this machine, which ends with the context.
        per_gpu: workers that share a GPU, unless `jobs` says otherwise.
        device: where workers compute. Unless it is the CPU, they need GPUs; "auto": if the cluster has any.

    Raises:
        click.ClickException: no Ray, no such cluster, no GPUs in it, or workers that do not start.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if address is None:  # nobody else may use it; without a token here Ray leaves one in the home folder
        os.environ.setdefault("RAY_AUTH_MODE", "token")
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise click.ClickException(f"--engine ray needs Ray Data: pip install 'aldm[ray]' ({error})") from error

    class Worker:
        def __init__(self) -> None:
            initializer(*initargs)

        def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
            tries = scratch / f"try-{row['number']}"  # a byte for each time that this was begun and not ended
            with open(tries, "ab") as file:
                file.write(b".")
                count = file.tell()
            result = pickle.dumps(function(pickle.loads(row["task"]))) if count <= TRIES else None
            tries.unlink(missing_ok=True)
            return dict(number=row["number"], result=result)

    def results() -> Generator[tuple[Task, Any]]:
        found = ray.cluster_resources()
        cores, gpus = int(found.get("CPU", 1)), int(found.get("GPU", 0)) if device not in (None, "cpu") else 0
        if not gpus and device not in (None, "cpu", "auto"):
            raise click.ClickException(f"this cluster has no GPU for --device {device}")
        workers = jobs or (min(cores, per_gpu * gpus) if gpus else cores)
        needs: dict[str, Any] = dict(num_cpus=1, num_gpus=1 / math.ceil(workers / gpus) if gpus else 0)
        rows = [dict(number=number, task=pickle.dumps(task)) for number, task in enumerate(tasks)]
        blocks = min(len(rows), BLOCKS)
        pool = ray.data.ActorPoolStrategy(size=min(workers, blocks), max_tasks_in_flight_per_actor=IN_FLIGHT)
        worker: Any = Worker
        data = ray.data.from_items(rows, override_num_blocks=blocks).map(worker, compute=pool, **needs)
        try:
            for row in data.iter_rows():
                result = row["result"]
                yield tasks[row["number"]], BrokenProcessPool if result is None else pickle.loads(result)
        except ray.exceptions.RayError as error:
            raise click.ClickException(f"Ray: {_last_line(error)}") from error

    with contextlib.ExitStack() as stack:
        if not tasks:
            yield iter(())
            return
        stack.enter_context(_own_terminal())
        local: dict[str, Any] = {}
        if address is None:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="aldm-ray-", ignore_cleanup_errors=True))
            local = dict(num_cpus=jobs or os.cpu_count(), object_store_memory=STORE, include_dashboard=False)
            local["_temp_dir"] = folder
        try:
            if address and address.count(":") == 1:  # host:port; Ray itself would wait for ever
                host, port = address.split(":")
                socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS).close()
            ray.init(address or "local", log_to_driver=False, **local)
        except (ConnectionError, RuntimeError, ValueError, OSError) as error:
            where = f"at {address}" if address else "on this machine"
            raise click.ClickException(f"no Ray cluster {where}: {_last_line(error)}") from error
        stack.callback(ray.shutdown)
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.execution_no_progress_timeout_s = -1  # a long file takes its time
        yield stack.enter_context(contextlib.closing(results()))


@contextlib.contextmanager
def _own_terminal() -> Iterator[None]:
    """Suppress Ray's output: its logs have it, and errors come as results and exceptions."""
    terminal, before, disabled = os.dup(2), sys.stderr, logging.root.manager.disable
    with open(os.devnull, "w") as nothing, open(terminal, "w", buffering=1) as sys.stderr:
        try:
            os.dup2(nothing.fileno(), 2)  # its C++ part writes there
            logging.disable(logging.CRITICAL)
            with contextlib.redirect_stdout(nothing), warnings.catch_warnings(action="ignore"):
                yield
        finally:
            os.dup2(terminal, 2)
            sys.stderr = before
            logging.disable(disabled)


def _last_line(error: BaseException) -> str:
    """The last line of an error, which may hold the traceback of another process."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__

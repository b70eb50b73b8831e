"""A process pool that survives the death of a worker."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

Task = TypeVar("Task")


def _begin(initializer: Callable[..., None] | None, *initargs: Any) -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:  # else a process whose parent was killed would go on with what is in its queue
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
    if initializer is not None:
        initializer(*initargs)


def in_processes(
    function: Callable[[Task], Any],
    tasks: Sequence[Task],
    jobs: int,
    initializer: Callable[..., None] | None = None,
    *initargs: Any,
) -> Generator[tuple[Task, Any]]:
    """Call the function in `jobs` processes; yield pairs of task and result, which is BrokenProcessPool if it died.

    Closing the iterator, or Ctrl-C, lets running tasks end and cancels waiting ones. The processes end
    with this one, however it ends.

    Args:
        initializer: called with `initargs` in every process first.
    """
    context = multiprocessing.get_context("spawn")  # metric packages hang in forked processes
    left = list(tasks)
    while left:
        died: list[Task] = []
        with ProcessPoolExecutor(min(jobs, len(left)), context, _begin, (initializer, *initargs)) as pool:
            futures = {pool.submit(function, task): task for task in left}
            try:
                for future in as_completed(list(futures)):
                    task = futures.pop(future)  # and with it the result, once it is used
                    try:
                        result = future.result()
                    except BrokenProcessPool:
                        died.append(task)
                    else:
                        yield task, result
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
        if died and jobs == 1:  # they are in order, and the first of them was it
            yield died.pop(0), BrokenProcessPool
        left, jobs = died, 1  # one after the other, to find the culprit

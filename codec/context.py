"""The codec as a good neighbour: it computes alike whatever state of torch the program around it is in."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Generator, Iterator
from typing import Any, ParamSpec, TypeVar

import torch
from torch.overrides import TorchFunctionMode

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


class _Float32(TorchFunctionMode):
    """What would have another default dtype is float32. Of this thread alone, as torch's own default is not."""

    MAKERS = frozenset(
        (torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn, torch.linspace, torch.arange,
         torch.tensor, torch.hann_window)
    )  # fmt: skip

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = function(*args, **(kwargs or {}))
        if function in self.MAKERS and made.dtype == torch.get_default_dtype() and not (kwargs or {}).get("dtype"):
            return made.float()
        return made


@contextlib.contextmanager
def own_context() -> Iterator[None]:
    """Without autocast, and with float32 and the CPU as defaults. Costs nothing where that is so already."""
    with contextlib.ExitStack() as stack:
        for kind in ("cpu", "cuda"):
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        if torch.get_default_device().type != "cpu":
            stack.enter_context(torch.device("cpu"))
        if torch.get_default_dtype() != torch.float32:
            stack.enter_context(_Float32())
        yield


def in_own_context(function: Callable[P, R]) -> Callable[P, R]:
    """A function, or method, that runs in `own_context`."""

    @functools.wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        with own_context():
            return function(*args, **kwargs)

    return wrapped


def each_in_own_context(function: Callable[P, Iterator[T]]) -> Callable[P, Generator[T]]:
    """The same of a generator: its caller's context is back whenever it has yielded."""

    @functools.wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> Generator[T]:
        values = function(*args, **kwargs)
        while True:
            with own_context():
                try:
                    value = next(values)
                except StopIteration:
                    return
            yield value

    return wrapped


# A forked child inherits OpenMP's state without its threads, and would wait for them forever.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: torch.set_num_threads(1))

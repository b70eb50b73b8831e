"""Torch's defaults while the codec runs, whatever dtype, device or autocast the program around it has set."""

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
    """Makes new tensors float32, in this thread alone; torch's default dtype is global."""

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
def torch_defaults() -> Iterator[None]:
    """A context without autocast, with float32 and the CPU as defaults. Costs nothing where they are set already."""
    with contextlib.ExitStack() as stack:
        for kind in ("cpu", "cuda"):
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        if torch.get_default_device().type != "cpu":
            stack.enter_context(torch.device("cpu"))
        if torch.get_default_dtype() != torch.float32:
            stack.enter_context(_Float32())
        yield


def with_torch_defaults(function: Callable[P, R]) -> Callable[P, R]:
    """A function, or method, that runs in `torch_defaults`."""

    @functools.wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        with torch_defaults():
            return function(*args, **kwargs)

    return wrapped


def generator_with_torch_defaults(function: Callable[P, Iterator[T]]) -> Callable[P, Generator[T]]:
    """The same for a generator; between its values, the caller's defaults hold."""

    @functools.wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> Generator[T]:
        values = function(*args, **kwargs)
        while True:
            with torch_defaults():
                try:
                    value = next(values)
                except StopIteration:
                    return
            yield value

    return wrapped


# A forked child inherits OpenMP's state without its threads, and would wait for them forever.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: torch.set_num_threads(1))

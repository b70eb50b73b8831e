"""A device that is none: tensors "on" it compute on the CPU, and refuse, as a GPU's do, what a GPU's refuse."""

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

NAME = "lazy"  # a kind that torch knows by name and that no machine has
MOVES = ("_to_copy", "to", "copy_")  # what may see tensors of both


class Far(Tensor):
    """A tensor that says it is on the device; `near` holds its values."""

    near: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, near: Tensor) -> "Far":
        facts: dict[str, Any] = dict(strides=near.stride(), dtype=near.dtype, requires_grad=near.requires_grad)
        out = Tensor._make_wrapper_subclass(cls, near.shape, device=NAME, **facts)
        out.near = near
        return out

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return compute(func, args, kwargs or {})


def compute(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """An operation, with the rules of devices: all on one, but for single numbers."""
    tensors = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
    far = [t for t in tensors if isinstance(t, Far)]
    name = func.overloadpacket.__name__
    if far and name not in MOVES and any(t.ndim and not isinstance(t, Far) for t in tensors):
        raise RuntimeError(f"{func}: tensors on two devices")
    targets = [v for v in tree_leaves((args, kwargs)) if isinstance(v, torch.device)]
    there = targets[0].type == NAME if targets else isinstance(args[0], Far) if name == "copy_" else bool(far)
    if name == "_conj":  # a flag, which would be lost here
        func = torch.ops.aten.conj_physical.default
    out = func(*tree_map(near, args), **tree_map(near, kwargs))
    if name == "_local_scalar_dense" or not there:
        return out
    with torch.inference_mode(False):
        return tree_map(lambda t: Far(t) if isinstance(t, Tensor) else t, out)


def near(value: Any) -> Any:
    if isinstance(value, torch.device):
        return torch.device("cpu")
    return value.near if isinstance(value, Far) else value


class Device(TorchDispatchMode):
    """Makes the device exist."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return compute(func, args, kwargs or {})


@contextlib.contextmanager
def far_device() -> Iterator[str]:
    """The device's name, for as long as it exists."""
    with Device(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "autocast", lambda *kind, **options: contextlib.nullcontext())  # knows no such device
        yield NAME

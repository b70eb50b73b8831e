"""Weights of networks in safetensors: half precision, or 8 bits with a scale per row where that is enough."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

TYPES = torch.int8, torch.float16, torch.bfloat16, torch.float32
MAX_WEIGHT = 1e4  # of what training made so far, the largest is 65
SCALE = ".scale"  # suffix: factors of the rows of a matrix in 8 bits


def save_weights(network: nn.Module, path: Path, small: bool = False) -> None:
    """Write a network's state.

    Args:
        small: as for `pack`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(pack(network, small), path)


def load_weights(path: Path, shapes: Mapping[str, Sequence[int]]) -> dict[str, Tensor]:
    """A network's state in single precision, however it was stored.

    Args:
        shapes: what the network's state has.

    Raises:
        SafetensorError: the file does not parse.
        ValueError: it holds other names, shapes or types, values that are not finite, or ones above MAX_WEIGHT.
    """
    stored = load_file(path)
    wanted = {name: list(shape) for name, shape in shapes.items()}
    wanted |= {name + SCALE: wanted[name][:1] for name, value in stored.items() if value.dtype == torch.int8}
    found = {name: list(value.shape) for name, value in stored.items()}
    for name in sorted(wanted.keys() | found.keys()):
        if wanted.get(name) != found.get(name):
            raise ValueError(f"{path.name}: {name} is {found.get(name)}; its settings say {wanted.get(name)}")
        if stored[name].dtype not in TYPES:
            raise ValueError(f"{path.name}: {name} is {stored[name].dtype}")
    state = unpack(stored)
    for name, value in state.items():
        if not value.abs().amax() <= MAX_WEIGHT:  # NaN, too
            raise ValueError(f"{path.name}: {name} has values that are not finite, or above {MAX_WEIGHT:g}")
    return state


class SkipInit(TorchFunctionMode):
    """Skips the random initialisation of networks whose weights are loaded next: it takes half of the time.

    A mode is the thread's own; nothing of torch is patched.
    """

    RANDOM = (nn.init.kaiming_uniform_, nn.init.uniform_, nn.init.normal_)

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function in self.RANDOM:
            return args[0] if args else kwargs["tensor"]
        return function(*args, **(kwargs or {}))


def round_to_stored(network: nn.Module) -> None:
    """Round a network's state to what `save_weights` keeps of it in 8 bits."""
    network.load_state_dict(unpack(pack(network, small=True)))


def pack(network: nn.Module, small: bool) -> dict[str, Tensor]:
    """A network's state as it is stored.

    Args:
        small: matrices in 8 bits, each row relative to its largest value; vectors, and what is not a parameter but a
            constant, stay in half precision.
    """
    out: dict[str, Tensor] = {}
    parameters = {name for name, _ in network.named_parameters()}
    for name, value in network.state_dict().items():
        if small and value.ndim > 1 and name in parameters:
            scale = value.float().flatten(1).abs().amax(1).clamp(min=1e-12) / 127
            rows = scale.view(-1, *[1] * (value.ndim - 1))
            out[name] = (value.float() / rows).round().to(torch.int8).contiguous()
            out[name + SCALE] = scale
        else:
            out[name] = value.to(torch.float16).contiguous()
    return out


def unpack(stored: dict[str, Tensor]) -> dict[str, Tensor]:
    """Inverse of `pack`, in single precision."""
    stored = dict(stored)
    scales = {name: stored.pop(name + SCALE) for name in list(stored) if name + SCALE in stored}
    state = {name: value.float() for name, value in stored.items()}
    for name, scale in scales.items():
        state[name] *= scale.view(-1, *[1] * (state[name].ndim - 1))
    return state

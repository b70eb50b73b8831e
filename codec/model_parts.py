"""Parts of a model folder, loaded and saved: networks, tables of the scalar codebook, vector codebook."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from safetensors.numpy import load_file as load_arrays
from safetensors.numpy import save_file as save_arrays
from torch import nn

from ..format.entropy import Tables
from .model_folder import TABLES, VECTORS
from .nn.weights import SkipInit, load_weights, save_weights
from .quantization.scalar import ScalarCodebook
from .quantization.vector import VectorCodebook

Network = TypeVar("Network", bound=nn.Module)


def load_network(folder: Path, kind: type[Network], config: str, weights: str, *given: Any) -> Network | None:
    """A network of a folder, whose settings are `given` and in `config`; None: the folder has none."""
    if not (folder / config).exists() and not (folder / weights).exists():
        return None
    settings = json.loads((folder / config).read_text())
    with SkipInit():
        network = kind(*given, **{k: v for k, v in settings.items() if not k.startswith("_")})
    network.load_state_dict(load_weights(folder / weights))
    return network.eval().requires_grad_(False)


def save_network(
    network: nn.Module, config: dict[str, Any], folder: Path, settings: str, weights: str, small: bool
) -> None:
    """Write a network's settings and weights, `small`: in 8 bits."""
    (folder / settings).parent.mkdir(parents=True, exist_ok=True)
    named = {"_class_name": f"aldm.codec.{type(network).__name__}", **config}
    (folder / settings).write_text(json.dumps(named, indent=2) + "\n")
    save_weights(network, folder / weights, small)


def load_codebook(folder: Path) -> ScalarCodebook:
    """The scalar codebook of a folder, without predictor and noise shaper."""
    arrays = load_arrays(folder / TABLES)
    tables = Tables(arrays["bank"], arrays["choice"], arrays["transitions"])
    return ScalarCodebook(arrays["gains"].astype(np.float32), tables)


def save_codebook(codebook: ScalarCodebook, folder: Path) -> None:
    """Write the tables and step scales of a scalar codebook."""
    tables = codebook.tables
    arrays = dict(bank=tables.bank, choice=tables.choice, transitions=tables.transitions)
    (folder / TABLES).parent.mkdir(parents=True, exist_ok=True)
    save_arrays({**arrays, "gains": codebook.step_scales.astype(np.float16)}, folder / TABLES)


def load_vector_codebook(folder: Path) -> VectorCodebook | None:
    """The vector codebook of a folder, if it has one."""
    if not (folder / VECTORS).is_file():
        return None
    arrays = load_arrays(folder / VECTORS)
    return VectorCodebook(arrays["codes"].astype(np.float32), int(arrays["level"]))


def save_vector_codebook(vectors: VectorCodebook, folder: Path) -> None:
    """Write a vector codebook, its codes in half precision."""
    (folder / VECTORS).parent.mkdir(parents=True, exist_ok=True)
    save_arrays(dict(codes=vectors.codes.astype(np.float16), level=np.array(vectors.level, np.int32)), folder / VECTORS)

"""Parts of a model folder, loaded and saved: networks, tables of the scalar codebook, vector codebook."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file as load_arrays
from safetensors.numpy import save_file as save_arrays
from torch import nn

from ..format.entropy import Tables
from .levels import LEVELS
from .model_folder import TABLES, VECTORS
from .nn.layers import Configured
from .nn.weights import MAX_WEIGHT, SkipInit, load_weights, save_weights
from .quantization.scalar import ScalarCodebook
from .quantization.vector import CODES, SIZE, VectorCodebook
from .settings import check_ranges, read_settings

LOADING_ERRORS = OSError, KeyError, TypeError, ValueError, RuntimeError, SafetensorError
DIVISORS = "scale", "deviation"  # names of buffers
MIN_GAIN, MAX_GAIN = 1e-3, 1e3  # of a scalar codebook


Network = TypeVar("Network", bound=Configured)


def reason(error: Exception) -> str:
    """What went wrong in loading, in a line."""
    return f"no {error}" if isinstance(error, KeyError) else (str(error) or repr(error)).splitlines()[0]


def load_network(folder: Path, kind: type[Network], config: str, weights: str, *given: Any) -> Network | None:
    """A network of a folder, whose settings are `given` and in `config`; None: the folder has none.

    Raises:
        OSError, SafetensorError, ValueError: a file is missing, does not parse, or has values out of range.
    """
    if not (folder / config).exists() and not (folder / weights).exists():
        return None
    settings = read_settings(folder / config)
    with SkipInit():
        try:
            settings = check_ranges(settings, kind.ranges)
            with torch.device("meta"):  # takes no memory, whatever the settings say
                shapes = {name: value.shape for name, value in kind(*given, **settings).state_dict().items()}
        except (TypeError, ValueError) as error:
            raise ValueError(f"{config}: {error}") from error
        state = load_weights(folder / weights, shapes)
        network = kind(*given, **settings)
    network.load_state_dict(state)
    for name, value in network.named_buffers():
        if name in DIVISORS and not value.amin() > 0:
            raise ValueError(f"{weights}: {name} is not above 0")
    return network.eval().requires_grad_(False)


def save_network(
    network: nn.Module, config: dict[str, Any], folder: Path, settings: str, weights: str, small: bool
) -> None:
    """Write a network's settings and weights, `small`: in 8 bits."""
    (folder / settings).parent.mkdir(parents=True, exist_ok=True)
    named = {"_class_name": f"aldm.codec.{type(network).__name__}", **config}
    (folder / settings).write_text(json.dumps(named, indent=2) + "\n")
    save_weights(network, folder / weights, small)


def load_codebook(folder: Path, latent_channels: int) -> ScalarCodebook:
    """The scalar codebook of a folder, without predictor and noise shaper.

    Raises:
        OSError, SafetensorError, KeyError, ValueError: its file is missing, does not parse, or has arrays out of range.
    """
    arrays = load_arrays(folder / TABLES)
    bank, choice, transitions, gains = (arrays[name] for name in ("bank", "choice", "transitions", "gains"))
    levels, classes, channels = choice.shape if choice.ndim == 3 else (0, 0, 0)
    right = {
        "bank": bank.dtype == np.int32 and bank.ndim == 2 and bank.shape[1] % 2 == 1 and bank.shape[1] > 1,
        "choice": choice.dtype in (np.uint8, np.uint16) and 1 <= levels <= LEVELS and classes > 0
        and channels == latent_channels and choice.max() < len(bank),
        "transitions": transitions.dtype == np.int32 and transitions.shape == (levels, classes + 1, classes),
        "gains": gains.dtype == np.float16 and gains.shape == (levels, channels)
        and np.all((gains >= MIN_GAIN) & (gains <= MAX_GAIN)),
    }  # fmt: skip
    right |= {name: right[name] and arrays[name].min(initial=1) >= 1 for name in ("bank", "transitions")}
    for name, found in right.items():
        if not found:
            raise ValueError(f"{TABLES}: {name} is of another type or shape, or has values out of range")
    return ScalarCodebook(gains.astype(np.float32), Tables(bank, choice, transitions))


def save_codebook(codebook: ScalarCodebook, folder: Path) -> None:
    """Write the tables and step scales of a scalar codebook."""
    tables = codebook.tables
    arrays = dict(bank=tables.bank, choice=tables.choice, transitions=tables.transitions)
    (folder / TABLES).parent.mkdir(parents=True, exist_ok=True)
    save_arrays({**arrays, "gains": codebook.step_scales.astype(np.float16)}, folder / TABLES)


def load_vector_codebook(folder: Path, latent_channels: int, levels: int) -> VectorCodebook | None:
    """The vector codebook of a folder, if it has one.

    Raises:
        OSError, SafetensorError, KeyError, ValueError: as for `load_codebook`.
    """
    if not (folder / VECTORS).is_file():
        return None
    arrays = load_arrays(folder / VECTORS)
    codes, level = arrays["codes"].astype(np.float32), arrays["level"]
    if codes.ndim != 3 or codes.shape[1:] != (CODES, SIZE) or not 0 < len(codes) * SIZE <= latent_channels:
        raise ValueError(f"{VECTORS}: codes are {codes.shape}")
    if not np.abs(codes).max() <= MAX_WEIGHT:  # NaN, too
        raise ValueError(f"{VECTORS}: codes are not finite, or too large")
    if level.shape or level.dtype.kind != "i" or not 0 <= level < levels:
        raise ValueError(f"{VECTORS}: level is not one of {levels}")
    return VectorCodebook(codes, int(level))


def save_vector_codebook(vectors: VectorCodebook, folder: Path) -> None:
    """Write a vector codebook, its codes in half precision."""
    (folder / VECTORS).parent.mkdir(parents=True, exist_ok=True)
    save_arrays(dict(codes=vectors.codes.astype(np.float16), level=np.array(vectors.level, np.int32)), folder / VECTORS)

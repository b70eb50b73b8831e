"""Loading of the networks of a checkpoint, through diffusers and transformers."""

from __future__ import annotations

import importlib.util
from typing import Any

import torch

from ..errors import ModelError
from .checkpoint import Checkpoint, free_memory


def load_network(load: Any, checkpoint: Checkpoint, sub: str, device: str, dtype: torch.dtype) -> tuple[Any, bool]:
    """A part's network, and whether there is memory to spare.

    Args:
        load: a class with diffusers' or transformers' `from_pretrained`.

    Raises:
        ModelError: it does not load, or does not fit.
    """
    folder = checkpoint.part(sub)
    plenty = checkpoint.require_memory(sub, dtype.itemsize, free_memory(device))
    safe = checkpoint.weights(sub)[0].endswith(".safetensors")
    options: dict[str, Any] = {"torch_dtype": dtype, "local_files_only": True, "use_safetensors": safe}
    if load.__module__.startswith("diffusers"):  # it warns when it has to choose
        options["low_cpu_mem_usage"] = importlib.util.find_spec("accelerate") is not None
    else:
        from transformers.utils import logging

        options["dtype"] = options.pop("torch_dtype")
        logging.disable_progress_bar()
    try:
        network = load.from_pretrained(folder, **options)
        return network.to(device).eval().requires_grad_(False), plenty
    except Exception as error:  # a foreign configuration makes these libraries raise anything
        raise ModelError(
            f"{sub}/ of {checkpoint.name} does not load: {(str(error) or repr(error)).splitlines()[0]}"
        ) from error

"""Loading of the networks of a checkpoint, through diffusers and transformers."""

from __future__ import annotations

import importlib.util
from typing import Any

import torch

from ..errors import ModelError
from ..nn.weights import SkipInit
from .checkpoint import Checkpoint, free_memory


def load_network(load: Any, checkpoint: Checkpoint, sub: str, device: str, dtype: torch.dtype) -> tuple[Any, bool]:
    """A part's network, and whether there is memory to spare.

    Args:
        load: a class with diffusers' or transformers' `from_pretrained`.

    Raises:
        ModelError: it does not load, or does not fit.
    """
    folder, config = checkpoint.part(sub), checkpoint.config(sub)
    if (folder / "adapter_config.json").exists():  # transformers would ask the hub for the model that it names
        raise ModelError(f"{sub}/ of {checkpoint.name} is an adapter")
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
        with torch.device("meta"), SkipInit():  # takes no memory, whatever the configuration says
            sized = load(load.config_class.from_dict(config)) if "dtype" in options else load.from_config(config)
        if sum(weights.numel() for weights in sized.parameters()) > checkpoint.weight_bytes(sub):
            raise ValueError("its configuration is one of a larger network than its weights")
        network = load.from_pretrained(folder, **options)
        if not all(bool(weights.isfinite().all()) for weights in network.parameters()):
            raise ValueError("its weights are not finite")
        return network.to(device).eval().requires_grad_(False), plenty
    except Exception as error:  # a foreign configuration makes these libraries raise anything
        raise ModelError(
            f"{sub}/ of {checkpoint.name} does not load: {(str(error) or repr(error)).splitlines()[0]}"
        ) from error

"""Model folders: their places and fingerprints. Without torch, for `aldm info`."""

from __future__ import annotations

import hashlib
from importlib import resources
from pathlib import Path

from .errors import ModelError

DEFAULT = "base"
WEIGHTS = "vae/diffusion_pytorch_model.safetensors"
VOCODER = "vocoder/diffusion_pytorch_model.safetensors"  # optional
CORRECTOR = "vocoder/corrector.safetensors"  # optional
DENOISER = "unet/diffusion_pytorch_model.safetensors"  # optional
VECTORS = "codec/vq.safetensors"  # optional
TABLES = "codec/tables.safetensors"
PREDICTOR = ("codec/predictor.json", "codec/predictor.safetensors")  # optional
FILES = ("vae/config.json", WEIGHTS, "codec/config.json", TABLES)
DENOISER_FILES = ("unet/config.json", DENOISER, "scheduler/scheduler_config.json")


def embedded_models() -> dict[str, Path]:
    """Names and folders of the models inside the package."""
    root = Path(str(resources.files("aldm.codec") / "models"))
    return {p.name: p for p in sorted(root.glob("*")) if (p / FILES[0]).exists()}


def find_model(name: str | Path | None) -> Path:
    """Folder of an embedded model or of a path; None is the default model.

    Raises:
        ModelError: no such model.
    """
    models = embedded_models()
    if str(name or DEFAULT) in models:
        return models[str(name or DEFAULT)]
    folder = Path(str(name))
    if missing := [f for f in FILES if not (folder / f).is_file()]:
        known = ", ".join(models)
        raise ModelError(f"no model {name}: {missing[0]} is not in that folder; models in the package: {known}")
    return folder


def fingerprint(folder: Path, files: tuple[str, ...] = FILES) -> bytes:
    """SHA-256 over the files that determine the decoded log-mel, predictor included; headers have its first 4 bytes.

    The vocoder is left out: a better one serves files that exist already. So is the denoiser, whose own fingerprint,
    over `DENOISER_FILES`, stands in the layers that need it.
    """
    digest = hashlib.sha256()
    if files is FILES and (folder / PREDICTOR[0]).exists():
        files += PREDICTOR
    for name in files:
        digest.update(name.encode() + b"\0" + hashlib.sha256((folder / name).read_bytes()).digest())
    return digest.digest()


def model_by_fingerprint(prefix: bytes) -> str | None:
    """Name of the embedded model whose fingerprint starts like a header's, if there is one."""
    return next((name for name, folder in embedded_models().items() if fingerprint(folder).startswith(prefix)), None)

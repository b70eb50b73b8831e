"""Model folders from the Hugging Face hub."""

from __future__ import annotations

import re
from pathlib import Path

from .errors import ModelError

PATTERNS = ["vae/*", "vocoder/*", "unet/*", "scheduler/*", "codec/*", "README.md"]


def is_repository(name: str | Path | None) -> bool:
    """Whether a model's name is one of the hub's, "user/name", and no folder."""
    return bool(re.fullmatch(r"[\w.-]+/[\w.-]+", str(name))) and not Path(str(name)).exists()


def download_model(repository: str, revision: str | None = None, cache_dir: str | Path | None = None) -> Path:
    """Folder of a model in the hub's cache; the cache comes before the network.

    Args:
        revision: branch, tag or commit; default: the hub's.
        cache_dir: of the hub; default: huggingface_hub's.

    Raises:
        ModelError: it is not in the cache and cannot be fetched, or huggingface_hub is missing.
    """
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
    except ImportError as error:
        raise ModelError("a model from the hub needs huggingface_hub: pip install 'aldm[hub]'") from error
    reason: Exception | None = None
    for local in (True, False):
        try:
            return Path(
                snapshot_download(
                    repository,
                    revision=revision,
                    cache_dir=cache_dir,
                    local_files_only=local,
                    allow_patterns=PATTERNS,
                )
            )
        except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
            reason = error
    raise ModelError(
        f"cannot get {repository} from the hub ({type(reason).__name__}: {str(reason).strip().splitlines()[0]})"
    ) from reason

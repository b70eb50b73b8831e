"""Where the parts of an AudioLDM 2 checkpoint are: in a folder of diffusers' layout, or on the hub and in its cache."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..errors import ModelError
from ..model_folder import TABLES, embedded_models
from ..settings import read_settings
from ..tags import MODEL_TAG, comment_value

HUB = {"speech": "cvssp/audioldm2", "music": "cvssp/audioldm2-music", "large": "cvssp/audioldm2-large"}
LICENCE = "CC BY-NC-SA 4.0 as published, not for commercial use"


def is_checkpoint(name: str | Path | None) -> bool:
    """Whether a model's name is that of a checkpoint: one of the hub's, or a folder whose VAE is diffusers' own.

    Raises:
        ModelError: the configuration of a folder's VAE is none.
    """
    if name is None or str(name) in embedded_models():
        return False
    if not Path(name).is_dir():
        return str(name).split("@")[0] in (*HUB, *HUB.values())
    try:
        return read_settings(Path(name) / "vae/config.json").get("_class_name") == "AutoencoderKL"
    except OSError:
        return False
    except ValueError as error:
        raise ModelError(f"model folder {name} does not load: {error}") from error


def licence_of(comments: Iterable[str]) -> str | None:
    """Licence of the weights that a file needs, as far as its comments tell; those of the package have their own."""
    name = comment_value(comments, MODEL_TAG) or ""
    return LICENCE if name.startswith(("cvssp/audioldm2", "audioldm2:")) else None


def model_from_comments(comments: Iterable[str]) -> str | None:
    """The hub's checkpoint that wrote a file, if its comments name one that this package knows; else None.

    Without the revision: anyone can propose one to a repository, and a file must not choose what is downloaded.
    """
    repository = (comment_value(comments, MODEL_TAG) or "").partition("@")[0]
    return repository if repository in HUB.values() else None


class Checkpoint:
    """A checkpoint's parts, each fetched on first use. The hub's cache comes before the hub.

    Args:
        name: a folder; or a name in HUB, or one of its values, with `@REVISION` behind it or without.

    Attributes:
        name: for messages, and for the comments of files; the hub's ends with the revision that is loaded.
        fitted: whether `aldm fit` has written tables into the folder.
    """

    def __init__(self, name: str | Path):
        self._root: Path | None = None
        self._repo, self._revision = "", ""
        if Path(name).is_dir():
            self._root = Path(name)
            self.name = self._root.resolve().name
        else:
            repo, _, self._revision = str(name).partition("@")
            self._repo = HUB.get(repo, repo)
            self._fetch("vae")
            self.name = f"{self._repo}@{self._revision}"

    @property
    def root(self) -> Path:
        """Folder of the parts that are present."""
        assert self._root is not None
        return self._root

    @property
    def fitted(self) -> bool:
        return (self.root / TABLES).is_file()

    @property
    def from_hub(self) -> bool:
        return bool(self._repo)

    def part(self, sub: str) -> Path:
        """Folder of a part, such as "vae".

        Raises:
            ModelError: it is not there, and cannot be fetched.
        """
        if self._repo and not self._complete(sub):
            self._fetch(sub)
        if not self._complete(sub):
            raise ModelError(f"checkpoint {self.name} has no {sub}/, or one without configuration or weights")
        return self.root / sub

    def has(self, sub: str) -> bool:
        """Whether there is such a part; one on the hub is believed to be there."""
        return bool(self._repo) or self._complete(sub)

    def config(self, sub: str) -> dict[str, Any]:
        """A part's configuration.

        Raises:
            ModelError: it does not parse, or has values out of bounds.
        """
        file = self.part(sub) / ("scheduler_config.json" if sub == "scheduler" else "config.json")
        try:
            return read_settings(file)
        except (OSError, ValueError) as error:
            raise ModelError(f"{sub}/ of {self.name} does not load: {error}") from error

    def weights(self, sub: str) -> list[str]:
        """Names, relative to the root, of the files of weights that are loaded for a part."""
        folder = self.root / sub
        for pattern in ("*.safetensors", "*.bin"):
            names = sorted(p.name for p in folder.glob(pattern) if not re.search(r"\.(fp16|non_ema)\b", p.name))
            if names:
                return [f"{sub}/{name}" for name in names]
        return []

    def weight_bytes(self, sub: str) -> int:
        """Size of a part's files of weights."""
        return sum((self.root / name).stat().st_size for name in self.weights(sub))

    def fingerprint(self, *files: str) -> bytes:
        """SHA-256 over names and content of files, as for a model folder."""
        digest = hashlib.sha256()
        for name in files:
            with (self.root / name).open("rb") as stream:
                digest.update(name.encode() + b"\0" + hashlib.file_digest(stream, "sha256").digest())
        return digest.digest()

    def require_memory(self, sub: str, bytes_per_weight: int, available: int | None) -> bool:
        """Whether a part fits well, so that it need not save memory; weights are stored with 4 bytes.

        Raises:
            ModelError: its weights alone do not fit.
        """
        needed = self.weight_bytes(sub) * bytes_per_weight // 4
        if available is not None and needed > available:
            raise ModelError(
                f"{sub}/ of {self.name} takes {needed / 1e9:.1f} GB of memory, {available / 1e9:.1f} GB are free: "
                "try --dtype bfloat16, or a smaller checkpoint"
            )
        return available is None or available > 2 * needed + (1 << 30)

    def _complete(self, sub: str) -> bool:
        if self._root is None:
            return False
        if "tokenizer" in sub or sub in ("scheduler", "feature_extractor"):
            return any((self._root / sub).glob("*.json"))
        return (self._root / sub / "config.json").is_file() and bool(self.weights(sub))

    def _fetch(self, sub: str) -> None:
        """From the cache, else from the hub; safetensors, else what there is. The first one pins the revision."""
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, LocalEntryNotFoundError

        error: Exception | None = None
        for local, weights in ((True, "*"), (False, "*.safetensors"), (False, "*.bin")):
            patterns = [f"{sub}/{kind}" for kind in ("*.json", "*.txt", "*.model", weights)]
            options: dict[str, Any] = {"allow_patterns": patterns, "ignore_patterns": ["*.fp16.*", "*.non_ema.*"]}
            try:
                found = Path(
                    snapshot_download(self._repo, revision=self._revision or None, local_files_only=local, **options)
                )
            except GatedRepoError as refused:
                raise ModelError(
                    f"{self._repo} asks for its terms to be accepted: do that at https://huggingface.co/{self._repo}, "
                    "and log in with `hf auth login`"
                ) from refused
            except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as failed:
                error = failed
                continue
            self._root, self._revision = found, found.name
            if self._complete(sub):
                return
        reason = f"{type(error).__name__}: {str(error).strip().splitlines()[0]}" if error else "it is not there"
        raise ModelError(
            f"cannot get {sub}/ of {self._repo} from the hub ({reason}). Where there is a network, "
            f"`hf download {self._repo} --local-dir FOLDER`; then use --model FOLDER"
        ) from error


def free_memory(device: str) -> int | None:
    """Bytes that are free on a device, or None where that is not known."""
    if device.startswith("cuda"):
        import torch

        return torch.cuda.mem_get_info(device)[0]
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) << 10
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return None

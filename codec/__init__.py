"""Signal and models: `Codec` joins front-end, autoencoder, codebook and vocoder."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .codec import Codec as Codec
    from .tokens.dataset import TokenDataset as TokenDataset

__all__ = ["Codec", "TokenDataset"]


def __getattr__(name: str) -> Any:
    if name == "Codec":  # on demand: it imports torch, which `aldm info` must not wait for
        from .codec import Codec

        return Codec
    if name == "TokenDataset":
        from .tokens.dataset import TokenDataset

        return TokenDataset
    raise AttributeError(name)

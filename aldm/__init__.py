"""Neural audio codec with a compact, versioned bitstream: `aldm.Codec` encodes and decodes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .codec import Codec as Codec
    from .codec import TokenDataset as TokenDataset

__all__ = ["Codec", "TokenDataset", "__version__"]


def __getattr__(name: str) -> Any:
    if name == "__version__":  # on demand, as all here: the command must start in no time
        from importlib.metadata import version

        return version("aldm")
    if name in __all__:
        from . import codec

        return getattr(codec, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

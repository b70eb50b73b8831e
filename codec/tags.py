"""Comments of a file ("NAME=value", as in Vorbis comments), and the two names that the codec reserves."""

from __future__ import annotations

from collections.abc import Iterable

MODEL_TAG, PROMPT_TAG = "ALDM_MODEL", "ALDM_PROMPT"


def comment_value(comments: Iterable[str], name: str) -> str | None:
    """Value of the first comment of that name."""
    return next((c.partition("=")[2] for c in comments if c.partition("=")[0] == name), None)


def without_reserved_tags(comments: Iterable[str]) -> list[str]:
    """Comments without the reserved ones, which the tags of a decoded file may have brought along."""
    return [c for c in comments if c.partition("=")[0].upper() not in (MODEL_TAG, PROMPT_TAG)]

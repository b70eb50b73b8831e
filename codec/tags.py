"""Comments of a file ("NAME=value", as in Vorbis comments), and the two names reserved for the codec."""

from __future__ import annotations

from collections.abc import Iterable

MODEL_TAG, PROMPT_TAG = "ALDM_MODEL", "ALDM_PROMPT"
TAG_SHARE = 0.05  # of a file's bytes, that tags taken over from the input may have
RECORD_BYTES = 8  # around a comment, about


def comment_value(comments: Iterable[str], name: str) -> str | None:
    """Value of the first comment of that name."""
    return next((c.partition("=")[2] for c in comments if c.partition("=")[0] == name), None)


def without_reserved_tags(comments: Iterable[str]) -> list[str]:
    """Comments without the reserved ones, which the tags of a decoded file may have brought along."""
    return [c for c in comments if c.partition("=")[0].upper() not in (MODEL_TAG, PROMPT_TAG)]


def affordable_tags(tags: Iterable[str], bitrate: float | None, seconds: float) -> tuple[list[str], list[str]]:
    """Tags that fit into a small share of a file of that bitrate (kbit/s), in order; and those that do not."""
    left = float("inf") if bitrate is None else TAG_SHARE * bitrate * 125 * seconds
    kept, dropped = list[str](), list[str]()
    for tag in without_reserved_tags(tags):
        size = len(tag.encode(errors="replace")) + RECORD_BYTES
        if size <= left:
            kept.append(tag)
            left -= size
        else:
            dropped.append(tag)
    return kept, dropped

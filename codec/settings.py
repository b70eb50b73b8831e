"""Settings of model folders: JSON from strangers, checked before anything is built from it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

Ranges = Mapping[str, tuple[float, float]]  # least and largest value; integers, where the least is one

MAX_BYTES = 1 << 20
MAX_DEPTH = 8  # lists and objects within each other
MAX_ITEMS = 4096  # of a list or an object
MAX_NUMBER = 2**31
MAX_REPEATS = 128  # of what a network has several of
REPEATED = ("layer", "block", "depth", "repeat")  # in names of settings that count such


def read_settings(file: Path) -> dict[str, Any]:
    """The object in a JSON file, whose parts have sizes that a network's settings can have.

    Raises:
        OSError: it cannot be read.
        ValueError: it does not parse, is no object, or has a part out of bounds.
    """
    name = f"{file.parent.name}/{file.name}"
    if not file.is_file():
        raise FileNotFoundError(f"no {name}")
    if file.stat().st_size > MAX_BYTES:
        raise ValueError(f"{name} is larger than {MAX_BYTES >> 20} MB")
    try:
        found = json.loads(file.read_text())
    except RecursionError:
        raise ValueError(f"{name} is nested too deeply") from None
    except ValueError as error:
        raise ValueError(f"{name} is no JSON: {error}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{name} is no JSON object")
    _check_sizes(found, name, MAX_DEPTH, MAX_NUMBER)
    return found


def _check_sizes(value: Any, name: str, depth: int, largest: float) -> None:
    """Raises ValueError where a value, or a part of it, is out of bounds."""
    if isinstance(value, int | float) and not abs(value) <= largest:  # NaN, too
        raise ValueError(f"{name} is out of bounds: {value!r:.40}")
    if isinstance(value, list | dict):
        if depth == 0 or len(value) > MAX_ITEMS:
            raise ValueError(f"{name} is nested too deeply, or too long")
        for key, part in value.items() if isinstance(value, dict) else ((name, part) for part in value):
            repeated = any(word in key for word in REPEATED) and "channels" not in key
            _check_sizes(part, key, depth - 1, MAX_REPEATS if repeated else largest)


def check_ranges(settings: Any, ranges: Ranges) -> dict[str, Any]:
    """Settings without those whose names begin with "_", once their names, types and ranges are right.

    Raises:
        ValueError: they are not.
    """
    if not isinstance(settings, dict):
        raise ValueError(f"settings are an object, not {settings!r:.40}")
    settings = {name: value for name, value in settings.items() if not name.startswith("_")}
    for name, value in settings.items():
        if name not in ranges:
            raise ValueError(f"unknown setting {name:.40}")
        low, high = ranges[name]
        kinds = (int,) if isinstance(low, int) else (int, float)
        if type(value) not in kinds or not low <= value <= high:
            raise ValueError(f"{name} is {low} to {high}, not {value!r:.40}")
    return settings

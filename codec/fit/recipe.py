"""Recipes: TOML files that describe how a model is trained, read and checked before anything runs."""

from __future__ import annotations

import dataclasses
import tomllib
import types
import typing
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from ..dsp.mel import LogMel
from .data.audio_cache import HELD_OUT
from .draft import NETWORKS
from .stages import STAGES, Stage

PLAIN: dict[Any, str] = {int: "a whole number", float: "a number", str: "a string", bool: "true or false"}
DERIVED = {"mel", "n_mels", "latent_channels"}  # sizes of networks that follow from others


class RecipeError(ValueError):
    """A recipe that cannot be run; the message names file and key."""


@dataclass(frozen=True)
class Data:
    """Use of the audio.

    Attributes:
        held_out: per cent of speakers and works that are held out.
    """

    held_out: int = HELD_OUT

    def __post_init__(self) -> None:
        if not 0 <= self.held_out < 100:
            raise ValueError(f"held_out must be from 0 to 99, not {self.held_out}")


@dataclass(frozen=True)
class Recipe:
    """How a model is trained.

    Attributes:
        start: model (folder or name) whose parts are taken first; default: none.
        front_end: of a new model; a model that is started from keeps its own.
        sizes: options of new networks by part.
        table: the file's contents, overrides included.
    """

    name: str
    stages: tuple[Stage, ...]
    start: str = ""
    default_quality: int = 24
    front_end: LogMel = field(default_factory=LogMel)
    data: Data = field(default_factory=Data)
    sizes: dict[str, dict[str, Any]] = field(default_factory=dict)
    table: dict[str, Any] = field(default_factory=dict)


def embedded_recipes() -> dict[str, Path]:
    """Names and files of the recipes inside the package."""
    root = Path(str(resources.files("aldm.codec") / "fit" / "recipes"))
    return {p.stem: p for p in sorted(root.glob("*.toml"))}


def read_recipe(name: str | Path, overrides: typing.Iterable[str] = ()) -> Recipe:
    """Read a recipe of the package by name, or a file.

    Args:
        overrides: "stage.key=value", or with a section in the place of the stage; values as in TOML.

    Raises:
        RecipeError: no such recipe, no valid TOML, or an unknown or wrong key.
    """
    path = embedded_recipes().get(str(name), Path(name))
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, IsADirectoryError) as error:
        known = ", ".join(embedded_recipes())
        raise RecipeError(f"no recipe {name}; in the package: {known}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path.name}: not valid TOML: {error}") from error
    for override in overrides:
        _override(table, override)
    return _recipe(path, table)


def _recipe(path: Path, table: dict[str, Any]) -> Recipe:
    file, rest = path.name, dict(table)
    stages = _stages(file, rest.pop("stages", None))
    networks, sizes = rest.pop("networks", {}), {}
    for name, options in _table(f"{file}: networks", networks).items():
        if name not in NETWORKS:
            raise RecipeError(f"{file}: networks.{name}: unknown network; known: {', '.join(NETWORKS)}")
        sizes[name] = _network_sizes(f"{file}: networks.{name}", name, options)
    if "front_end" in rest and rest.get("start"):
        raise RecipeError(f"{file}: front_end: a model that is started from keeps its own")
    front_end = _build(LogMel, f"{file}: front_end", rest.pop("front_end", {}))
    data = _build(Data, f"{file}: data", rest.pop("data", {}))
    known = {"name": str, "start": str, "default_quality": int}
    for key, value in rest.items():
        if key not in known:
            sections = "front_end, data, networks, stages"
            raise RecipeError(f"{file}: {key}: unknown key; known: {', '.join(known)}, {sections}")
        rest[key] = _convert(value, known[key], f"{file}: {key}")
    return Recipe(
        **{"name": path.stem, **rest}, stages=stages, front_end=front_end, data=data, sizes=sizes, table=table
    )


def _stages(file: str, tables: Any) -> tuple[Stage, ...]:
    if not isinstance(tables, list) or not tables:
        raise RecipeError(f"{file}: stages: at least one [[stages]] is needed")
    found: dict[str, Stage] = {}
    for number, table in enumerate(tables, 1):
        options = dict(_table(f"{file}: stages", table))
        kind = options.pop("kind", None)
        name = options.setdefault("name", kind)
        if not isinstance(kind, str) or kind not in STAGES:
            raise RecipeError(f"{file}: stages.{number}.kind: must be one of {', '.join(STAGES)}, not {kind}")
        if name in found:
            raise RecipeError(f"{file}: stages.{name}.name: two stages have this name")
        found[name] = _build(STAGES[kind], f"{file}: stages.{name}", options)
    return tuple(found.values())


def _network_sizes(where: str, name: str, options: Any) -> dict[str, Any]:
    """Options of a network's constructor, by its annotations."""
    hints = typing.get_type_hints(NETWORKS[name].__init__)
    allowed = {key: hint for key, hint in hints.items() if key not in DERIVED | {"return"}}
    if name == "autoencoder":
        allowed["latent_channels"] = int
    for key in _table(where, options):
        if key not in allowed:
            raise RecipeError(f"{where}.{key}: unknown key; known: {', '.join(allowed)}")
    return {key: _convert(value, allowed[key], f"{where}.{key}") for key, value in options.items()}


def _build(kind: type, where: str, table: Any) -> Any:
    """An object of a dataclass from a table."""
    hints = typing.get_type_hints(kind)
    fields = {f.name: f for f in dataclasses.fields(kind)}
    for key in _table(where, table):
        if key not in fields:
            raise RecipeError(f"{where}.{key}: unknown key; known: {', '.join(fields)}")
    for key, f in fields.items():
        required = f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
        if required and key not in table:
            raise RecipeError(f"{where}.{key}: missing")
    values = {key: _convert(value, hints[key], f"{where}.{key}") for key, value in table.items()}
    try:
        return kind(**values)
    except ValueError as error:
        raise RecipeError(f"{where}.{error}") from error


def _convert(value: Any, hint: Any, where: str) -> Any:
    """A TOML value as a field's type."""
    if isinstance(hint, types.UnionType):  # X | None
        hint = typing.get_args(hint)[0]
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is tuple:
        if not isinstance(value, list):
            raise RecipeError(f"{where}: must be a list, not {value!r}")
        return tuple(_convert(item, inner[0], where) for item in value)
    if origin is dict:
        return {key: _convert(item, inner[1], f"{where}.{key}") for key, item in _table(where, value).items()}
    if hint is float and type(value) is int:
        return float(value)
    if type(value) is not hint:
        raise RecipeError(f"{where}: must be {PLAIN[hint]}, not {value!r}")
    if value != value or (hint in (int, float) and abs(value) > 1e15):
        raise RecipeError(f"{where}: must be finite, not {value!r}")
    if hint is int and value < 0:
        raise RecipeError(f"{where}: must not be negative, not {value}")
    return value


def _table(where: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise RecipeError(f"{where}: must be a table, not {value!r}")
    return value


def _override(table: dict[str, Any], override: str) -> None:
    """Set a value in a recipe's contents."""
    path, equals, text = override.partition("=")
    keys = path.strip().split(".")
    if not equals or not all(keys):
        raise RecipeError(f"--set {override}: must be stage.key=value")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()
    stages = table.get("stages")
    named = [
        s
        for s in (stages if isinstance(stages, list) else [])
        if isinstance(s, dict) and s.get("name", s.get("kind")) == keys[0]
    ]
    if not named and len(keys) > 1 and keys[0] not in ("front_end", "data", "networks"):
        raise RecipeError(f"--set {override}: no stage or section {keys[0]}")
    place = named[0] if named else table
    for key in keys[1 if named else 0 : -1]:
        place = place.setdefault(key, {})
        if not isinstance(place, dict):
            raise RecipeError(f"--set {override}: {key} is not a table")
    place[keys[-1]] = value

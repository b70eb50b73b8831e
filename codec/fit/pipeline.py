"""Runs a recipe: its stages in order, each from the results of earlier ones in the work folder."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import subprocess
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from ..model import Model
from .data.audio_cache import AudioCache
from .draft import Draft
from .log import TrainingLog
from .recipe import Recipe
from .stages import Job, Stage, TrainingStage


def run_recipe(
    recipe: Recipe,
    data: list[Path],
    out: Path,
    work: Path,
    say: Callable[[str], None],
    only: str | None = None,
) -> Model | None:
    """Make a model and save its folder, with `training.json` beside it.

    Finished stages with unchanged options and predecessors are skipped; an interrupted stage is resumed.

    Args:
        data: folders (searched recursively) or tar shards of audio.
        work: cache of samples, checkpoints, results of stages, `log.jsonl`.
        only: name of one stage to run; those before it must be done.

    Returns:
        The model; None, and nothing is saved, if its tables are still missing.

    Raises:
        ValueError: no such stage, stages before it are missing, a checkpoint is of other options, too little audio.
    """
    names = [stage.name for stage in recipe.stages]
    if only is not None and only not in names:
        raise ValueError(f"recipe {recipe.name} has no stage {only}; it has {', '.join(names)}")
    draft = _start(recipe)
    log = TrainingLog(work, say)
    cache = AudioCache.build(data, work / "audio", draft.mel.sample_rate, say, recipe.data.held_out)
    say(f"{len(cache.clips)} clips, {cache.hours:.2f} h")
    key = _digest([draft.mel.config(), recipe.sizes, recipe.start, recipe.data.held_out, cache.sha256])
    done: list[dict[str, Any]] = []
    for stage in recipe.stages:
        options = dataclasses.asdict(stage)
        steps = options.pop("steps", None)
        options.pop("checkpoint_every", None)  # decides nothing
        checkpoint_key = _digest([key, stage.kind, options])
        key = _digest([checkpoint_key, steps])
        result = work / f"{stage.name}.result.pt"
        stored = torch.load(result, weights_only=True) if result.exists() else None
        if stored is not None and (stored["key"], tuple(stored["parts"])) == (key, stage.changes):
            say(f"{stage.name}: done before")
        elif only in (None, stage.name):
            stored = _run(stage, draft, Job(cache, work, log, checkpoint_key), result, key)
        else:
            raise ValueError(f"stage {only} needs stage {stage.name} first, with these options and data")
        draft.load(stored["parts"])
        done.append(stored["info"])
        if stage.name == only:
            break
    model = draft.model()
    if model is None:
        say("no model is written yet: there are no tables")
        return None
    model.save_pretrained(out)
    info = dict(clips=len(cache.clips), hours=round(cache.hours, 3), sha256=cache.sha256, held_out=cache.held_out)
    made = dict(
        aldm=version("aldm"), torch=torch.__version__, commit=_commit(), recipe=recipe.table, data=info, stages=done
    )
    (out / "training.json").write_text(json.dumps(made, indent=2) + "\n")
    return Model.from_pretrained(out)


def _start(recipe: Recipe) -> Draft:
    if not recipe.start:
        return Draft(recipe.front_end, recipe.default_quality, recipe.sizes)
    draft = Draft.of(Model.from_pretrained(recipe.start))
    draft.sizes = recipe.sizes
    return draft


def _run(stage: Stage, draft: Draft, job: Job, result: Path, key: str) -> dict[str, Any]:
    """Run a stage and write its results."""
    if stage.start:
        other = Draft.of(Model.from_pretrained(stage.start))
        if other.mel != draft.mel:
            raise ValueError(f"stage {stage.name}: start: {stage.start} has another front-end")
        for part in stage.changes:
            setattr(draft, part, getattr(other, part))
    started = time.monotonic()
    job.log.say(f"{stage.name}: starts")
    try:
        held_out = stage.run(draft, job)
    except ValueError as error:
        raise ValueError(f"stage {stage.name}: {error}") from error
    if held_out and not isinstance(stage, TrainingStage):  # a trainer has reported its own
        job.log.held_out(stage.name, 0, held_out)
    options = dict(kind=stage.kind, **dataclasses.asdict(stage))
    info = dict(options=options, held_out=held_out, seconds=round(time.monotonic() - started, 1))
    draft.save(result, stage.changes, key=key, info=info)
    return torch.load(result, weights_only=True)


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _commit() -> str | None:
    """The commit of this code, if it runs from a checkout."""
    here = Path(__file__).resolve()
    git = ["git", "-C", str(here.parent)]
    try:
        subprocess.run([*git, "ls-files", "--error-unmatch", here.name], check=True, capture_output=True)
        return subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None

"""Recipes run: from the command, on after a stop, stage by stage, and with what was done written down."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from aldm.codec import Codec
from aldm.codec.errors import ModelError
from aldm.codec.fit import read_recipe, run_recipe
from aldm.codec.model import Model
from aldm.codec.model_folder import fingerprint
from conftest import DATA, aldm, clip

SMALL = """
[front_end]
n_mels = 40
floor = -10.0

[networks.autoencoder]
latent_channels = 32
width = 32

[[stages]]
kind = "klt"

[[stages]]
kind = "autoencoder"
steps = 60
batch_size = 4
frames = 96
checkpoint_every = 40

[[stages]]
kind = "tables"
hours = 0.01
classes = 4
tables = 64
"""


def silent(line: str) -> None:
    pass


@pytest.fixture
def run(shard: Path, tmp_path: Path) -> Callable[..., Model | None]:
    """Runs SMALL in a folder of its own."""
    path = tmp_path / "small.toml"
    path.write_text(SMALL)

    def go(name: str, *overrides: str, say: Callable[[str], None] = silent, only: str | None = None) -> Model | None:
        recipe = read_recipe(path, overrides)
        return run_recipe(recipe, [shard], tmp_path / name, tmp_path / f"{name}.work", say, only)

    return go


@pytest.mark.slow
def test_linear_model_from_the_command(shard: Path, tmp_path: Path) -> None:
    options = ("--set", "networks.autoencoder.latent_channels=32", "--set", "tables.hours=0.01")
    result = aldm("fit", "klt", shard, "--out", tmp_path / "m", *options)
    assert result.returncode == 0, result.stderr
    assert b"skipped clips.tar/a/broken.wav" in result.stderr
    codec = Codec.from_pretrained(tmp_path / "m")
    wave = clip("speech")
    assert codec.decode(codec.encode(wave, 16000)).shape == (1, len(wave))
    path = tmp_path / "x.aldm"
    assert aldm("encode", DATA / "speech.flac", path, "--model", tmp_path / "m").returncode == 0
    result = aldm("decode", path, tmp_path / "x.wav")
    assert b"needs model" in result.stderr  # a model folder outside the package must be named
    assert aldm("decode", path, tmp_path / "x.wav", "--model", tmp_path / "m").returncode == 0


@pytest.mark.slow
def test_goes_on_after_a_stop(run: Callable[..., Model], tmp_path: Path) -> None:
    whole = run("a")

    class Stop(Exception):
        pass

    def stop_late(line: str) -> None:
        if "step 50/" in line:
            raise Stop

    with pytest.raises(Stop):
        run("b", say=stop_late)
    lines: list[str] = []
    resumed = run("b", say=lines.append)
    assert "klt: done before" in lines
    assert "autoencoder: resumed at step 40" in lines
    again = resumed.autoencoder.state_dict()
    for name, value in whole.autoencoder.state_dict().items():
        torch.testing.assert_close(value, again[name], atol=0.02, rtol=0.05)


@pytest.mark.slow
def test_what_was_done_is_written_down(run: Callable[..., Model], tmp_path: Path) -> None:
    run("m", "autoencoder.seed=7")
    made = json.loads((tmp_path / "m/training.json").read_text())
    klt, autoencoder, tables = made["stages"]
    assert autoencoder["options"]["seed"] == 7
    assert autoencoder["options"]["kind"] == "autoencoder"
    assert 0 < klt["held_out"]["squared_error"] < 1
    assert autoencoder["held_out"]["bits"] > 0
    assert tables["held_out"]["bits_per_vector_40"] > tables["held_out"]["bits_per_vector_16"]
    assert made["data"]["clips"] == 24
    assert len(made["data"]["sha256"]) == 64
    assert made["recipe"]["front_end"]["n_mels"] == 40
    log = [json.loads(line) for line in (tmp_path / "m.work/log.jsonl").read_text().splitlines()]
    assert {line["stage"] for line in log} == {"klt", "autoencoder", "tables"}
    steps = [line["step"] for line in log if line["stage"] == "autoencoder" and line["part"] == "train"]
    assert steps == [50, 60]
    assert [line["step"] for line in log if line["stage"] == "autoencoder" and line["part"] == "held_out"] == [40, 60]
    before = fingerprint(tmp_path / "m")
    (tmp_path / "m/training.json").unlink()  # says nothing of what files mean
    assert fingerprint(tmp_path / "m") == before


def test_stages_one_by_one(run: Callable[..., Model | None], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="stage autoencoder needs stage klt first"):
        run("m", only="autoencoder")
    assert run("m", only="klt") is None
    assert not (tmp_path / "m").exists()
    assert run("m", "autoencoder.steps=3", only="autoencoder") is None
    assert run("m", "autoencoder.steps=3", only="tables") is not None
    lines: list[str] = []
    # more steps: the stage goes on, and what comes after it is made anew
    run("m", "autoencoder.steps=4", say=lines.append)
    assert "klt: done before" in lines
    assert "autoencoder: resumed at step 3" in lines
    assert "tables: starts" in lines
    with pytest.raises(ValueError, match="is of other data or options; remove it to start anew"):
        run("m", "autoencoder.seed=1")
    with pytest.raises(ValueError, match="has 4 steps already; remove it for 2"):
        run("m", "autoencoder.steps=2")
    with pytest.raises(ValueError, match="no stage decoder; it has klt, autoencoder, tables"):
        run("m", only="decoder")


def test_nothing_to_fit(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    result = aldm("fit", "klt", tmp_path / "empty", "--out", tmp_path / "m")
    assert result.returncode == 1
    assert b"no readable audio" in result.stderr
    with pytest.raises(ModelError, match="no model"):
        Codec.from_pretrained(tmp_path / "m")


def test_a_stage_without_what_it_needs(shard: Path, tmp_path: Path) -> None:
    path = tmp_path / "r.toml"
    path.write_text('[[stages]]\nkind = "tables"\n')
    with pytest.raises(ValueError, match="there is no autoencoder yet"):
        run_recipe(read_recipe(path), [shard], tmp_path / "m", tmp_path / "w", silent)

"""Recipes are read and checked: what is wrong is one line with file and key."""

import json
from pathlib import Path
from typing import Any

import pytest
from aldm.codec.fit import RecipeError, embedded_recipes, read_recipe
from aldm.codec.model_folder import embedded_models
from conftest import DATA, aldm

GOOD = """
[front_end]
n_fft = 640
n_mels = 80

[networks.autoencoder]
latent_channels = 32
width = 0

[[stages]]
kind = "klt"

[[stages]]
name = "first"
kind = "corrector"
steps = 10
losses = { mel = 2 }
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "mine.toml"
    path.write_text(text)
    return path


def test_a_recipe_is_read(tmp_path: Path) -> None:
    recipe = read_recipe(write(tmp_path, GOOD))
    assert recipe.name == "mine"
    assert (recipe.front_end.n_fft, recipe.front_end.n_mels, recipe.front_end.hop_length) == (640, 80, 160)
    assert recipe.sizes == {"autoencoder": {"latent_channels": 32, "width": 0}}
    klt, first = recipe.stages
    assert (klt.name, klt.kind) == ("klt", "klt")
    assert first.steps == 10
    assert first.weights["mel"] == 2  # what is not given keeps its default
    assert first.weights["texture"] == 16


def test_overrides(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD)
    options = ("first.steps=20", "first.losses.texture = 3", "first.precision=float32", "networks.corrector.width=8")
    recipe = read_recipe(path, (*options, "front_end.n_fft=512"))
    first = recipe.stages[1]
    assert (first.steps, first.precision, first.weights["texture"], first.weights["mel"]) == (20, "float32", 3, 2)
    assert recipe.sizes["corrector"] == {"width": 8}
    assert recipe.front_end.n_fft == 512
    for wrong, message in (
        ("second.steps=1", "no stage or section second"),
        ("first.steps", "must be stage.key=value"),
        ("first.stepz=1", "mine.toml: stages.first.stepz: unknown key"),
        ("first.steps=many", "mine.toml: stages.first.steps: must be a whole number, not 'many'"),
        ("first.losses=1", "mine.toml: stages.first.losses: must be a table"),
        ("first.steps.x=1", "steps is not a table"),
    ):
        with pytest.raises(RecipeError, match=message):
            read_recipe(path, [wrong])


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[front_end]", "speed = 3\n[front_end]", "mine.toml: speed: unknown key; known: name, start"),
        ("[front_end]", "name = 3\n[front_end]", "mine.toml: name: must be a string, not 3"),
        ("n_fft = 640", "n_ftt = 640", "mine.toml: front_end.n_ftt: unknown key"),
        ("n_fft = 640", "n_fft = 641", "mine.toml: front_end.n_fft must be even"),
        ("n_fft = 640", "n_fft = 160", "mine.toml: front_end.n_fft must be even, and at least two hops"),
        (
            "[networks.autoencoder]",
            "[networks.encoder]",
            "mine.toml: networks.encoder: unknown network; known: autoencod",
        ),
        ("width = 0", "depth = 0", "mine.toml: networks.autoencoder.depth: unknown key"),
        ("width = 0", "width = 0.5", "mine.toml: networks.autoencoder.width: must be a whole number, not 0.5"),
        (
            "[networks.autoencoder]",
            "[data]\nheld_out = 100\n[networks.autoencoder]",
            "mine.toml: data.held_out must be",
        ),
        ('kind = "klt"', 'kind = "ktl"', "mine.toml: stages.1.kind: must be one of klt, grow, autoencoder"),
        ('kind = "klt"', 'kind = "klt"\nhours = 0', "mine.toml: stages.klt.hours must be above 0, not 0"),
        ('kind = "klt"', 'kind = "klt"\nhours = nan', "mine.toml: stages.klt.hours: must be finite"),
        ('name = "first"', 'name = "klt"', "mine.toml: stages.klt.name: two stages have this name"),
        ("steps = 10", "", "mine.toml: stages.first.steps: missing"),
        ("steps = 10", "steps = 0", "mine.toml: stages.first.steps must be above 0"),
        ("steps = 10", "steps = 10\nseed = -1", "mine.toml: stages.first.seed: must not be negative, not -1"),
        ("n_fft = 640", "hop_length = 0", "mine.toml: front_end.hop_length is 1 to"),
        ("steps = 10", "steps = true", "mine.toml: stages.first.steps: must be a whole number, not True"),
        ("steps = 10", 'steps = 10\ntrain = ["denoiser"]', "mine.toml: stages.first.train must name some of corrector"),
        ("steps = 10", "steps = 10\ntrain = 1", "mine.toml: stages.first.train: must be a list"),
        ("steps = 10", "steps = 10\nprojections = 3", "mine.toml: stages.first.projections must be 0, 1 or 2"),
        ("steps = 10", 'steps = 10\nprecision = "half"', "mine.toml: stages.first.precision must be one of auto"),
        ("steps = 10", "steps = 10\nsynthetic = 2", "mine.toml: stages.first.synthetic must be from 0 to 1"),
        ("mel = 2", "mell = 2", "mine.toml: stages.first.losses.mell: unknown loss; known: mel, fine"),
        ("mel = 2", 'mel = "2"', "mine.toml: stages.first.losses.mel: must be a number"),
        ("steps = 10", "steps = = 10", "mine.toml: not valid TOML"),
        (GOOD, "name = 'x'", "mine.toml: stages: at least one"),
        ("[front_end]", "start = 'base'\n[front_end]", "mine.toml: front_end: a model that is started from keeps"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in GOOD
    with pytest.raises(RecipeError) as caught:
        read_recipe(write(tmp_path, GOOD.replace(old, new, 1)))
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_no_such_recipe(tmp_path: Path) -> None:
    result = aldm("fit", tmp_path / "none.toml", DATA, "--out", tmp_path / "m")
    assert result.returncode == 1
    assert b"no recipe" in result.stderr
    assert b"in the package: base, klt" in result.stderr
    assert result.stderr.count(b"\n") == 1


@pytest.mark.parametrize("name", ["base", "klt"])
def test_recipes_of_the_package_have_its_models_sizes(name: str) -> None:
    """Front-end and networks are those of the shipped folder."""
    recipe, folder = read_recipe(embedded_recipes()[name]), embedded_models()[name]

    def stored(file: str) -> dict[str, Any]:
        return {k: v for k, v in json.loads((folder / file).read_text()).items() if not k.startswith("_")}

    codec = stored("codec/config.json")
    assert recipe.front_end.config() == codec["mel"]
    assert recipe.default_quality == codec["default_quality"]
    files = dict(
        autoencoder="vae/config.json",
        predictor="codec/predictor.json",
        magnitude_net="vocoder/config.json",
        corrector="vocoder/corrector.json",
        denoiser="unet/config.json",
    )
    kinds = {stage.kind for stage in recipe.stages}
    for network, file in files.items():
        assert (network in recipe.sizes) == (folder / file).exists()
        if network in recipe.sizes:
            config = stored(file)
            assert {k: config.get(k, v) for k, v in recipe.sizes[network].items()} == recipe.sizes[network]
    assert {"klt", "tables"} <= kinds
    assert ("tokens" in kinds) == (folder / "codec/vq.safetensors").exists()

"""What the decoder that was written from the specification knows of AudioLDM 2 folders, held against the product."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from aldm.codec.audioldm2.model import AudioLDM2
from aldm.codec.audioldm2.unet import CONDITION
from aldm.codec.model_folder import TABLES
from reference import reference
from safetensors.torch import load_file, save_file
from test_golden import GOLDEN, MODELS

pytestmark = pytest.mark.filterwarnings("ignore::aldm.codec.errors.AldmWarning")
WEIGHTS = "diffusion_pytorch_model"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return shutil.copytree(MODELS["audioldm2"], tmp_path / "a")


def check(folder: Path) -> Any:
    """Both of them load it and give it the same name."""
    theirs, ours = AudioLDM2.from_pretrained(folder), reference.Model(folder)
    assert ours.fingerprint == theirs.fingerprint
    assert ours.denoiser == (theirs.denoiser.fingerprint if theirs.denoiser else bytes(32))[: len(ours.denoiser)]
    assert bool(ours.denoiser) == (theirs.denoiser is not None)
    assert ours.qualities == theirs.codebook.levels
    assert [ours.vectors(hops) for hops in (4, 64, 1024)] == [theirs.vectors_of(hops) for hops in (4, 64, 1024)]
    return ours


def test_which_files_make_the_fingerprint(folder: Path) -> None:
    names = {check(folder).fingerprint}
    for part in ("vae", "unet"):  # variants are not loaded
        for variant in ("fp16", "non_ema", "fp16-00001-of-00002"):
            shutil.copy(folder / part / f"{WEIGHTS}.safetensors", folder / part / f"{WEIGHTS}.{variant}.safetensors")
    assert check(folder).fingerprint in names
    (folder / "codec").mkdir()
    (folder / "codec/config.json").write_text("{}")
    condition = dict(sequence=torch.zeros(1, 8, 4), text=torch.zeros(1, 1, 8), mask=torch.ones(1, 1))
    plain = check(folder)
    save_file(condition, folder / CONDITION)
    told = check(folder)
    assert plain.fingerprint == told.fingerprint in names
    assert plain.denoiser != told.denoiser
    shutil.copy(MODELS["audioldm2-fitted"] / TABLES, folder / TABLES)
    assert check(folder).fingerprint not in names
    shutil.rmtree(folder / "unet")
    assert not check(folder).denoiser


def test_weights_of_the_older_kind(folder: Path) -> None:
    before = check(folder)
    for part in ("vae", "unet"):
        file = folder / part / f"{WEIGHTS}.safetensors"
        torch.save(load_file(file), file.with_suffix(".bin"))
    assert check(folder).fingerprint == before.fingerprint  # they only count where there are no others
    for part in ("vae", "unet"):
        (folder / part / f"{WEIGHTS}.safetensors").unlink()
    after = check(folder)
    assert after.fingerprint != before.fingerprint
    assert after.denoiser != before.denoiser


def test_a_layer_on_a_quality_that_the_denoiser_does_not_know(tmp_path: Path) -> None:
    """Of the package's kind: those of AudioLDM 2 know all."""
    folder = shutil.copytree(MODELS["tiny"], tmp_path / "tiny")
    model, data = reference.Model(folder), (GOLDEN / "valid/both.aldm").read_bytes()  # of quality 10
    assert reference.read(data, model).packets[0].layer
    settings = json.loads((folder / "unet/config.json").read_text())
    assert model.refinable == settings["levels"] == 32
    for levels, kept in ((11, True), (10, False)):
        model.refinable = levels
        file = reference.read(data, model)
        assert bool(file.packets[0].layer) == kept
        assert bool(file.damage) != kept
    assert reference.Model(MODELS["audioldm2"]).refinable == reference.NO_BASE

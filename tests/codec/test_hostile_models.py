"""Model folders from strangers: each is refused at once, in one line, and without a network."""

import json
import os
import shutil
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aldm.codec import Codec
from aldm.codec.errors import ModelError
from conftest import DATA, aldm, clip
from safetensors.numpy import load_file, save_file

GOLDEN = Path(__file__).parents[1] / "golden"
VAE, CODEC, UNET, SCHEDULER = (
    "vae/config.json", "codec/config.json", "unet/config.json", "scheduler/scheduler_config.json",
)  # fmt: skip
TABLES, VAE_WEIGHTS, UNET_WEIGHTS = (
    "codec/tables.safetensors", "vae/diffusion_pytorch_model.safetensors", "unet/diffusion_pytorch_model.safetensors",
)  # fmt: skip
MEL = json.loads((GOLDEN / "model" / CODEC).read_text())["mel"]
LONG = 10**12

Change = Callable[[Path], object]
Arrays = dict[str, Any]


def content(file: str, data: str | bytes) -> Change:
    return lambda folder: (folder / file).write_bytes(data.encode() if isinstance(data, str) else data)


def config(file: str, **changes: Any) -> Change:
    def change(folder: Path) -> None:
        (folder / file).write_text(json.dumps(json.loads((folder / file).read_text()) | changes))

    return change


def mel(**changes: Any) -> Change:
    return config(CODEC, mel=MEL | changes)


def arrays(file: str, change: Callable[[Arrays], Arrays]) -> Change:
    return lambda folder: save_file(change(load_file(folder / file)), folder / file)


def array(file: str, name: str, change: Callable[[Any], Any]) -> Change:
    return arrays(file, lambda found: found | {name: np.ascontiguousarray(change(found[name]))})


def floats(file: str, value: float) -> Change:
    """All numbers of a file of weights."""
    return arrays(file, lambda found: {name: np.full_like(a, value) for name, a in found.items()})


def header(text: str, size: int | None = None) -> bytes:
    return struct.pack("<Q", len(text) if size is None else size) + text.encode()


SETTINGS = {
    "list": content(VAE, "[]"),
    "null": content(VAE, "null"),
    "string": content(VAE, '"someone/model"'),
    "number": content(VAE, "1"),
    "nested": content(VAE, "[" * 100000),
    "nested, complete": content(VAE, '{"n_mels":' + "[" * 900 + "]" * 900 + "}"),
    "no JSON": content(VAE, "{"),
    "no UTF-8": content(VAE, b"\xff\xfe{}"),
    "many digits": content(VAE, '{"patch": ' + "9" * 10000 + "}"),
    "large": content(VAE, '{"_comment": "' + "x" * (1 << 21) + '"}'),
    "patch 0": config(VAE, patch=0),
    "patch below 0": config(VAE, patch=-16),
    "patch a string": config(VAE, patch="16"),
    "patch true": config(VAE, patch=True),
    "patch 2": config(VAE, patch=2),
    "patch 17": config(VAE, patch=17),
    "patch huge": config(VAE, patch=10**30),
    "patch a float": config(VAE, patch=16.0),
    "patch missing": lambda folder: (folder / VAE).write_text('{"n_mels": 32}'),
    "bands huge": config(VAE, n_mels=10**9),
    "latent huge": config(VAE, latent_channels=LONG),
    "width huge": config(VAE, width=10**7),
    "width 8192": config(VAE, width=8192, blocks=64),
    "width below 0": config(VAE, width=-1),
    "width 1": config(VAE, width=1),
    "a billion blocks": config(VAE, blocks=10**9, width=8),
    "blocks below 0": config(VAE, blocks=-1, width=8),
    "unknown": config(VAE, foo=1),
    "codec a list": content(CODEC, "[]"),
    "codec null": content(CODEC, "null"),
    "mel a list": config(CODEC, mel=[]),
    "mel missing": content(CODEC, '{"default_quality": 3}'),
    "quality a string": config(CODEC, default_quality="x"),
    "quality infinite": config(CODEC, default_quality=float("inf")),
    "quality above the range of floats": content(CODEC, '{"default_quality": 1e999}'),
    "quality huge": config(CODEC, default_quality=10**9),
    "quality below 0": config(CODEC, default_quality=-1),
    "quality missing": lambda folder: (folder / CODEC).write_text(json.dumps({"mel": MEL})),
    "n_fft 0": mel(n_fft=0),
    "n_fft huge": mel(n_fft=2**34),
    "hop 0": mel(hop_length=0),
    "hop 1": mel(hop_length=1),
    "hop huge": mel(hop_length=10**9),
    "rate 0": mel(sample_rate=0),
    "rate below 0": mel(sample_rate=-1),
    "rate 1": mel(sample_rate=1),
    "rate not of the hop": mel(sample_rate=48000),
    "no bands": mel(n_mels=0),
    "a million bands": mel(n_mels=10**6),
    "other bands": mel(n_mels=64),
    "fmin not a number": mel(fmin=float("nan")),
    "fmax below fmin": mel(fmin=4000.0, fmax=100.0),
    "floor above 0": mel(floor=1e30),
    "unet a list": content(UNET, "[]"),
    "unet huge": config(UNET, width=10**7),
    "unet missing": lambda folder: (folder / UNET).unlink(),
    "levels a string": config(UNET, levels="x"),
    "levels below 0": config(UNET, levels=-1),
    "schedule a list": content(SCHEDULER, "[]"),
    "schedule null": content(SCHEDULER, "null"),
    "schedule of the hub": content(SCHEDULER, '"someone/scheduler"'),
    "schedule of many steps": config(SCHEDULER, num_train_timesteps=LONG),
    "schedule of another prediction": config(SCHEDULER, prediction_type="epsilon"),
    "schedule of no prediction": config(SCHEDULER, prediction_type=["x"]),
    "schedule of too few betas": config(SCHEDULER, trained_betas=[0.1]),
    "schedule with a beta of 1": config(SCHEDULER, trained_betas=[1.0] * 1000),
    "schedule with betas of strings": config(SCHEDULER, trained_betas=["0.1"] * 1000),
    "schedule of noise alone": config(SCHEDULER, trained_betas=[0.9] * 1000),
    "schedule missing": lambda folder: (folder / SCHEDULER).unlink(),
}  # fmt: skip
WEIGHTS = {
    "empty": content(VAE_WEIGHTS, b""),
    "header huge": content(VAE_WEIGHTS, header("{}", 2**63)),
    "header longer than the file": content(VAE_WEIGHTS, header("{}", 10**8)),
    "shape huge": content(
        VAE_WEIGHTS, header('{"a":{"dtype":"F32","shape":[1000000000000],"data_offsets":[0,4]}}') + bytes(4)
    ),
    "shape below 0": content(VAE_WEIGHTS, header('{"a":{"dtype":"F32","shape":[-1],"data_offsets":[4,0]}}')),
    "pickle": content(VAE_WEIGHTS, b"\x80\x04cos\nsystem\n(S'exit 1'\ntR."),
    "not numbers": floats(VAE_WEIGHTS, np.nan),
    "infinite": floats(VAE_WEIGHTS, np.inf),
    "large": floats(VAE_WEIGHTS, 6e4),
    "one missing": arrays(VAE_WEIGHTS, lambda found: dict(list(found.items())[1:])),
    "one more": arrays(VAE_WEIGHTS, lambda found: found | {"mean.scale": np.ones(3, np.float32)}),
    "other shape": array(VAE_WEIGHTS, "basis", lambda a: a.T),
    "other type": array(VAE_WEIGHTS, "basis", lambda a: a.astype(np.int64)),
    "8 bits without scales": array(VAE_WEIGHTS, "basis", lambda a: a.astype(np.int8)),
    "8 bits with too few scales": arrays(
        VAE_WEIGHTS,
        lambda found: found | {"basis": found["basis"].astype(np.int8), "basis.scale": np.ones(1, np.float32)},
    ),
    "8 bits with infinite scales": arrays(
        VAE_WEIGHTS,
        lambda found: found | {"basis": np.full((24, 512), 100, np.int8), "basis.scale": np.full(24, 3e38, np.float32)},
    ),
    "scale 0": array(VAE_WEIGHTS, "scale", lambda a: a * 0),
    "denoiser not numbers": floats(UNET_WEIGHTS, np.nan),
    "denoiser large": floats(UNET_WEIGHTS, 6e4),
    "denoiser without deviations": array(UNET_WEIGHTS, "deviation", lambda a: a * 0),
    "denoiser of other latents": lambda folder: (
        config(UNET, latent_channels=1)(folder),
        arrays(UNET_WEIGHTS, lambda found: {
            name: np.ascontiguousarray(
                a[:1] if name in ("mean", "output.weight", "output.bias") else
                a[:, :1] if name == "deviation" else a[:, :2] if name == "input.weight" else a
            ) for name, a in found.items()
        })(folder),
    ),
    "vector codebook not numbers": lambda folder: save_file(
        dict(codes=np.full((3, 1024, 8), np.nan, np.float16), level=np.array(3, np.int32)),
        folder / "codec/vq.safetensors",
    ),
    "vector codebook of more channels": lambda folder: save_file(
        dict(codes=np.ones((4, 1024, 8), np.float16), level=np.array(3, np.int32)), folder / "codec/vq.safetensors"
    ),
    "vector codebook of no level": lambda folder: save_file(
        dict(codes=np.ones((3, 1024, 8), np.float16), level=np.array(48, np.int32)), folder / "codec/vq.safetensors"
    ),
    "bank 1d": array(TABLES, "bank", lambda a: a.reshape(-1)),
    "bank 0": array(TABLES, "bank", lambda a: a * 0),
    "bank below 0": array(TABLES, "bank", lambda a: -a),
    "bank empty": array(TABLES, "bank", lambda a: a[:0]),
    "bank even": array(TABLES, "bank", lambda a: a[:, :-1]),
    "bank of one symbol": array(TABLES, "bank", lambda a: a[:, :1]),
    "bank of no numbers": array(TABLES, "bank", lambda a: np.full(a.shape, np.nan, np.float32)),
    "bank missing": arrays(TABLES, lambda found: {name: a for name, a in found.items() if name != "bank"}),
    "choice beyond the bank": array(TABLES, "choice", lambda a: np.full_like(a, 255)),
    "choice of floats": array(TABLES, "choice", lambda a: a.astype(np.float32)),
    "choice without levels": array(TABLES, "choice", lambda a: a[:0]),
    "choice without classes": array(TABLES, "choice", lambda a: a[:, :0]),
    "choice of fewer channels": array(TABLES, "choice", lambda a: a[:, :, :-1]),
    "choice below 0": array(TABLES, "choice", lambda a: np.full(a.shape, -1, np.int8)),
    "choice 2d": array(TABLES, "choice", lambda a: a[0]),
    "transitions below 0": array(TABLES, "transitions", lambda a: -a),
    "transitions empty": array(TABLES, "transitions", lambda a: a[:0]),
    "transitions 0": array(TABLES, "transitions", lambda a: a * 0),
    "gains not numbers": array(TABLES, "gains", lambda a: a * np.float16("nan")),
    "gains infinite": array(TABLES, "gains", lambda a: a * np.float16("inf")),
    "gains 0": array(TABLES, "gains", lambda a: a * 0),
    "gains of fewer levels": array(TABLES, "gains", lambda a: a[:3]),
    "gains 1d": array(TABLES, "gains", lambda a: a[0]),
    "gains below 0": array(TABLES, "gains", lambda a: -a),
}  # fmt: skip
CASES = {**SETTINGS, **{f"weights: {name}": change for name, change in WEIGHTS.items()}}

CHECKPOINT = {
    "nested": content(VAE, "[" * 100000),
    "list": content(VAE, "[]"),
    "channels huge": config(VAE, block_out_channels=[4, 4, 1 << 20]),
    "channels not whole": config(VAE, block_out_channels=[4, 4, float("nan")]),
    "channels a number": config(VAE, block_out_channels=4),
    "latents huge": config(VAE, latent_channels=LONG),
    "latents a string": config(VAE, latent_channels="x"),
    "scaling infinite": config(VAE, scaling_factor=float("inf")),
    "scaling 0": config(VAE, scaling_factor=0.0),
    "a billion layers": config(VAE, layers_per_block=10**9),
    "unknown blocks": config(VAE, down_block_types=["x"] * 3),
    "not numbers": floats(VAE_WEIGHTS, np.nan),
    "weights empty": content(VAE_WEIGHTS, b""),
    "adapter": content("vae/adapter_config.json", '{"base_model_name_or_path": "someone/model"}'),
    "tables": content(TABLES, b""),
    "gains": array(TABLES, "gains", lambda a: a * 0),
}


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def connect(*_: object) -> None:
        raise AssertionError("something asks a server")

    monkeypatch.setattr(socket.socket, "connect", connect)
    monkeypatch.setattr(socket, "getaddrinfo", connect)


def refusal(model: str, change: Change, folder: Path) -> str:
    shutil.copytree(GOLDEN / model, folder)
    change(folder)
    with pytest.raises(ModelError) as caught:
        Codec.from_pretrained(folder)
    return str(caught.value)


@pytest.mark.parametrize("case", CASES)
def test_a_folder_is_refused_in_one_line_that_names_it(case: str, tmp_path: Path) -> None:
    said = refusal("model", CASES[case], tmp_path / "stranger")
    assert "stranger" in said
    assert "\n" not in said


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::aldm.codec.errors.AldmWarning")
@pytest.mark.parametrize("case", CHECKPOINT)
def test_a_checkpoint_is_refused_in_one_line_that_names_it(case: str, tmp_path: Path) -> None:
    said = refusal("model-audioldm2-fitted", CHECKPOINT[case], tmp_path / "stranger")
    assert "stranger" in said
    assert "\n" not in said


@pytest.mark.filterwarnings("ignore::aldm.codec.errors.AldmWarning")
@pytest.mark.parametrize(
    "change",
    [
        content(SCHEDULER, '"someone/scheduler"'),
        config(SCHEDULER, num_train_timesteps=LONG),
        config(SCHEDULER, beta_end=1e9),
        config(SCHEDULER, prediction_type="sample"),
        config(UNET, block_out_channels=[1 << 20, 1 << 20]),
        floats(UNET_WEIGHTS, np.nan),
    ],
)
def test_parts_of_a_checkpoint_are_refused_when_they_are_used(change: Change, tmp_path: Path) -> None:
    change(shutil.copytree(GOLDEN / "model-audioldm2", tmp_path / "stranger"))
    codec = Codec.from_pretrained(tmp_path / "stranger")
    with pytest.raises(ModelError, match="stranger"):
        codec.encode(clip("speech")[:4000], 16000, layers="both", steps=2)


def test_a_folder_of_pipes_does_not_hang(tmp_path: Path) -> None:
    for file in (VAE, SCHEDULER, CODEC):
        folder = shutil.copytree(GOLDEN / "model", tmp_path / file.partition("/")[0])
        (folder / file).unlink()
        os.mkfifo(folder / file)
        with pytest.raises(ModelError):
            Codec.from_pretrained(folder)


@pytest.mark.slow
def test_the_command_says_it_in_one_line(tmp_path: Path) -> None:
    CASES["a billion blocks"](shutil.copytree(GOLDEN / "model", tmp_path / "stranger"))
    done = aldm("encode", DATA / "speech.flac", tmp_path / "out.aldm", "--model", tmp_path / "stranger")
    assert done.returncode == 1
    assert done.stderr.decode().count("\n") == 1
    assert "blocks" in done.stderr.decode()
    assert not (tmp_path / "out.aldm").exists()

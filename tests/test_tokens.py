"""`aldm batch --tokens`: shards of real clips, and the data set that reads them."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
import torch
import webdataset
from aldm.codec import Codec, TokenDataset
from aldm.codec.tokens.shards import read_shard
from conftest import DATA, DOMAINS, aldm, clip
from pyarrow import parquet
from torch.utils.data import DataLoader

KINDS = {"parquet": "parquet", "webdataset": "tar"}


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight clips: real ones, two of the same stem, stereo, short ones; and a broken file."""
    root = tmp_path_factory.mktemp("library")
    (root / "talk").mkdir()
    for name in DOMAINS:
        shutil.copy(DATA / f"{name}.flac", root)
    sf.write(root / "talk/a.wav", clip("music")[:24000], 16000)
    sf.write(root / "talk/a.flac", clip("environment")[:9000], 16000)
    sf.write(root / "talk/v1.2.wav", np.stack([clip("speech")[:20000], clip("music")[:20000]], 1), 8000)
    for name in ("talk/c", "talk/d"):
        sf.write(root / f"{name}.wav", clip("speech")[:3000], 16000)
    (root / "talk/broken.wav").write_bytes(b"RIFF, but not really")
    return root


NAMES = ["environment", "music", "speech", "talk/a.flac", "talk/a.wav", "talk/c", "talk/d", "talk/v1.2"]


@pytest.fixture(scope="module")
def folders(library: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Shards of three clips, in both formats."""
    out = tmp_path_factory.mktemp("tokens")
    for kind in KINDS:
        options = ("--tokens", "--shards", kind, "--shard-size", 3, "--jobs", 1)
        result = aldm("batch", library, "--out", out / kind, *options)
        assert result.returncode == 3, result.stderr
        assert b"broken.wav: not readable as audio" in result.stderr
        assert b"8 coded, 0 done before, 1 failed" in result.stderr
    return {kind: out / kind for kind in KINDS}


def names(shards: Path | TokenDataset, **options: object) -> list[str]:
    data = shards if isinstance(shards, TokenDataset) else TokenDataset(shards)
    return [item["name"] for item in DataLoader(data, batch_size=None, **options)]  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", KINDS)
def test_tokens_are_the_codecs(kind: str, folders: dict[str, Path], library: Path, codec: Codec) -> None:
    clips = list(TokenDataset(folders[kind]))
    assert [c["name"] for c in clips] == NAMES
    for item in clips:
        expected = codec.tokens(library / item["path"], codebook="vq")
        assert torch.equal(item["tokens"], expected)
        assert item["tokens"].dtype == torch.int32
        assert tuple(expected.shape) == (item["channels"], item["frames"], item["groups"])
        info = sf.info(library / item["path"])
        assert (item["samples"], item["sample_rate"]) == (info.frames, info.samplerate)
        assert (item["model"], item["codebook"]) == (codec.model.fingerprint.hex(), "vq")
    speech = clips[NAMES.index("speech")]
    wave = codec.detokenize(speech["tokens"], codebook=speech["codebook"], quality=speech["quality"])
    assert np.array_equal(wave, codec.detokenize(codec.tokens(library / "speech.flac", codebook="vq"), codebook="vq"))
    mel, original = (codec.model.mel(torch.from_numpy(w[None, :64000])) for w in (wave[0], clip("speech")))
    assert (mel - mel.mean() - original + original.mean()).abs().mean() < 1


def test_other_programs_read_the_shards(folders: dict[str, Path], codec: Codec, library: Path) -> None:
    table = parquet.read_table(folders["parquet"] / "tokens-000000.parquet")
    facts = json.loads(table.schema.metadata[b"aldm"])
    assert facts["model"] == codec.model.fingerprint.hex()
    row = table.to_pylist()[2]
    expected = codec.tokens(library / "speech.flac", codebook="vq")
    assert row["name"] == "speech"
    assert row["tokens"] == expected.ravel().tolist()
    tars = [str(path) for path in sorted(folders["webdataset"].glob("*.tar"))]
    samples = list(webdataset.WebDataset(tars, shardshuffle=False).decode())
    assert [s["json"]["name"] for s in samples] == NAMES
    assert np.array_equal(samples[2]["npy"], expected)
    assert samples[2]["npy"].dtype == np.int16


def test_scalar_tokens(tmp_path: Path, codec: Codec) -> None:
    options = ("--tokens", "--codebook", "scalar", "--jobs", 1)
    assert aldm("batch", DATA / "music.flac", "--out", tmp_path, *options).returncode == 0
    (item,) = TokenDataset(tmp_path)
    assert item["quality"] == codec.model.default_quality
    assert torch.equal(item["tokens"], codec.tokens(DATA / "music.flac"))
    # another quality is another data set
    result = aldm("batch", DATA / "music.flac", "--out", tmp_path, *options, "--quality", 3)
    assert result.returncode == 1
    assert b"was made with other options; --force removes such shards" in result.stderr
    assert aldm("batch", DATA / "music.flac", "--out", tmp_path, *options, "--quality", 3, "--force").returncode == 0
    (item,) = TokenDataset(tmp_path)
    assert torch.equal(item["tokens"], codec.tokens(DATA / "music.flac", quality=3))


@pytest.mark.parametrize("kind", KINDS)
def test_every_clip_comes_once(kind: str, folders: dict[str, Path]) -> None:
    assert sorted(names(folders[kind], num_workers=2)) == NAMES
    parts = [names(TokenDataset(folders[kind], rank=rank, world_size=2)) for rank in range(2)]
    assert sorted(parts[0] + parts[1]) == NAMES
    assert [len(part) for part in parts] == [6, 2]  # shards of 3, of 2 and what was broken, and of 3
    whole = TokenDataset(str(folders[kind] / "tokens-*"), shuffle=4, seed=1)
    orders = [names(whole, num_workers=2), names(whole, num_workers=2)]
    loader = DataLoader(whole, batch_size=None, num_workers=2, persistent_workers=True)
    for epoch in (0, 1):
        whole.set_epoch(epoch)
        orders.append([item["name"] for item in loader])
    assert orders[0] == orders[1] == orders[2] != orders[3]
    assert [sorted(order) for order in orders] == [NAMES] * 4


def test_a_killed_run_goes_on_to_the_same_shards(tmp_path: Path) -> None:
    library, out, whole = (tmp_path / name for name in ("library", "out", "whole"))
    library.mkdir()
    for number in range(40):
        shutil.copy(DATA / "speech.flac", library / f"{number:02}.flac")
    options = ("--tokens", "--shards", "webdataset", "--shard-size", "2", "--jobs", "1", "--out")
    command = [sys.executable, "-m", "aldm.cli", "batch", str(library), *options, str(out)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True) as process:
        while not (out / "tokens-000001.tar").exists():
            assert process.poll() is None
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGKILL)
    shards = sorted(out.glob("tokens-*"))[:-1]  # of the last, the log may say nothing yet
    done = {path.name: path.stat().st_mtime_ns for path in shards}
    assert 1 <= len(done) < 19
    assert aldm("batch", library, *options, whole).returncode == 0
    result = aldm("batch", library, *options, out)
    assert result.returncode == 0, result.stderr
    assert {name: (out / name).stat().st_mtime_ns for name in done} == done
    assert json.loads((out / "summary.json").read_text())["skipped"] >= 2 * len(done)
    contents = [{path.name: path.read_bytes() for path in folder.glob("tokens-*")} for folder in (out, whole)]
    assert len(contents[0]) == 20
    assert contents[0] == contents[1]
    assert not (out / ".aldm-partial").exists()


def test_what_is_new_or_changed(library: Path, folders: dict[str, Path], tmp_path: Path) -> None:
    new, out = tmp_path / "library", tmp_path / "out"
    shutil.copytree(library, new)
    options = ("--tokens", "--shard-size", 3, "--jobs", 1, "--out", out)
    assert aldm("batch", new, *options).returncode == 3
    before = {path.name: path.read_bytes() for path in out.glob("tokens-*")}
    assert before == {path.name: path.read_bytes() for path in folders["parquet"].glob("tokens-*")}
    shutil.copy(DATA / "speech.flac", new / "talk/broken.wav")  # libsndfile goes by content
    shutil.copy(DATA / "speech.flac", new / "another.flac")
    sf.write(new / "talk/c.wav", clip("music")[:3000], 16000)
    result = aldm("batch", new, *options)
    assert b"5 coded, 5 done before, 0 failed" in result.stderr  # the changed one's whole shard
    read = [[c["name"] for c in read_shard(path)] for path in sorted(out.glob("tokens-*"))]
    assert read == [NAMES[:3], NAMES[3:5], NAMES[5:], ["another", "talk/broken"]]
    same = [name for name, data in before.items() if (out / name).read_bytes() == data]
    assert sorted(same) == ["tokens-000000.parquet", "tokens-000001.parquet"]


def test_what_is_no_data_set(folders: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no shards of tokens"):
        TokenDataset(tmp_path)
    with pytest.raises(ValueError, match="rank 2"):
        TokenDataset(folders["parquet"], rank=2, world_size=2)
    for name, data in {"a.parquet": b"PAR1 or so", "b.tar": b"tar" * 1000}.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ValueError, match=f"{name}: not a shard of tokens"):
            list(TokenDataset(tmp_path / name))
    whole = (folders["webdataset"] / "tokens-000000.tar").read_bytes()
    (tmp_path / "cut.tar").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"cut.tar: not a shard of tokens"):
        list(TokenDataset(tmp_path / "cut.tar"))
    with tarfile.open(folders["webdataset"] / "tokens-000001.tar") as tar, tarfile.open(tmp_path / "c.tar", "w") as out:
        for member in tar:
            handle = tar.extractfile(member)
            assert handle is not None
            data = handle.read().replace(b'"codebook": "vq"', b'"codebook": "qv"')
            out.addfile(member, io.BytesIO(data))
    with pytest.raises(ValueError, match=r"c.tar was made with another model, codebook or quality than"):
        list(TokenDataset([folders["webdataset"] / "tokens-000000.tar", tmp_path / "c.tar"]))


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--shard-size", 3], 2, b"are for --tokens"),
        (["--tokens", "--bitrate", 1], 2, b"--tokens takes no --bitrate"),
        (["--tokens", "--quality", 1], 2, b"--quality with --codebook scalar"),
        (["--tokens", "--model", "klt"], 1, b"model klt has no vector codebook"),
    ],
)
def test_wrong_use(options: list[object], code: int, said: bytes, tmp_path: Path) -> None:
    result = aldm("batch", DATA / "music.flac", "--out", tmp_path, *options)
    assert (result.returncode, said in result.stderr, b"Traceback" in result.stderr) == (code, True, False)

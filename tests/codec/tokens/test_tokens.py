"""`aldm batch --tokens`: shards of real clips, and the data set that reads them."""

import bz2
import gzip
import io
import json
import lzma
import os
import random
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import soundfile as sf
import torch
import webdataset
from aldm.codec import Codec, TokenDataset
from aldm.codec.tokens.shards import read_shard, write_shard
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


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
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


CLIP = dict(name="a", path="a.wav", samples=2560, sample_rate=16000)
ABOUT = CLIP | dict(channels=1, frames=1, groups=16, model="m", codebook="vq", vectors="v", quality=None, clips=1)
IDS = np.zeros((1, 1, 16), np.int16)


def npy(array: object) -> bytes:
    file = io.BytesIO()
    np.save(file, array)  # type: ignore[arg-type]
    return file.getvalue()


def npy_header(text: bytes, data: bytes = b"") -> bytes:
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + data


def tar_of(members: Mapping[str, bytes | str | dict[str, object]]) -> bytes:
    """A tar of bytes, of JSON, and of links to a name."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            if isinstance(content, str):
                member.type, member.linkname = tarfile.SYMTYPE, content
                tar.addfile(member)
                continue
            data = json.dumps(content).encode() if isinstance(content, dict) else content
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return file.getvalue()


def refuse(path: Path, data: bytes) -> str:
    path.write_bytes(data)
    with pytest.raises(ValueError, match=f"{path.name}: not a shard of tokens: ") as caught:
        list(TokenDataset([path]))
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def test_hostile_arrays(tmp_path: Path) -> None:
    """They are refused before memory is taken for what they claim."""
    archive = io.BytesIO()
    np.savez(archive, x=IDS)
    for array in (
        b"",
        b"PK\x03\x04 and no more",
        archive.getvalue(),
        b"\x80\x04N.",  # a pickle
        npy_header(b"{'descr':'<i2','fortran_order':False,'shape':(1000000000000,),}\n"),
        npy_header(b"{'descr':'<i2','fortran_order':False,'shape':(-1,),}\n", bytes(8)),
        npy_header(b"{'descr':'|O','fortran_order':False,'shape':(1,1,16),}\n", bytes(128)),
        npy_header(b"(" * 9000 + b"\n"),
        npy(np.array(["a"] * 16)),
        npy(np.full((1, 1, 16), np.nan)),
        npy(np.zeros((1, 1, 16), "M8[s]")),
        npy(np.zeros((1, 1, 16), [("a", "<i2"), ("b", "<i2")])),
        npy(np.zeros((1, 16, 1), np.int16)),
        npy(np.full((1, 1, 16), 1 << 40)),
        npy(np.full((1, 1, 16), 1 << 63, np.uint64)),
        npy(IDS)[:-1],
        npy(IDS) + b"\0",
    ):
        refuse(tmp_path / "a.tar", tar_of({"a.json": ABOUT, "a.npy": array}))
    (tmp_path / "a.tar").write_bytes(tar_of({"a.json": ABOUT, "a.npy": npy(IDS.astype(">i8"))}))
    (item,) = TokenDataset([tmp_path / "a.tar"])
    assert torch.equal(item.pop("tokens"), torch.zeros((1, 1, 16), dtype=torch.int32))
    assert item == {name: value for name, value in ABOUT.items() if name != "clips"}


def test_hostile_descriptions(tmp_path: Path) -> None:
    wrong: list[dict[str, object]] = [{"frames": 2}, {"frames": -1}, {"frames": "1"}, {"frames": True}, {"name": 7}]
    wrong += [{"samples": None}, {"model": {}}, {"clips": 2}, {"clips": "many"}]
    for about in (*(ABOUT | change for change in wrong), b"[]", b'"x"', b"null", b"[" * 100_000, b"{", b"\xff" * 9):
        refuse(tmp_path / "a.tar", tar_of({"a.json": about, "a.npy": npy(IDS)}))
    said = refuse(
        tmp_path / "a.tar", tar_of({"a.json": json.dumps(ABOUT).encode() + bytes(1 << 20), "a.npy": npy(IDS)})
    )
    assert "'a.json' has" in said
    for members in (
        {"a.npy": npy(IDS)},
        {"a.npy": npy(IDS), "a.json": ABOUT},
        {"a.json": ABOUT, "b.json": ABOUT, "b.npy": npy(IDS)},
        {"a.json": ABOUT, "b.npy": npy(IDS)},
        {"a.json": "/etc/passwd", "a.npy": npy(IDS)},
        {"a.json": ABOUT},
        {"a.txt": b"nothing else"},
    ):
        refuse(tmp_path / "a.tar", tar_of(members))


def test_compressed_tars_are_refused(tmp_path: Path) -> None:
    """Or a few bytes would take any amount of memory."""
    data = tar_of({"a.json": ABOUT, "a.npy": npy(IDS)})
    for compress in (gzip.compress, bz2.compress, lzma.compress):
        refuse(tmp_path / "a.tar", compress(data))


def test_sparse_members_are_refused(tmp_path: Path) -> None:
    """They would claim any size without having it."""
    member = tarfile.TarInfo("a.json")
    member.type = tarfile.GNUTYPE_SPARSE
    refuse(tmp_path / "a.tar", member.tobuf(tarfile.GNU_FORMAT) + bytes(1024))


@pytest.mark.parametrize("kind", KINDS)
def test_shards_that_end_early_or_are_damaged(kind: str, tmp_path: Path) -> None:
    clips = [CLIP | dict(name=str(n), tokens=IDS + n) for n in range(5)]
    file = io.BytesIO()
    write_shard(file, kind, "tokens-000000", clips, dict(model="m", codebook="vq", vectors="v", quality=None))
    whole, path = file.getvalue(), tmp_path / f"tokens-000000.{KINDS[kind]}"
    path.write_bytes(whole)
    assert [int(clip["tokens"][0, 0, 0]) for clip in TokenDataset([path])] == [0, 1, 2, 3, 4]
    lost = 0
    for end in range(0, len(whole), 256 if kind == "webdataset" else 64):
        path.write_bytes(whole[:end])
        try:
            clips_read = list(TokenDataset([path]))
        except ValueError:
            lost += 1
        else:
            assert len(clips_read) == 5  # the cut is in the padding behind them
    assert lost > 20
    rng = random.Random(0)
    for _ in range(300):
        at = rng.randrange(len(whole))
        path.write_bytes(whole[:at] + rng.randbytes(4) + whole[at + 4 :])
        try:
            clips_read = list(TokenDataset([path]))
        except ValueError:
            continue
        assert len(clips_read) == 5


def test_shards_without_a_count(tmp_path: Path) -> None:
    """As version 0.1.0 wrote them."""
    about = {name: value for name, value in ABOUT.items() if name != "clips"}
    path = tmp_path / "a.tar"
    path.write_bytes(tar_of({"a.json": about, "a.npy": npy(IDS), "b.json": about, "b.npy": npy(IDS)}))
    assert len(list(TokenDataset([path]))) == 2


def test_hostile_parquet(tmp_path: Path) -> None:
    facts = {"aldm": json.dumps(dict(model="m", codebook="vq", vectors="v", quality=None))}
    row = {name: [ABOUT[name]] for name in ("name", "path", "channels", "frames", "groups", "samples", "sample_rate")}
    row["tokens"] = [[0] * 16]

    def shard(metadata: dict[str, str], **columns: list[object] | None) -> bytes:
        file = io.BytesIO()
        table = pa.table({name: column for name, column in {**row, **columns}.items() if column is not None})
        parquet.write_table(table.replace_schema_metadata(metadata), file)
        return file.getvalue()

    for metadata in ({}, {"aldm": "[]"}, {"aldm": "null"}, {"aldm": '"x"'}, {"aldm": '{"model": []}'}, {"aldm": "{"}):
        refuse(tmp_path / "a.parquet", shard(metadata))
    changes: list[dict[str, list[object] | None]] = [
        *({"frames": value} for value in (None, [-1], [7], [None], ["1"])),
        *({"tokens": value} for value in (None, [None], [3], ["abc"], [["a"] * 16], [[None] * 16], [[2**50] * 16])),
        {"tokens": [[0.5] * 16]},
        {"tokens": [[*range(15), None]]},
    ]
    for change in changes:
        refuse(tmp_path / "a.parquet", shard(facts, **change))
    (tmp_path / "a.parquet").write_bytes(shard(facts))
    (item,) = TokenDataset([tmp_path / "a.parquet"])
    assert item["tokens"].shape == (1, 1, 16)


def test_row_groups_hold_a_bounded_number_of_tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a reader needs a bounded amount of memory, and may refuse more."""
    monkeypatch.setattr("aldm.codec.tokens.shards.MAX_IDS", 40)
    clips = [CLIP | dict(name=str(n), tokens=IDS) for n in range(5)]
    path = tmp_path / "tokens-000000.parquet"
    with path.open("wb") as file:
        write_shard(file, "parquet", "tokens-000000", clips, dict(model="m"))
    assert parquet.ParquetFile(path).num_row_groups == 3
    assert len(list(TokenDataset([path]))) == 5
    monkeypatch.setattr("aldm.codec.tokens.shards.MAX_IDS", 31)
    with pytest.raises(ValueError, match="row group"):
        list(TokenDataset([path]))
    monkeypatch.setattr("aldm.codec.tokens.shards.MAX_IDS", 15)
    with pytest.raises(ValueError, match="a clip has 16 tokens"):
        write_shard(io.BytesIO(), "parquet", "tokens-000000", clips, dict(model="m"))

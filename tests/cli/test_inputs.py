"""What `aldm batch` finds, what it leaves out and why, and how outputs are named."""

import os
import shutil
from pathlib import Path

import pytest
from aldm.cli.inputs import find_inputs
from conftest import DATA


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    return folder


def put(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(DATA / "speech.flac", path)


def names(*inputs: Path, manifest: Path | None = None) -> set[str]:
    return set(find_inputs(tuple(map(str, inputs)), manifest)[0])


def test_three_inputs_of_one_stem_get_three_outputs(root: Path) -> None:
    put(root / "a.wav", root / "a.flac", root / "a.wav.mp3")
    assert len(names(root)) == 3
    put(*(root / folder / "x.wav" for folder in ("one", "two/deep", "three")))
    files = [root / folder / "x.wav" for folder in ("one", "two/deep", "three")]
    assert names(*files) == {"one/x", "two/deep/x", "three/x"}
    assert names(root / "one", root / "three") == {"one/x", "three/x"}
    manifest = root / "list.txt"
    manifest.write_text("\n".join(map(str, files)))
    assert names(manifest=manifest) == {"one/x", "two/deep/x", "three/x"}


def test_a_file_named_twice_is_one(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(root / "a.wav")
    monkeypatch.chdir(root)
    assert names(root / "a.wav", Path("a.wav"), Path("./a.wav"), root) == {"a"}


def test_linked_folders_are_followed_and_circles_are_not(root: Path) -> None:
    put(root.parent / "real/x.wav", root / "y.wav")
    (root / "link").symlink_to("../real")
    (root.parent / "real/back").symlink_to("../in")
    (root / "same").symlink_to(root / "link")
    found, left_out = find_inputs((str(root),), None)
    assert {"y", "link/x", "same/x"} <= set(found)
    assert any(item.reason == "link to a folder above it" for item in left_out)
    assert len(found) < 9


def test_everything_in_a_folder_is_taken_failed_or_left_out(root: Path) -> None:
    put(root / "a.wav", root / "b.strange", root / "c")  # sound by its first bytes
    (root / "notes.txt").write_text("no sound")
    (root / "cover.jpg").write_bytes(b"\xff\xd8\xff\xe0 and so on")
    (root / "done.aldm").write_bytes(b"ALDM")
    (root / "gone.wav").symlink_to("nowhere.wav")
    (root / "memo.M4A").write_bytes(b"not really")
    os.mkfifo(root / "pipe.wav")
    found, left_out = find_inputs((str(root),), None)
    assert set(found) == {"a", "b", "c", "gone", "memo", "pipe"}
    assert {name: item.error for name, item in found.items() if item.error} == {
        "gone": "Broken link",
        "pipe": "Neither a file nor a folder",
    }
    assert {(item.source.name, item.reason) for item in left_out} == {
        ("notes.txt", "no audio: .txt"),
        ("cover.jpg", "no audio: .jpg"),
        ("done.aldm", "an .aldm file already"),
    }


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_folders_that_cannot_be_read_are_failures(root: Path) -> None:
    put(root / "a.wav", root / "locked/b.wav")
    (root / "locked").chmod(0)
    try:
        assert find_inputs((str(root),), None)[0]["locked"].error == "Permission denied"
    finally:
        (root / "locked").chmod(0o755)


def test_lines_of_manifests(root: Path) -> None:
    odd = ["plain", "line\u2028separator", "next\x85line", "form\x0cfeed", "\ufeffmark", " space "]
    put(*(root / f"{name}.wav" for name in odd))
    raw = os.fsencode(root) + b"/caf\xe9.wav"
    shutil.copy(DATA / "speech.flac", raw)
    manifest = root / "list.txt"
    lines = [f"{name}.wav".encode() for name in odd] + [b"", b"caf\xe9.wav"]
    manifest.write_bytes(b"\xef\xbb\xbf" + b"\r\n".join(lines) + b"\r\n")
    found, _ = find_inputs((), manifest)
    assert len(found) == 7
    assert not [item for item in found.values() if item.error]

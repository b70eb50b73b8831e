"""The oldest versions that pyproject.toml allows: they install, and code and decode a clip as the present ones do."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from conftest import aldm, clip

PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
HEAVY = {"torch"}  # its oldest version is the one that the tests run with


def oldest() -> dict[str, str]:
    """Oldest version of each light dependency."""
    floors = dict(re.fullmatch(r"([\w-]+)>=([\d.]+)(?:,<.*)?", line).groups() for line in PROJECT["dependencies"])  # type: ignore[union-attr,misc]
    return {name: floor for name, floor in floors.items() if name not in HEAVY}


@pytest.mark.slow
@pytest.mark.skipif(sys.version_info >= (3, 13), reason="the oldest NumPy has no wheel for this Python")
def test_a_round_trip_with_the_oldest_versions(tmp_path: Path) -> None:
    floors, packages = oldest(), tmp_path / "packages"
    assert floors.keys() >= {"av", "click", "constriction", "numpy", "safetensors", "soundfile", "soxr"}
    wanted = [f"{name}=={floor}" for name, floor in floors.items()]
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--only-binary", ":all:"]
    subprocess.run([*install, "--target", packages, *wanted], check=True, timeout=600)
    environment = {**os.environ, "PYTHONPATH": str(packages)}
    script = "import importlib.metadata as m, sys; print(*(m.version(name) for name in sys.argv[1:]))"
    command = [sys.executable, "-c", script, *floors]
    found = subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout.split()
    for version, floor in zip(found, floors.values(), strict=True):
        assert version == floor or version.startswith(f"{floor}.")
    coded, sounds = tmp_path / "a.aldm", []
    sf.write(tmp_path / "a.wav", clip("speech"), 44_100)
    result = aldm("encode", tmp_path / "a.wav", coded, "--quality", "10", "--layers", "both", env=environment)
    assert result.returncode == 0, result.stderr
    for number, options in enumerate(({"env": environment}, {})):
        wave = tmp_path / f"{number}.wav"
        result = aldm("decode", coded, wave, "--original-rate", **options)
        assert result.returncode == 0, result.stderr
        sounds.append(sf.read(wave)[0])
    assert len(sounds[0]) == len(clip("speech"))
    assert np.allclose(*sounds, atol=1e-3)

"""Real clips, and the embedded models, loaded once."""

import io
import shutil
import signal
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from aldm.codec import Codec
from aldm.codec.fit.data.audio_cache import is_held_out
from hypothesis import settings
from tiny_audioldm2 import networks, save, text_stack

settings.register_profile("aldm", deadline=None)  # speed is for benchmarks, not for tests
settings.load_profile("aldm")

DATA = Path(__file__).parent / "data"
DOMAINS = ("speech", "music", "environment")


def clip(name: str) -> np.ndarray:
    """A 16 kHz clip, float32 [N]."""
    return sf.read(DATA / f"{name}.flac", dtype="float32")[0]


def aldm(*args: object, stdin: bytes | None = None, **options: object) -> subprocess.CompletedProcess[bytes]:
    """Run the command as a user does, in a process of its own."""
    command = [sys.executable, "-m", "aldm.cli", *map(str, args)]
    return subprocess.run(command, input=stdin, capture_output=True, timeout=400, **options)  # type: ignore[call-overload]


@pytest.fixture(scope="session", autouse=True)
def interruptible() -> None:
    """Commands that tests start take Ctrl-C, even if this process ignores it, as a shell's background jobs do."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def codec() -> Codec:
    return Codec.from_pretrained()


@pytest.fixture(scope="session")
def short_packets() -> Codec:
    """The same codec with packets of about 2 s, so that short clips have several."""
    return Codec.from_pretrained(packet_seconds=2.08)


@pytest.fixture(scope="session")
def mixture() -> np.ndarray:
    """14 s of all three domains."""
    return np.concatenate([clip(name) for name in DOMAINS])


@pytest.fixture(scope="session")
def stream(short_packets: Codec, mixture: np.ndarray) -> bytes:
    """The mixture as a file of seven packets."""
    return short_packets.encode(mixture, 16000, quality=15)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny AudioLDM 2 checkpoint with random weights."""
    return save(tmp_path_factory.mktemp("checkpoint") / "tiny", networks())


@pytest.fixture(scope="session")
def text_checkpoint(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with its text encoders."""
    folder = shutil.copytree(checkpoint, tmp_path_factory.mktemp("checkpoint") / "tiny")
    return save(folder, text_stack())


@pytest.fixture(scope="session")
def shard(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tar of the clips, under names of which some are held out."""
    path = tmp_path_factory.mktemp("shard") / "clips.tar"
    with tarfile.open(path, "w") as tar:
        for file in sorted(DATA.glob("*.flac")):
            for held_out, wanted in ((False, 6), (True, 2)):
                names = (f"a/{file.stem}{number}__0.flac" for number in range(1000))
                for name in [name for name in names if is_held_out(name) == held_out][:wanted]:
                    tar.add(file, name)
        broken = tarfile.TarInfo("a/broken.wav")
        broken.size = 9
        tar.addfile(broken, io.BytesIO(b"not sound"))
    return path

"""Other devices than the CPU: one that is none, on every machine; and a GPU, where there is one."""

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from aldm.codec import Codec
from aldm.codec.model import Model
from aldm.format.container import read_records
from conftest import DATA, aldm, clip
from distances import frame_errors
from far_device import far_device

DEVICES = [
    "far",
    pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")),
]


@pytest.fixture(params=DEVICES, scope="module")
def device(request: pytest.FixtureRequest) -> Iterator[str]:
    if request.param == "far":
        with far_device() as name:
            yield name
    else:
        yield request.param


@pytest.fixture(scope="module")
def other(device: str) -> Codec:
    """The codec of `short_packets` on another device."""
    return Codec.from_pretrained(packet_seconds=2.08, device=device)


@pytest.fixture(scope="module")
def channels() -> np.ndarray:
    """Four channels: speech, the same again, nothing, and music."""
    speech, music = clip("speech")[:48000], clip("music")[:48000]
    return np.stack([speech, speech, 0 * speech, music])


def test_a_device_refuses_what_a_gpu_refuses() -> None:
    with far_device() as name:
        there = torch.ones(3, device=name)
        assert (2 * there + torch.ones(3).to(name)).cpu().tolist() == [3, 3, 3]
        with pytest.raises(RuntimeError, match="two devices"):
            there + torch.ones(3)
        with pytest.raises(RuntimeError):
            there.numpy()


def alike(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether waveforms [C, N] sound alike: Griffin-Lim enlarges what differs in the last digits."""
    assert a.shape == b.shape
    pairs = zip(a, b, strict=True)
    return all(frame_errors(x, y).mean() < 0.1 if x.any() else np.abs(y).max() < 1e-6 for x, y in pairs)


@pytest.mark.slow
@pytest.mark.parametrize("rate", [{"quality": 15}, {"bitrate": 3.0}])
def test_encoding(other: Codec, short_packets: Codec, channels: np.ndarray, rate: dict[str, float]) -> None:
    """Packets in batches are those one by one, but for the rounding of a few values."""
    here, there = (codec.encode(channels, 16000, **rate) for codec in (short_packets, other))
    assert abs(len(here) - len(there)) <= 0.005 * len(here)
    assert len([*read_records(here)]) == len([*read_records(there)]) == 2
    one, two = (short_packets.decoder(data) for data in (here, there))
    for a, b in zip(one.reader.packets(), two.reader.packets(), strict=True):
        assert (one.latents(a).final.values != two.latents(b).final.values).float().mean() < 0.002
        assert np.abs(np.subtract(a.packet.gains, b.packet.gains)).max() <= 2  # type: ignore[union-attr]
    assert alike(short_packets.decode(here), other.decode(there))


@pytest.mark.slow
def test_decoding(other: Codec, short_packets: Codec, channels: np.ndarray) -> None:
    """The same indices from the same file, and the same sound; equal channels stay equal, and silence silent."""
    data = short_packets.encode(channels, 16000, quality=15)
    one, two = (codec.decoder(data) for codec in (short_packets, other))
    for a, b in zip(one.reader.packets(), two.reader.packets(), strict=True):
        assert torch.equal(one.latents(a).final.values, two.latents(b).final.values.cpu())
    decoded = other.decode(data)
    assert alike(decoded, short_packets.decode(data))
    np.testing.assert_allclose(decoded[0], decoded[1], atol=1e-4)
    assert np.abs(decoded[2]).max() < 1e-6


@pytest.mark.slow
def test_gaps_parts_and_pipes(other: Codec, short_packets: Codec, channels: np.ndarray) -> None:
    data = bytearray(short_packets.encode(channels, 16000, quality=15))
    first = next(iter(read_records(bytes(data))))
    data[first.offset + 30] ^= 1  # type: ignore[union-attr]
    here, there = (codec.decode(bytes(data)) for codec in (short_packets, other))
    assert alike(here, there)
    part = other.decode(bytes(data), start=2.5, duration=0.4, original_rate=True)
    assert part.shape == (4, 6400)
    piped = np.concatenate([*other.decoder(io.BytesIO(bytes(data))).blocks()], 1)
    np.testing.assert_allclose(piped, there, atol=1e-4)


def test_streaming(other: Codec, short_packets: Codec) -> None:
    encoder, data = other.stream(16000, quality=15), b""
    for block in np.array_split(clip("speech")[:40000], 9):
        data += encoder.push(block)
    data += encoder.flush()
    expected = short_packets.encode(clip("speech")[:40000], 16000, quality=15)
    assert alike(short_packets.decode(data), short_packets.decode(expected))


@pytest.mark.slow
def test_tokens_and_diffusion(other: Codec, short_packets: Codec) -> None:
    speech = clip("speech")[:40000]
    for codebook in ("scalar", "vq"):
        here, there = (codec.tokens(speech, 16000, codebook=codebook) for codec in (short_packets, other))
        assert (here != there).float().mean() < 0.002
        made = [codec.detokenize(here, codebook=codebook) for codec in (short_packets, other)]
        assert alike(*made)
    data = other.encode(speech, 16000, bitrate=2, layers="both", steps=3)
    assert alike(other.decode(data), short_packets.decode(data))
    data = short_packets.encode(speech, 16000, quality=8)
    assert alike(other.decode(data, refine=2), short_packets.decode(data, refine=2))


def test_griffin_lim_alone(device: str, channels: np.ndarray) -> None:
    here = Codec.from_pretrained("klt")
    data = here.encode(channels[3], 16000, quality=20)
    assert alike(Codec.from_pretrained("klt", device=device).decode(data), here.decode(data))


def test_batches_on_the_cpu(monkeypatch: pytest.MonkeyPatch, short_packets: Codec, channels: np.ndarray) -> None:
    """What a GPU does at once, done at once here, is the same."""
    data = short_packets.encode(channels, 16000, quality=15)
    expected = short_packets.decode(data)
    monkeypatch.setattr(Model, "batch", 3)  # groups of channels that are not all alike, and a smaller last one
    assert abs(len(short_packets.encode(channels, 16000, quality=15)) - len(data)) <= 0.005 * len(data)
    decoded = short_packets.decode(data)
    assert alike(decoded, expected)
    assert np.abs(decoded[2]).max() < 1e-6


@pytest.mark.slow
def test_checkpoint(device: str, checkpoint: Path) -> None:
    """AudioLDM 2's networks, and what is around them."""
    speech = clip("speech")[:40000]
    options = dict(dtype="float32")
    here = Codec.from_pretrained(checkpoint, **options)
    for vocoder in ("hifi-gan", "griffin-lim", "hybrid"):
        there = Codec.from_pretrained(checkpoint, device=device, vocoder=vocoder, **options)
        data = there.encode(np.stack([speech, speech]), 16000, quality=20)
        expected = Codec.from_pretrained(checkpoint, vocoder=vocoder, **options).decode(data)
        decoded = there.decode(data)
        assert decoded.shape == expected.shape
        assert alike(decoded, expected)
    assert len(here.encode(speech, 16000, quality=20)) == pytest.approx(len(data), rel=0.01)


ABSENT = ["abacus", "abacus"] if torch.cuda.is_available() else ["cuda", "abacus"]


@pytest.mark.parametrize(("command", "name"), [*zip(["decode", "batch"], ABSENT, strict=True)])
def test_a_device_that_is_not_there(command: str, name: str, tmp_path: Path, stream: bytes) -> None:
    (tmp_path / "in.aldm").write_bytes(stream)
    arguments = {
        "decode": (tmp_path / "in.aldm", tmp_path / "out.wav"),
        "batch": (DATA / "speech.flac", "--out", tmp_path / "out"),
    }
    result = aldm(command, *arguments[command], "--device", name)
    assert result.returncode == 1
    assert result.stderr.decode().startswith(f"Error: no device {name}: ")
    assert result.stderr.count(b"\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["in.aldm"]


@pytest.mark.slow
def test_a_gpu_if_there_is_one(tmp_path: Path, codec: Codec) -> None:
    options = ("--out", tmp_path, "--quality", "12", "--device", "auto", "--jobs", "1")
    result = aldm("batch", DATA / "speech.flac", *options)
    assert result.returncode == 0, result.stderr
    expected, written = codec.encode(DATA / "speech.flac", quality=12), (tmp_path / "speech.aldm").read_bytes()
    assert len(written) == pytest.approx(len(expected), rel=0.01)
    assert written[-500:] == expected[-500:] or torch.cuda.is_available()

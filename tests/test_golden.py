"""Files that were written once and are never written again: every later version reads them alike."""

import contextlib
import functools
import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aldm.codec import Codec
from aldm.codec.errors import ModelError
from aldm.codec.model_folder import find_model
from aldm.codec.quantization.adaptive import AdaptiveCodebook
from aldm.format import DamageError, FormatError, NotAldmError, VersionError
from aldm.format.container import NO_BASE, Packet
from aldm.format.entropy import decode_indices
from aldm.format.layer import Layer
from aldm.format.parameters import units_of
from aldm.format.stream import StreamReader
from reference import reference

GOLDEN = Path(__file__).parent / "golden"
MODELS = {
    "tiny": GOLDEN / "model",
    "klt": find_model("klt"),
    "audioldm2": GOLDEN / "model-audioldm2",
    "audioldm2-fitted": GOLDEN / "model-audioldm2-fitted",
}
EXPECTED: dict[str, Any] = (
    json.loads((GOLDEN / "expected.json").read_text()) if (GOLDEN / "expected.json").exists() else {}
)
ERRORS = {e.__name__: e for e in (DamageError, FormatError, NotAldmError, VersionError, ModelError)}
pytestmark = pytest.mark.filterwarnings("ignore::aldm.codec.errors.AldmWarning")


@functools.cache
def codecs() -> dict[str, Codec]:
    return {name: Codec.from_pretrained(path, vocoder="griffin-lim") for name, path in MODELS.items()}


def model_of(data: bytes) -> str:
    """Name of the model that a file's header names; without one the first."""
    found = (name for name, codec in codecs().items() if codec.model.fingerprint[:4] == data[18:22])
    return next(found, "tiny")


def codec_of(data: bytes) -> Codec:
    return codecs()[model_of(data)]


def digest(arrays: list[np.ndarray]) -> str:
    return sha256(b"".join(np.ascontiguousarray(a, "<i4").tobytes() for a in arrays)).hexdigest()


def facts(data: bytes) -> dict[str, Any]:
    """What the product gets from a file: all of it, down to the indices."""
    reader = StreamReader(data)
    codec = codec_of(data)
    decoder = codec.decoder(reader)
    sound = np.concatenate(list(decoder.blocks()), 1)
    assert np.isfinite(sound).all()
    again = StreamReader(data)
    indices, classes, picks, gains, parameters = [], [], [], [], list[np.ndarray]()
    packets = []
    for item in again.packets():
        packets.append(item.packet is not None)
        if item.packet is None:
            continue
        coded, vectors = sum(gain > -32767 for gain in item.packet.gains), codec.model.vectors_of(item.packet.hops)
        quality = again.header.quality if item.packet.quality is None else item.packet.quality
        try:
            for c, i in streams(codec, item.packet, coded, vectors, quality):
                classes.append(c)
                indices.append(i)
        except DamageError:
            packets[-1] = False
            continue
        gains.append(np.array(item.packet.gains))
        high_band, stereo = decoder.parameters(item)
        units = units_of(item.packet.hops)
        parameters += [track.expand(units) for track in (high_band.tracks if high_band else [])]
        parameters += [np.append(stereo.balance, stereo.track.expand(units))] if stereo else []
        with contextlib.suppress(DamageError):
            layer, picked = Layer.parse(item.layer or b"", coded, vectors)
            if layer.denoiser != b"\0\0":
                picks.append(picked)
    header = again.header
    about = {"parameters": digest(parameters)} if parameters else {}
    return about | {
        "version": f"{header.version[0]}.{header.version[1]}",
        "rate": header.sample_rate,
        "channels": header.channels,
        "quality": header.quality,
        "samples": again.samples,
        "samples_at_16_khz": sound.shape[1],
        "packets": packets,
        "comments": again.comments,
        "damage": bool(decoder.damage),
        "gains": digest(gains),
        "classes": digest(classes),
        "indices": digest(indices),
        "picks": digest(picks),
    }


def streams(
    codec: Codec, packet: Packet, coded: int, vectors: int, quality: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Classes and indices of a packet's channels; no classes under adaptive tables."""
    book = codec.model.codebook
    if quality == NO_BASE or not coded:
        return []
    if quality >= codec.levels or packet.hops % codec.model.autoencoder.patch:
        raise DamageError("not one of this model")
    if isinstance(book, AdaptiveCodebook):
        return [(np.zeros(0), i) for i in book.unpack(packet.payload, coded, vectors, quality)]
    return decode_indices(packet.payload, coded, vectors, book.tables, quality)


def names(group: str) -> list[str]:
    return sorted(name for name in EXPECTED if name.startswith(group))


def read(name: str) -> bytes:
    return (GOLDEN / f"{name}.aldm").read_bytes()


def test_nothing_is_missing_and_nothing_was_changed() -> None:
    files = {str(p.relative_to(GOLDEN).with_suffix("")): p for p in GOLDEN.glob("*/*.aldm")}
    assert files.keys() == EXPECTED.keys()
    assert len(names("valid")) >= 60
    for name, file in files.items():
        assert sha256(file.read_bytes()).hexdigest() == EXPECTED[name]["sha256"], f"{name} is not what it was"


@pytest.mark.slow
@pytest.mark.parametrize("name", names("valid"))
def test_valid(name: str) -> None:
    found = facts(read(name))
    assert {**EXPECTED[name], **found} == EXPECTED[name]
    assert not found["damage"]


@pytest.mark.parametrize("name", names("damaged"))
def test_damaged(name: str) -> None:
    found = facts(read(name))
    assert {**EXPECTED[name], **found} == EXPECTED[name]
    assert found["damage"]
    with pytest.raises(DamageError):
        codec_of(read(name)).decode(read(name), strict=True)


@pytest.mark.parametrize("name", names("invalid"))
def test_invalid(name: str) -> None:
    data, expected = read(name), EXPECTED[name]
    with pytest.raises(ERRORS[expected["error"]]) as caught:
        codec_of(data).decode(data)
    assert type(caught.value) is ERRORS[expected["error"]]


@pytest.mark.parametrize("name", [*names("valid"), *names("damaged")])
def test_reference_decoder_finds_the_same(name: str) -> None:
    data, expected = read(name), EXPECTED[name]
    file = reference.read(data, reference_model(model_of(data)))
    packets = [p for p in file.packets if p is not None]
    assert [p is not None for p in file.packets] == expected["packets"]
    assert (file.version, file.rate, file.channels) == (expected["version"], expected["rate"], expected["channels"])
    assert (file.quality, file.samples) == (expected["quality"], expected["samples"])
    assert file.comments == expected["comments"]
    assert bool(file.damage) == bool(expected["damage"])
    assert digest([np.array(p.gains) for p in packets]) == expected["gains"]
    channels = [channel for p in packets for channel in p.channels]
    assert digest([np.array(c.classes) for c in channels]) == expected["classes"]
    assert digest([np.array(c.indices) for c in channels]) == expected["indices"]
    assert digest([np.array(p.layer.picks) for p in packets if p.layer]) == expected["picks"]
    parameters = []
    for p in packets:
        parameters += [np.array(expanded(track)) for track in p.high_band or []]
        parameters += [np.append(p.balance, expanded(p.stereo))] if p.stereo else []
    assert (digest(parameters) if parameters else None) == expected.get("parameters")


def expanded(track: list[Any]) -> list[list[int]]:
    return [segment.values for segment in track for _ in range(segment.units)]


@functools.cache
def reference_model(name: str) -> Any:
    return reference.Model(MODELS[name])


@pytest.mark.parametrize("name", names("invalid"))
def test_reference_decoder_refuses_the_same(name: str) -> None:
    with pytest.raises(reference.Unreadable):
        reference.read(read(name), reference_model(model_of(read(name))))


@pytest.mark.parametrize("name", names("valid"))
def test_every_flip_is_noticed_and_every_cut_ends_well(name: str) -> None:
    """At every byte, by the reader alone, which is what finds damage."""
    data = read(name)
    whole = StreamReader(data)
    packets = sum(item.packet is not None for item in whole.packets())
    for at in range(len(data)):
        flipped = data[:at] + bytes([data[at] ^ 1 << at % 8]) + data[at + 1 :]
        for broken in (flipped, data[:at]):
            try:
                reader = StreamReader(broken)
                found = sum(item.packet is not None for item in reader.packets())
            except FormatError:
                continue
            assert found <= packets
            assert reader.damage or broken is not flipped
            assert reader.damage or at == len(data) or whole.header.samples is None or found == packets

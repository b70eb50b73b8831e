"""Files that were written once and are never written again: every later version reads them alike."""

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aldm.codec import Codec
from aldm.codec.folder import ModelError, find_model, fingerprint
from aldm.format import DamageError, FormatError, NotAldmError, VersionError
from aldm.format.entropy import decode_indices
from aldm.format.layer import Layer
from aldm.format.stream import StreamReader
from test_reference_decoder import reference

GOLDEN = Path(__file__).parent / "golden"
MODELS = {"tiny": GOLDEN / "model", "klt": find_model("klt")}
EXPECTED: dict[str, Any] = (
    json.loads((GOLDEN / "expected.json").read_text()) if (GOLDEN / "expected.json").exists() else {}
)
ERRORS = {e.__name__: e for e in (DamageError, FormatError, NotAldmError, VersionError, ModelError)}
_codecs: dict[bytes, Codec] = {}


def codec_of(model: bytes) -> Codec:
    if not _codecs:
        for path in MODELS.values():
            _codecs[fingerprint(path)[:4]] = Codec.from_pretrained(path)
    return _codecs.get(model) or _codecs[fingerprint(MODELS["tiny"])[:4]]


def digest(arrays: list[np.ndarray]) -> str:
    return sha256(b"".join(np.ascontiguousarray(a, "<i4").tobytes() for a in arrays)).hexdigest()


def facts(data: bytes) -> dict[str, Any]:
    """What the product gets from a file: all of it, down to the indices."""
    reader = StreamReader(data)
    codec = codec_of(reader.header.model)
    decoder = codec.decoder(reader)
    sound = np.concatenate(list(decoder.blocks()), 1)
    assert np.isfinite(sound).all()
    again = StreamReader(data)
    indices, classes, picks, gains, tables = [], [], [], [], codec.model.codebook.tables
    packets = []
    for item in again.packets():
        packets.append(item.packet is not None)
        if item.packet is None:
            continue
        gains.append(np.array(item.packet.gains))
        coded, vectors = sum(gain > -32767 for gain in item.packet.gains), item.packet.hops // 16
        quality = again.header.quality if item.packet.quality is None else item.packet.quality
        if quality < codec.levels and coded:
            for c, i in decode_indices(item.packet.payload, coded, vectors, tables, quality):
                classes.append(c)
                indices.append(i)
        if item.layer is not None and Layer.parse(item.layer, coded, vectors)[0].denoiser != b"\0\0":
            picks.append(Layer.parse(item.layer, coded, vectors)[1])
    header = again.header
    return {
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
        codec_of(StreamReader(read(name)).header.model).decode(read(name), strict=True)


@pytest.mark.parametrize("name", names("invalid"))
def test_invalid(name: str) -> None:
    data, expected = read(name), EXPECTED[name]
    with pytest.raises(ERRORS[expected["error"]]) as caught:
        codec_of(b"").decode(data)
    assert type(caught.value) is ERRORS[expected["error"]]


@pytest.mark.parametrize("name", [*names("valid"), *names("damaged")])
def test_reference_decoder_finds_the_same(name: str) -> None:
    data, expected = read(name), EXPECTED[name]
    model = "klt" if name == "valid/klt" else "tiny"
    file = reference.read(data, reference_model(model))
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


_references: dict[str, Any] = {}


def reference_model(name: str) -> Any:
    if name not in _references:
        _references[name] = reference.Model(MODELS[name])
    return _references[name]


@pytest.mark.parametrize("name", names("invalid"))
def test_reference_decoder_refuses_the_same(name: str) -> None:
    with pytest.raises(reference.Unreadable):
        reference.read(read(name), reference_model("tiny"))


@pytest.mark.parametrize("name", [n for n in names("valid") if "quality-" not in n or n.endswith("24")])
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

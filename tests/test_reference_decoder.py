"""The decoder that was written from the specification alone, held against the product."""

import ast
import dataclasses
import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from aldm.codec import Codec
from aldm.codec.folder import find_model
from aldm.format.container import COMMENT, END, LAYER, NO_BASE, PACKET, UNKNOWN, Header, pack_end, pack_record
from aldm.format.entropy import decode_indices, encode_indices
from aldm.format.errors import DamageError
from aldm.format.layer import Layer
from aldm.format.philox import NORMALS, normals
from aldm.format.stream import Stream, read_stream
from conftest import clip

SOURCE = Path(__file__).parent.parent / "spec/reference_decoder.py"
Check = Callable[[bytes], Any]


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("reference_decoder", SOURCE)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look there
    spec.loader.exec_module(module)
    return module


reference = load()


@pytest.fixture(scope="module")
def model() -> Any:
    return reference.Model(find_model(None))


@pytest.fixture(scope="module")
def speech() -> np.ndarray:
    return clip("speech")[:40_000]  # 2.5 s: a whole packet and a short one


@pytest.fixture(scope="module")
def based(short_packets: Codec, mixture: np.ndarray) -> bytes:
    """Four packets of indices."""
    return short_packets.encode(mixture[:120_000], 16000, quality=12)


@pytest.fixture(scope="module")
def layered(short_packets: Codec, mixture: np.ndarray) -> bytes:
    """Three packets, each with a layer on its indices."""
    return short_packets.encode(mixture[:90_000], 16000, bitrate=2.0, layers="both")


@pytest.fixture(scope="module")
def walked(short_packets: Codec, speech: np.ndarray) -> bytes:
    """Layers alone."""
    return short_packets.encode(speech, 16000, bitrate=2.0, layers="ddcm")


def same_indices(packet: Any, payload: bytes, codec: Codec, quality: int) -> None:
    streams = decode_indices(payload, packet.coded, packet.hops // 16, codec.model.codebook.tables, quality)
    assert [channel.classes for channel in packet.channels] == [classes.tolist() for classes, _ in streams]
    assert [channel.indices for channel in packet.channels] == [indices.tolist() for _, indices in streams]


def same_layer(packet: Any, body: bytes | None, codec: Codec) -> None:
    try:
        theirs, picks = Layer.parse(body or b"", packet.coded, packet.hops // 16)
    except DamageError:
        assert packet.layer is None
        return
    if theirs.denoiser != codec.model.denoiser_fingerprint[:2]:
        assert packet.layer is None
        return
    assert {name: getattr(packet.layer, name) for name in vars(theirs)} == vars(theirs)
    assert list(packet.layer.picks) == picks.ravel().tolist()


def same_packets(file: Any, stream: Stream, codec: Codec) -> None:
    assert max(stream.packets) < len(file.packets)
    for number, packet in enumerate(file.packets):
        theirs = stream.packets.get(number)
        if packet is None and theirs is not None:  # the product finds out when it decodes
            with pytest.raises(DamageError):
                decode_indices(theirs.payload, 1, theirs.hops // 16, codec.model.codebook.tables, file.quality)
        assert theirs is not None or packet is None
        if packet is not None and theirs is not None:
            assert (packet.hops, packet.gains) == (theirs.hops, theirs.gains)
            same_layer(packet, stream.layers.get(number), codec)
            if file.quality == NO_BASE:
                assert not packet.channels
            else:
                same_indices(packet, theirs.payload, codec, file.quality)


@pytest.fixture
def check(codec: Codec, model: Any) -> Check:
    """Reads a file both ways, holds the one against the other, and returns the reference decoder's."""

    def check(data: bytes) -> Any:
        file, stream = reference.read(data, model), read_stream(data)
        header = stream.header
        assert file.version == "{}.{}".format(*header.version)
        assert file.model == header.model.hex()
        assert (file.channels, file.quality, file.rate) == (header.channels, header.quality, header.sample_rate)
        assert (file.packet_hops, file.samples) == (header.packet_hops, stream.samples)
        assert file.comments == stream.comments
        assert not stream.damage or file.damage
        same_packets(file, stream, codec)
        return file

    return check


def parts(data: bytes) -> list[bytes]:
    """Header and records of a whole file."""
    found, at = [data[:24]], 24
    while at < len(data):
        record = reference.read_record(data, at, len(found))
        found.append(data[at : record.end])
        at = record.end
    return found


def flip(record: bytes, byte: int, bit: int = 0) -> bytes:
    return record[:byte] + bytes([record[byte] ^ 1 << bit]) + record[byte + 1 :]


def test_the_standard_library_is_enough() -> None:
    for node in ast.walk(ast.parse(SOURCE.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level
            names = [node.module or ""]
        else:
            continue
        assert {name.split(".")[0] for name in names} <= sys.stdlib_module_names
    command = [sys.executable, "-I", "-S", str(SOURCE)]  # without what is installed
    assert subprocess.run(command, capture_output=True, timeout=60).returncode == 2


@pytest.mark.parametrize("quality", [*range(0, 48, 8), 47])
def test_every_eighth_quality(quality: int, short_packets: Codec, speech: np.ndarray, check: Check) -> None:
    file = check(short_packets.encode(speech, 16000, quality=quality))
    assert (file.quality, file.samples, len(file.packets), file.damage) == (quality, len(speech), 2, [])
    assert any(any(vector) for channel in file.packets[0].channels for vector in channel.indices)


@pytest.mark.parametrize("level", [0, 21, 47])
@pytest.mark.parametrize("channels", [1, 3])
def test_indices_of_any_size(level: int, channels: int, codec: Codec, model: Any) -> None:
    tables, random = codec.model.codebook.tables, np.random.default_rng(level)
    exponents = random.integers(0, 19, (channels, 5, tables.choice.shape[2]))
    indices = random.integers(-(1 << exponents), (1 << exponents) + 1)
    classes = random.integers(0, tables.choice.shape[1], (channels, 5))
    payload = encode_indices(list(zip(classes, indices, strict=True)), tables, level)
    coder = reference.RangeDecoder(payload)
    for c in range(channels):
        channel = reference.read_channel(coder, 5, level, model)
        assert channel.classes == classes[c].tolist()
        assert channel.indices == indices[c].tolist()


def test_any_payload_decodes_alike_or_not_at_all(codec: Codec, model: Any) -> None:
    random, outcomes = np.random.default_rng(0), set()
    for size in [0, 1, 2, 3, 4, 5, 7, 8, 9, 12, *[40] * 30, 400, 3000]:
        payload = random.bytes(size) if size % 5 else bytes([255] * size)
        level = int(random.integers(48))
        packet = reference.Packet(64, level, (0, 0), [])
        try:
            coder = reference.RangeDecoder(payload)
            packet.channels = [reference.read_channel(coder, 4, level, model) for _ in range(2)]
        except reference.Damaged:
            with pytest.raises(DamageError):
                decode_indices(payload, 2, 4, codec.model.codebook.tables, level)
        else:
            same_indices(packet, payload, codec, level)
        outcomes.add(bool(packet.channels))
    assert True in outcomes


def test_silent_and_equal_channels(short_packets: Codec, speech: np.ndarray, check: Check) -> None:
    silence = np.zeros_like(speech)
    for channels, special in (
        ([speech, silence], {1: reference.SILENT}),
        ([silence, speech], {0: reference.SILENT}),
        ([speech, speech], {1: reference.COPY}),
        ([speech, speech[::-1].copy()], {}),
    ):
        file = check(short_packets.encode(np.stack(channels), 16000, quality=4))
        assert file.channels == 2
        assert file.damage == []
        for packet in file.packets:
            assert {c: gain for c, gain in enumerate(packet.gains) if gain in special.values()} == special
            assert len(packet.channels) == packet.coded == 2 - len(special)


def test_layers_on_indices(layered: bytes, check: Check) -> None:
    file = check(layered)
    assert file.damage == []
    assert all(packet.layer and packet.layer.picks and packet.channels for packet in file.packets)


def test_layers_alone(walked: bytes, check: Check) -> None:
    file = check(walked)
    assert (file.quality, file.damage) == (NO_BASE, [])
    assert all(packet.layer.picks for packet in file.packets)


@pytest.mark.parametrize("fields", [(1000, 0, 2, 64, 0, 1), (1000, 998, 2, 1, 14, 64), (20, 3, 1, 5, 3, 2)])
def test_layers_of_any_setting(fields: tuple[int, ...], walked: bytes, codec: Codec, check: Check) -> None:
    layer = Layer(codec.model.denoiser_fingerprint[:2], 255, *fields, 254)
    picks = np.random.default_rng(1).integers(0, 2 << layer.bits, layer.shape(1, 13))
    file = check(b"".join([*parts(walked)[:2], pack_record(LAYER, layer.pack(picks), 0), *parts(walked)[3:]]))
    assert file.damage == []
    assert file.packets[0].layer.steps == layer.steps


def test_layer_of_another_denoiser(layered: bytes, check: Check) -> None:
    header, packet, layer, *rest = parts(layered)
    body = reference.read_record(layer, 0, 0).body
    file = check(b"".join([header, packet, pack_record(LAYER, flip(body, 0)), *rest]))
    assert file.packets[0].layer is None
    assert len(file.damage) == 1


def test_comments_and_kinds_that_are_not_known(short_packets: Codec, check: Check) -> None:
    comments = ["TITLE=Übung", "empty="]
    data = short_packets.encode(clip("music")[:16_000], 16000, quality=3, comments=comments)
    header, *records = parts(data)
    file = check(b"".join([header, pack_record(0x7A, b"later"), *records, pack_record(COMMENT, b"a=b")]))
    assert (file.comments, file.damage) == ([*comments, "a=b"], [])


def test_unknown_length(based: bytes, check: Check) -> None:
    header = dataclasses.replace(Header.parse(based), samples=None)
    data = header.pack() + based[24:]
    assert data[13:18] == UNKNOWN.to_bytes(5, "little")
    assert check(data).samples is None
    assert check(data + pack_end(119_999) + pack_end(5)).samples == 119_999
    assert check(data + pack_record(END, b"1234")).samples is None
    assert check(based + pack_end(5)).samples == 120_000


@pytest.mark.parametrize("number", range(4))
@pytest.mark.parametrize("byte", [0, 1, 2, 6, 30, -1])
def test_damaged_packet(number: int, byte: int, based: bytes, check: Check) -> None:
    pieces = parts(based)
    record = pieces[number + 1]
    pieces[number + 1] = flip(record, byte % len(record), 3)
    file = check(b"".join(pieces))
    assert [n for n, packet in enumerate(file.packets) if packet is None] == [number]
    assert len(file.packets) == 4


@pytest.mark.parametrize("byte", [0, 1, 3, 4, 8, 14, 20, -1])
def test_flipped_bit_of_a_layer(byte: int, layered: bytes, check: Check) -> None:
    for place in (2, 6):  # of the first packet, and of the last at the end of the file
        pieces = parts(layered)
        pieces[place] = flip(pieces[place], byte % len(pieces[place]), 4)
        file = check(b"".join(pieces))
        assert file.damage
        if byte in (20, -1):  # a pick, or the checksum itself
            assert file.packets[place // 2 - 1].layer
        assert all(file.packets)


def test_removed_repeated_and_moved_packets(based: bytes, check: Check) -> None:
    header, *packets = parts(based)
    for order, there in {
        (1, 2, 3): [1, 2, 3],
        (0, 2, 3): [0, 2, 3],
        (0, 3): [0, 3],
        (0, 1): [0, 1],
        (0, 0, 1, 2, 3): [0, 1, 2, 3],
        (0, 1, 2, 3, 1): [0, 1, 2, 3],
        (0, 2, 1, 3): [0, 2, 3],
    }.items():
        file = check(header + b"".join(packets[n] for n in order))
        assert [n for n, packet in enumerate(file.packets) if packet] == there
        assert file.damage


def test_short_packet_in_the_middle(based: bytes, codec: Codec, check: Check) -> None:
    """It is missing; what follows keeps its place."""
    header, *packets = parts(based)
    body = reference.read_record(packets[1], 0, 1).body
    data = b"".join([header, packets[0], pack_record(PACKET, b"\x10" + body[2:], 1), *packets[2:]])
    file = check(data)
    assert [n for n, packet in enumerate(file.packets) if packet is None] == [1]
    assert read_stream(data).damage
    whole, damaged = codec.decode(based)[0], codec.decode(data)[0]
    assert len(damaged) == len(whole)
    assert np.abs(damaged[36_000:64_000]).max() < 1e-3
    assert abs((damaged[70_000:] ** 2).sum() / (whole[70_000:] ** 2).sum() - 1) < 0.2


def test_layers_of_lost_packets(layered: bytes, check: Check) -> None:
    header, p0, d0, p1, d1, p2, d2 = parts(layered)
    for pieces, there in (
        ((p0, d0, d1, p2, d2), [0, 2]),
        ((p0, d0, flip(p1, 9), d1, p2, d2), [0, 2]),
        ((p0, p1, d1, p2, d2), [1, 2]),
        ((p0, d0, d0, p0, d0, p1, d1, p2, d2), [0, 1, 2]),
        ((d0, p0, p1, d1, p2, d2), [1, 2]),
        ((p0, d0, p1, p2, d1, d2), [0, 2]),
    ):
        file = check(header + b"".join(pieces))
        assert read_stream(header + b"".join(pieces)).damage or d0 not in pieces  # nobody misses a layer
        assert [n for n, packet in enumerate(file.packets) if packet and packet.layer] == there


def test_packets_that_hold_nonsense(based: bytes, check: Check) -> None:
    header, *packets = parts(based)
    for body in (b"", b"\x00\0\0", b"\x80\x80\x80\x01\0\0", b"\xff\x7f\0\0", b"\x10\0", b"\x10\x01\x80"):
        file = check(b"".join([header, packets[0], pack_record(PACKET, body, 1), *packets[2:]]))
        assert [n for n, packet in enumerate(file.packets) if packet is None] == [1]
        assert file.damage


@pytest.mark.parametrize("name", ["based", "layered"])
def test_truncation(name: str, request: pytest.FixtureRequest, check: Check) -> None:
    data = request.getfixturevalue(name)
    first = len(b"".join(parts(data)[:2]))
    for end in np.linspace(first, len(data) - 1, 25).astype(int).tolist():
        file, stream = check(data[:end]), read_stream(data[:end])
        assert file.damage or end == len(data) - len(parts(data)[-1])  # nobody misses a layer
        assert stream.hops <= len(file.packets) * file.packet_hops


def test_garbage_between_records(based: bytes, check: Check) -> None:
    header, *packets = parts(based)
    garbage = np.random.default_rng(3).bytes(2000)
    file = check(header + b"".join(garbage + packet for packet in packets))
    assert all(file.packets)
    assert len(file.damage) == 4


def test_files_that_cannot_be_read(based: bytes, model: Any) -> None:
    header = Header.parse(based)
    changes: list[dict[str, Any]] = [
        {"version": (0, 1)},
        {"version": (2, 0)},
        {"quality": 48},
        {"quality": 253},
        {"quality": NO_BASE},
        {"samples": 0},
        {"channels": 0},
        {"sample_rate": 0},
        {"sample_rate": 800_000},
        {"packet_hops": 0},
        {"packet_hops": 1040},
        {"packet_hops": 200},
        {"model": b"none"},
    ]
    files = [dataclasses.replace(header, **change).pack() + based[24:] for change in changes]
    files += [b"", based[:3], b"RIFF" + based[4:], based[:24], based[:23], flip(based, 9), based[:30]]
    for data in files:
        with pytest.raises(reference.Unreadable):
            reference.read(data, model)
    later = dataclasses.replace(header, version=(1, 9)).pack() + based[24:]
    assert all(reference.read(later, model).packets)


def test_noise() -> None:
    assert NORMALS[128:].tolist() == reference.NORMALS
    for seed, stream, step, number in [(0, 0, 0, 0), (255, 2, 1000, 2**32 - 1), (9, 1, 0, 515)]:
        expected = normals(seed, stream, step, np.array([number]), 1500)[0].tolist()
        assert reference.noise(seed, stream, step, number, 1500) == expected


def test_command(layered: bytes, codec: Codec, tmp_path: Path) -> None:
    path = tmp_path / "a.aldm"
    path.write_bytes(layered)
    command = [sys.executable, str(SOURCE), str(path), str(find_model(None))]
    facts = json.loads(subprocess.run(command, check=True, capture_output=True, timeout=60).stdout)
    assert (facts["samples"], facts["damage"], len(facts["packets"])) == (90_000, [], 3)
    stream = read_stream(layered)
    for number, packet in enumerate(facts["packets"]):
        vectors = packet["hops"] // 16
        body, payload = stream.layers[number], stream.packets[number].payload
        ((classes, indices),) = decode_indices(payload, 1, vectors, codec.model.codebook.tables, facts["quality"])
        _, picks = Layer.parse(body, 1, vectors)
        assert packet["classes"] == [classes.tolist()]
        assert packet["gains"] == [stream.packets[number].gains[0] / 256]
        assert packet["indices"] == sha256(indices.astype("<i4").tobytes()).hexdigest()
        assert packet["layer"]["picks"] == sha256(picks.astype("<i4").tobytes()).hexdigest()
    path.write_bytes(b"RIFF")
    failed = subprocess.run(command, capture_output=True, timeout=60)
    assert failed.returncode == 1
    assert not failed.stdout
    assert len(failed.stderr.splitlines()) == 1

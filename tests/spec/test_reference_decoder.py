"""The decoder that was written from the specification alone, held against the product."""

import ast
import dataclasses
import io
import json
import random
import subprocess
import sys
from binascii import crc_hqx
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aldm.codec import Codec
from aldm.codec.errors import ModelError
from aldm.codec.model_folder import find_model
from aldm.format.container import COMMENT, END, LAYER, NO_BASE, PACKET, UNKNOWN, Header, pack_end, pack_record
from aldm.format.entropy import decode_indices, encode_indices
from aldm.format.errors import DamageError, FormatError
from aldm.format.index import find_packet, read_index
from aldm.format.layer import Layer
from aldm.format.philox import NORMALS, normals
from aldm.format.stream import Stream, read_stream
from conftest import clip
from reference import SOURCE, reference

Check = Callable[[bytes], Any]


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


@pytest.fixture(scope="module")
def own(short_packets: Codec, mixture: np.ndarray) -> bytes:
    """Four packets, each with a quality of its own, and an end record."""
    encoder = short_packets.stream(16000, bitrate=1.5)
    return encoder.push(mixture[:120_000]) + encoder.flush()


@pytest.fixture(scope="module")
def indexed(short_packets: Codec, mixture: np.ndarray) -> bytes:
    """Three packets with layers between a comment and an index."""
    return short_packets.encode(mixture[:90_000], 16000, bitrate=2.0, layers="both", comments=["A=b"], index=True)


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
    if theirs.denoiser != codec.model.denoiser.fingerprint[:2]:
        assert packet.layer is None
        return
    assert {name: getattr(packet.layer, name) for name in vars(theirs)} == vars(theirs)
    assert list(packet.layer.picks) == picks.ravel().tolist()


def same_packets(file: Any, stream: Stream, codec: Codec) -> None:
    assert max(stream.packets, default=0) < len(file.packets)
    for number, packet in enumerate(file.packets):
        theirs = stream.packets.get(number)
        if theirs is None:
            assert packet is None
            continue
        quality = file.quality if theirs.quality is None else theirs.quality
        if packet is not None:
            assert (packet.hops, packet.gains, packet.quality) == (theirs.hops, theirs.gains, quality)
            same_layer(packet, stream.layers.get(number), codec)
        if packet is not None and quality != NO_BASE:
            same_indices(packet, theirs.payload, codec, quality)
        elif packet is not None:
            assert not packet.channels


@pytest.fixture
def check(codec: Codec, model: Any) -> Check:
    """Reads a file both ways, holds the one against the other, and returns the reference decoder's."""

    def check(data: bytes) -> Any:
        file, stream = reference.read(data, model), read_stream(data)
        header = stream.header
        assert file.version == "{}.{}".format(*header.version)
        assert file.model == header.model.hex()
        assert (file.channels, file.quality, file.rate) == (header.channels, header.quality, header.sample_rate)
        assert (file.packet_hops, file.layers) == (header.packet_hops, header.layers)
        assert (file.samples, file.hops) == (stream.samples, stream.hops)
        assert file.comments == stream.comments
        assert file.damage or not stream.damage
        same_packets(file, stream, codec)
        found = any(packet is None and n in stream.packets for n, packet in enumerate(file.packets))
        if found or (file.damage and not stream.damage):  # the product finds out when it decodes
            with pytest.raises(DamageError):
                codec.decode(data, strict=True)
        if file.index and file.index.holds:
            assert read_index(io.BytesIO(data)) == file.index.offsets
            assert [find_packet(io.BytesIO(data), n) for n in range(len(file.packets))] == file.index.offsets
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


def body(record: bytes, number: int = 0) -> bytes:
    return reference.read_record(record, 0, number).body


def changed(data: bytes, **fields: Any) -> bytes:
    """The header, with other fields."""
    return dataclasses.replace(Header.parse(data), **fields).pack()


def missing(file: Any) -> list[int]:
    return [n for n, packet in enumerate(file.packets) if packet is None]


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
        file = check(short_packets.encode(np.stack(channels), 16000, quality=4, stereo="discrete"))
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
    layer = Layer(codec.model.denoiser.fingerprint[:2], 255, *fields, 254)
    picks = np.random.default_rng(1).integers(0, 2 << layer.bits, layer.shape(1, 13))
    file = check(b"".join([*parts(walked)[:2], pack_record(LAYER, layer.pack(picks), 0), *parts(walked)[3:]]))
    assert file.damage == []
    assert file.packets[0].layer.steps == layer.steps


def test_layer_of_another_denoiser(layered: bytes, check: Check) -> None:
    header, packet, layer, *rest = parts(layered)
    file = check(b"".join([header, packet, pack_record(LAYER, flip(body(layer), 0)), *rest]))
    assert file.packets[0].layer is None
    assert len(file.damage) == 1


def test_comments_and_kinds_that_are_not_known(short_packets: Codec, check: Check) -> None:
    comments = ["TITLE=Übung", "empty="]
    data = short_packets.encode(clip("music")[:16_000], 16000, quality=3, comments=comments)
    header, *records = parts(data)
    file = check(b"".join([header, pack_record(0x7A, b"later"), *records, pack_record(COMMENT, b"a=b")]))
    assert (file.comments, file.damage) == ([*comments, "a=b"], [])


def test_unknown_length(based: bytes, check: Check) -> None:
    data = changed(based, samples=None) + based[24:]
    assert data[13:18] == UNKNOWN.to_bytes(5, "little")
    assert (check(data).samples, check(data).hops) == (None, 752)
    assert check(data + pack_end(119_999) + pack_end(5)).samples == 119_999
    assert check(data + pack_record(END, b"1234")).samples is None
    assert check(data + pack_end(UNKNOWN) + pack_end(119_999)).samples == 119_999
    assert check(based + pack_end(5)).samples == 120_000
    assert not check(data + pack_end(119_999)).damage


@pytest.mark.parametrize(("samples", "counts"), [(117_761, True), (117_760, False), (0, False), (120_321, True)])
def test_end_records_that_claim(samples: int, counts: bool, based: bytes, check: Check) -> None:
    """The last of the packets ends at sample 120,320; an end may take less than 16 hops of it."""
    data = changed(based, samples=None) + based[24:] + pack_end(samples)
    file = check(data)
    assert file.samples == (samples if counts else None)
    assert bool(file.damage) == (not 117_760 < samples <= 120_320)
    assert file.hops == (737 if samples == 117_761 else 752)
    assert check(data + pack_end(120_000)).samples == (samples if counts else 120_000)


def test_end_of_lost_packets(based: bytes, check: Check) -> None:
    """It still says how long the sound was."""
    header, *packets = parts(based)
    header, end = changed(based, samples=None), pack_end(120_000)
    for last, hops in ((flip(packets[3], 9), 750), (pack_record(PACKET, b"", 3), 750), (b"", 624)):
        file = check(b"".join([header, *packets[:3], last, end]))
        assert (file.samples, file.hops) == (120_000, hops)
        assert missing(file) == ([3] if last else [])


def test_packets_behind_the_end(based: bytes, layered: bytes, check: Check) -> None:
    end = pack_end(2 * 208 * 160)
    for data, rate in ((based, 1), (layered, 2)):
        records = parts(data)[1:]
        records.insert(2 * rate, end)
        file = check(b"".join([changed(data, samples=None), *records]))
        assert (file.samples, len(file.packets), file.hops) == (66_560, 2, 416)
        assert len(file.damage) == len(records) - 2 * rate - 1
        shorter = check(changed(data, samples=66_560) + data[24:])  # the header says so: no damage, and dropped
        assert (len(shorter.packets), shorter.hops, shorter.damage) == (2, 416, [])


def test_packets_of_their_own_quality(own: bytes, model: Any, check: Check) -> None:
    file = check(own)
    qualities = [packet.quality for packet in file.packets]
    assert (file.quality, file.samples, file.damage) == (reference.OWN_QUALITY, 120_000, [])
    assert len(set(qualities)) > 1
    header, *records = parts(own)
    record, hops = body(records[1], 1), reference.leb128(body(records[1], 1), 0)[1]
    for quality in (len(model.choice), 253, 254, 255):
        other = pack_record(PACKET, record[:hops] + bytes([quality]) + record[hops + 1 :], 1)
        assert missing(check(b"".join([header, records[0], other, *records[2:]]))) == [1]
    nothing = pack_record(PACKET, record[:hops], 1)
    assert missing(check(b"".join([header, records[0], nothing, *records[2:]]))) == [1]
    silent = pack_record(PACKET, record[:hops] + b"\x05" + reference.SILENT.to_bytes(2, "little", signed=True), 1)
    file = check(b"".join([header, records[0], silent, *records[2:]]))
    assert (file.packets[1].quality, file.packets[1].channels, file.damage) == (5, [], [])


def test_channels_of_a_stream(short_packets: Codec, speech: np.ndarray, check: Check) -> None:
    encoder = short_packets.stream(48_000, 2, quality=9)
    data = b"".join(encoder.push(block) for block in np.array_split(np.stack([speech, -speech]), 7, axis=1))
    file = check(data + encoder.flush())
    assert (file.quality, file.channels, file.samples, file.damage) == (9, 2, len(speech), [])


def test_index(based: bytes, own: bytes, indexed: bytes, check: Check) -> None:
    file, (header, *records) = check(indexed), parts(indexed)
    assert file.index.holds
    assert [indexed[at] for at in file.index.offsets] == [PACKET] * 3
    assert file.index.end == len(indexed) - len(records[-1])
    assert (len(file.packets), file.damage) == (3, [])
    index, longer = body(records[-1]), (len(records[-1]) + 1).to_bytes(4, "little")
    for ours in (
        [*records, b"zz"],  # not the last
        [*records[:-1], flip(records[-1], 5)],
        [*records[:1], pack_record(0x7A, b"later"), *records[1:]],  # not where it says
        [*records[:3], *records[5:]],  # without packet 1
        *([*records[:-1], pack_record(reference.INDEX, other)] for other in (b"", b"1234", index[:-1], index[1:])),
        [*records[:-1], pack_record(reference.INDEX, index[:5] + b"\x80" * 5 + index[-4:])],
        [*records[:-1], pack_record(reference.INDEX, index[:-4] + b"\x80" + longer)],
        [*records[:-1], pack_record(reference.INDEX, index[:-4] + b"\1" + longer)],
        [*records[:-1], pack_record(reference.INDEX, index[:-4] + b"\1\0\0\0")],
    ):
        file = check(b"".join([header, *ours]))
        assert not file.index or not file.index.holds
        assert [n for n, packet in enumerate(file.packets) if packet] == (
            [0, 2] if len(ours) < len(records) else [0, 1, 2]
        )
    assert check(based).index is None
    offsets = np.cumsum([24, *map(len, parts(own)[1:])])[:5]  # of packets, and of the end
    for moved, wrong in (([0, 0, 0, 0], 0), ([0, 0, 0, 0], 1), ([1, -1, 0, 0], 0), ([0, 0, 0, 1], 0)):
        entries = b"".join(bytes([n & 127 | 128, n >> 7]) for n in (np.diff(offsets) + moved).tolist())
        size = len(entries) + 15 + wrong
        made = pack_record(reference.INDEX, (24).to_bytes(5, "little") + entries + size.to_bytes(4, "little"))
        file = check(own + made)
        assert file.index.holds == (not wrong and not any(moved))
        assert (len(file.packets), file.damage) == (4, [])
        assert file.index.offsets == offsets[:4].tolist() or any(moved)


def test_layers_and_the_flag(based: bytes, layered: bytes, check: Check) -> None:
    none = check(changed(layered, layers=False) + layered[24:])
    assert not any(packet.layer for packet in none.packets)
    assert len(none.damage) == 3
    header, packet, layer, *rest = parts(changed(layered, layers=False) + layered[24:])
    assert not check(b"".join([header, packet, flip(layer, 40), *rest])).packets[0].layer
    assert not check(changed(based, layers=True) + based[24:]).damage


def test_records_between_a_packet_and_its_layer(layered: bytes, check: Check) -> None:
    """They are no packets, so the layer is still its; but a damaged one has to stand right behind it."""
    header, packet, layer, *rest = parts(layered)
    for between in (pack_record(COMMENT, b"a=b"), pack_record(0x7A, b"later")):
        assert check(b"".join([header, packet, between, layer, *rest])).packets[0].layer
        assert not check(b"".join([header, packet, between, flip(layer, 40), *rest])).packets[0].layer
    file = check(b"".join([header, packet, flip(layer, 40), pack_record(0x7A, b"later"), *rest]))
    assert file.packets[0].layer
    good = check(layered).packets[0].layer
    assert file.packets[0].layer.picks != good.picks
    assert check(b"".join([header, packet, flip(layer, 40), layer, *rest])).packets[0].layer == good
    assert check(b"".join([header, packet, layer, flip(layer, 40), *rest])).packets[0].layer == good


def test_packets_that_have_nothing_but_a_lost_layer(walked: bytes, check: Check) -> None:
    header, first, _, *rest = parts(walked)
    file = check(b"".join([header, first, *rest]))
    assert missing(file) == [0]
    assert (len(file.damage), file.hops) == (1, 250)


def test_only_kinds_that_are_known_end_damage(based: bytes, check: Check) -> None:
    header, first, second, *rest = parts(based)
    unknown = pack_record(0x7A, b"later")
    file = check(b"".join([header, first, flip(second, 9), unknown, *rest]))
    assert file.damage[0].startswith(f"{len(second + unknown)} bytes")
    assert check(b"".join([header, first, second, unknown, *rest])).damage == []


def test_files_that_end_early(based: bytes, check: Check) -> None:
    """One packet more than what is whole, if there is a trace of it."""
    header, *packets = parts(based)
    bad = [pack_record(PACKET, b"", n) for n in range(4)]
    for records, hops, lost in (
        (packets[:2], 416, []),
        ([*packets[:2], b"garbage"], 624, [2]),
        ([*packets[:2], bad[2]], 624, [2]),
        ([*packets[:2], bad[2], bad[3]], 624, [2]),
        ([*packets[:2], bad[3]], 624, [2]),
        ([*packets[:3], bad[3], b"garbage"], 750, [3]),
        ([*packets[:2], bad[2], packets[3]], 750, [2]),
        ([packets[0], packets[3]], 750, [1, 2]),
        ([*packets[:3], pack_record(PACKET, b"\x10" + body(packets[3], 3)[2:], 3)], 640, []),
    ):
        file = check(b"".join([header, *records]))
        assert (file.hops, missing(file)) == (hops, lost)
        assert file.damage
        without = check(b"".join([changed(based, samples=None), *records]))
        assert missing(without) == [n for n in lost if packets[3] in records]


def soup(seed: int, data: bytes) -> bytes:
    """A file whose records were damaged, removed, and mixed with others."""
    rng, header, out = random.Random(seed), Header.parse(data), []
    numbers = iter(range(9))
    for record in parts(data)[1:]:
        if record[0] == PACKET:
            number = next(numbers)
            out += rng.choice([[], [], [], [], [rng.randbytes(rng.randrange(1, 60))], [pack_record(0x7A, b"later")]])
            start = 3 + (header.quality == reference.OWN_QUALITY)
            broken = pack_record(PACKET, body(record, number)[: start + 2] + b"\xff" * 40, number)
            out += rng.choice(
                [[record]] * 5
                + [[], [broken], [pack_record(PACKET, b"", number)], [flip(record, rng.randrange(len(record)))]]
            )
        elif record[0] == LAYER:
            out += rng.choice(
                [[record]] * 5 + [[], [record] * 2, [flip(record, rng.randrange(len(record)), rng.randrange(8))]]
            )
    samples = rng.choice([header.samples or 120_000, 1, 33_281, 90_000, 500_000, None, None, None])
    if rng.randrange(2):
        out.append(pack_end(rng.choice([5, 66_560, 89_000, 119_999, 120_321, 10**6, UNKNOWN])))
    data = b"".join([changed(data, samples=samples), *out])
    return data[: rng.randrange(24, len(data) + 1)] if rng.random() < 0.1 else data


@pytest.mark.parametrize("name", ["based", "own", "layered", "walked"])
def test_record_soup(name: str, request: pytest.FixtureRequest, model: Any, check: Check) -> None:
    refused = 0
    for seed in range(40):
        data = soup(seed, request.getfixturevalue(name))
        try:
            reference.read(data, model)
        except reference.Unreadable:
            assert not read_stream(data).packets
            refused += 1
        else:
            check(data)
    assert refused < 20


@pytest.mark.parametrize("number", range(4))
@pytest.mark.parametrize("byte", [0, 1, 2, 6, 30, -1])
def test_damaged_packet(number: int, byte: int, based: bytes, check: Check) -> None:
    pieces = parts(based)
    record = pieces[number + 1]
    pieces[number + 1] = flip(record, byte % len(record), 3)
    file = check(b"".join(pieces))
    assert missing(file) == [number]
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
    short = pack_record(PACKET, b"\x10" + body(packets[1], 1)[2:], 1)
    data = b"".join([header, packets[0], short, *packets[2:]])
    file = check(data)
    assert missing(file) == [1]
    assert read_stream(data).damage
    whole, damaged = codec.decode(based)[0], codec.decode(data)[0]
    assert len(damaged) == len(whole)
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
    for content in (b"", b"\x00\0\0", b"\x80\x80\x80\x01\0\0", b"\xff\x7f\0\0", b"\x10\0", b"\x10\x01\x80"):
        file = check(b"".join([header, packets[0], pack_record(PACKET, content, 1), *packets[2:]]))
        assert missing(file) == [1]
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


def test_files_that_cannot_be_read(based: bytes, codec: Codec, model: Any) -> None:
    changes: list[dict[str, Any]] = [
        {"version": (0, 1)},
        {"version": (2, 0)},
        {"quality": 48},
        {"quality": 253},
        {"quality": NO_BASE},  # without the flag of layers
        {"channels": 0},
        {"samples": 0},
        {"sample_rate": 0},
        {"sample_rate": 800_000},
        {"packet_hops": 0},
        {"packet_hops": 1040},
        {"packet_hops": 200},
        {"model": b"none"},
    ]
    files = [changed(based, **change) + based[24:] for change in changes]
    files += [crafted(based, 7, flags) for flags in (2, 3, 128)]
    files += [b"", based[:3], b"RIFF" + based[4:], based[:24], based[:23], flip(based, 9), based[:30]]
    files.append(based[:24] + pack_record(PACKET, b""))
    for data in files:
        with pytest.raises(reference.Unreadable):
            reference.read(data, model)
        with pytest.raises((FormatError, ModelError)):
            codec.decode(data)
    later = changed(based, version=(1, 9)) + based[24:]
    assert all(reference.read(later, model).packets)
    assert codec.decode(later).shape == (1, 120_000)


def crafted(data: bytes, at: int, value: int) -> bytes:
    """With another byte in the header, and a checksum that holds."""
    fields = data[:at] + bytes([value]) + data[at + 1 : 22]
    return fields + crc_hqx(fields, 0xFFFF).to_bytes(2, "little") + data[24:]


def test_order_of_checks(based: bytes, codec: Codec, model: Any) -> None:
    """Of several reasons to refuse a file the first counts, and another version is called by its name."""
    newer = flip(flip(crafted(based, 4, 0x23), 22), 18)
    for data, word in (
        (newer, "2.3"),
        (newer[:5], "2.3"),
        (flip(crafted(based, 7, 2), 22), "checksum"),
        (crafted(crafted(based, 7, 2), 18, 1), "limits"),
        (crafted(crafted(based, 6, 60), 18, 1), "model"),
    ):
        with pytest.raises(reference.Unreadable, match=word):
            reference.read(data, model)
    for data in (newer, newer[:5]):
        with pytest.raises(FormatError, match=r"2\.3"):
            codec.decode(data)


def test_noise() -> None:
    assert NORMALS[128:].tolist() == reference.NORMALS
    for seed, stream, step, number in [(0, 0, 0, 0), (255, 2, 1000, 2**32 - 1), (9, 1, 0, 515)]:
        expected = normals(seed, stream, step, np.array([number]), 1500)[0].tolist()
        assert reference.noise(seed, stream, step, number, 1500) == expected


def test_command(indexed: bytes, codec: Codec, tmp_path: Path) -> None:
    path = tmp_path / "a.aldm"
    path.write_bytes(indexed)
    command = [sys.executable, str(SOURCE), str(path), str(find_model(None))]
    facts = json.loads(subprocess.run(command, check=True, capture_output=True, timeout=60).stdout)
    assert (facts["samples"], facts["damage"], len(facts["packets"])) == (90_000, [], 3)
    assert (facts["comments"], facts["index"]["holds"]) == (["A=b"], True)
    stream = read_stream(indexed)
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

"""Reference decoder of `.aldm` files, written from aldm-format.md alone, with the standard library alone.

It prints everything that the format defines exactly: header, indices, picks and damage, but no sound. It shares no code
with the package, so that each can be tested against the other.

Usage: python reference_decoder.py FILE MODEL_FOLDER
"""

import json
import re
import struct
import sys
import zlib
from binascii import crc_hqx
from bisect import bisect_right
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import accumulate
from math import isqrt
from pathlib import Path
from statistics import NormalDist
from typing import Any, NamedTuple

PACKET, LAYER, COMMENT, END, INDEX, HIGH_BAND, STEREO = KINDS = b"PDCEIHS"
SILENT, COPY = -32768, -32767
OWN_QUALITY, NO_BASE = 254, 255
UNKNOWN = (1 << 40) - 1
NUMBERS_TRIED = 64
WORK_TO_RESYNCHRONISE = 1 << 26
MODEL = "vae/config.json", "vae/diffusion_pytorch_model.safetensors", "codec/config.json", "codec/tables.safetensors"
DENOISER = "unet/config.json", "unet/diffusion_pytorch_model.safetensors", "scheduler/scheduler_config.json"
PREDICTOR = "codec/predictor.json", "codec/predictor.safetensors"
CONDITION = "codec/condition.safetensors"
QUALITIES, OVERLAP = 48, 64  # of AudioLDM 2 checkpoints; hops that a packet shares with the next one
DURATIONS = 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64  # of segments, section 14
FIRST = {HIGH_BAND: [3, -70, 9] + [0] * 6, STEREO: [0] * 42}
START = 1400, 1527, 1665, 1816, 1980, 2159, 2355, 2568
ONE, WORD, STATE = 1 << 24, 1 << 32, (1 << 64) - 1
NORMALS = [round(32 * NormalDist().inv_cdf((byte + 0.5) / 256)) for byte in range(128, 256)]


class Unreadable(Exception):
    """Nothing in the file can be read; the message says why."""


class Damaged(Exception):
    """A record cannot be used; the message says why."""


class Model:
    """What the model folder says about indices.

    `denoiser` is empty if there is no denoiser; `transitions` is None if there are no tables (section 5.1).
    """

    def __init__(self, folder: Path) -> None:
        try:
            config = json.loads((folder / "vae/config.json").read_bytes())
            if config.get("_class_name") == "AutoencoderKL":
                self.patch, self.overlap = 1 << len(config["block_out_channels"]) - 1, OVERLAP
                self.groups, self.bands = config["latent_channels"], 64 // self.patch
                model = [MODEL[0], *weights(folder, "vae"), *there(folder, MODEL[3])]
                denoiser = [DENOISER[0], *weights(folder, "unet"), DENOISER[2], *there(folder, CONDITION)]
            else:
                self.patch, self.overlap = config["patch"], 0
                model = [*MODEL, *(name for part in PREDICTOR for name in there(folder, part))]
                denoiser = DENOISER
            self.fingerprint = fingerprint(folder, model)
            self.denoiser, self.refinable = b"", NO_BASE
            if weights(folder, "unet"):
                self.denoiser = fingerprint(folder, denoiser)
                self.refinable = json.loads((folder / DENOISER[0]).read_bytes()).get("levels", NO_BASE)
            tables = safetensors((folder / MODEL[3]).read_bytes()) if MODEL[3] in model else {}
        except (OSError, ValueError, KeyError, struct.error) as error:
            raise Unreadable(f"{folder} is no model folder: {error}") from error
        self.bank = [intervals(row) for row in tables.get("bank", ())]
        self.choice, self.transitions = tables.get("choice"), tables.get("transitions")
        self.qualities = len(self.choice) if self.choice else QUALITIES

    def vectors(self, hops: int) -> int:
        return (hops + self.overlap) // self.patch


def there(folder: Path, name: str) -> list[str]:
    return [name] if (folder / name).exists() else []


def weights(folder: Path, part: str) -> list[str]:
    """Names of the files of weights that belong to a fingerprint, section 6.1."""
    found = [path.name for path in (folder / part).glob("*") if not re.search(r"\.(fp16|non_ema)\b", path.name)]
    for kind in (".safetensors", ".bin"):
        if names := sorted(f"{part}/{name}" for name in found if name.endswith(kind)):
            return names
    return []


def fingerprint(folder: Path, names: Sequence[str]) -> bytes:
    parts = (name.encode() + b"\0" + sha256((folder / name).read_bytes()).digest() for name in names)
    return sha256(b"".join(parts)).digest()


def safetensors(data: bytes) -> dict[str, Any]:
    """Integer arrays of a safetensors file, as nested sequences."""
    (size,) = struct.unpack_from("<Q", data)
    arrays: dict[str, Any] = {}
    for name, about in json.loads(data[8 : 8 + size]).items():
        if letter := {"I32": "i", "U8": "B", "U16": "H"}.get(about.get("dtype")):
            begin, end = (8 + size + offset for offset in about["data_offsets"])
            values: Any = [value for (value,) in struct.iter_unpack("<" + letter, data[begin:end])]
            for n in about["shape"][:0:-1]:
                values = [values[at : at + n] for at in range(0, len(values), n)]
            arrays[name] = values
    return arrays


def intervals(counts: list[int]) -> list[int]:
    """b[0] .. b[n] of section 5."""
    n, sums = len(counts), list(accumulate(counts, initial=0))
    k = float(ONE - n) / float(sums[n])
    return [int(float(sums[s]) * k) + s for s in range(n)] + [ONE]


def adaptive_bank() -> list[list[int]]:
    """The counts of section 5.1."""
    bank = []
    for t in range(56):
        m = (2 * (4 + t % 4) + 1) << t // 4
        r = ((isqrt(m * m + (1 << 22) << 32) - (1 << 27)) << 16) // m
        w = [1 << 32]
        for _ in range(31):
            w.append(w[-1] * r >> 32)
        tail = [1 + (weight >> 8) for weight in w[:31]] + [1 + ((w[31] << 32) // ((1 << 32) - r) >> 8)]
        bank.append(tail[:0:-1] + tail)
    return bank


class RangeDecoder:
    def __init__(self, payload: bytes) -> None:
        self.words = (word for (word,) in struct.iter_unpack(">I", payload + bytes(-len(payload) % 4)))
        self.low, self.range = 0, STATE
        self.point = next(self.words, 0) << 32 | next(self.words, 0)

    def symbol(self, b: Sequence[int]) -> int:
        scale = self.range >> 24
        q = (self.point - self.low & STATE) // scale
        if q >= ONE:
            raise Damaged("the payload does not decode")
        s = bisect_right(b, q) - 1
        self.low, self.range = self.low + scale * b[s] & STATE, scale * (b[s + 1] - b[s])
        if self.range < WORD:
            self.low, self.range = self.low << 32 & STATE, self.range << 32
            self.point = self.point << 32 & STATE | next(self.words, 0)
        return s

    def uniform(self, n: int) -> int:
        """A uniform number in 0 .. n - 1; n is a power of two."""
        return self.symbol(range(0, ONE + 1, ONE // n))


class Channel(NamedTuple):
    """Class and C indices of each vector. There are no classes with adaptive tables."""

    classes: list[int]
    indices: list[list[int]]


class Layer(NamedTuple):
    """Fields of section 7. Picks are in the order of the file."""

    denoiser: bytes
    seed: int
    schedule: int
    first: int
    steps: int
    span: int
    bits: int
    atoms: int
    level: int
    picks: tuple[int, ...] = ()


class Segment(NamedTuple):
    """Units and values of section 14."""

    units: int
    values: list[int]


@dataclass
class Packet:
    """A packet. `gains` are as stored. `channels` are the coded channels; empty without a base layer."""

    hops: int
    quality: int
    gains: tuple[int, ...]
    channels: list[Channel]
    layer: Layer | None = None
    high_band: list[list[Segment]] | None = None  # tracks
    balance: int = 0
    stereo: list[Segment] | None = None
    layered: bool = False  # a whole layer record was read, usable or not
    lost: bool = False  # the payload does not decode

    @property
    def coded(self) -> int:
        return sum(gain not in (SILENT, COPY) for gain in self.gains)


class Index(NamedTuple):
    """Offsets of the packets, and of the end of the last one with its layer. `holds`: it agrees with the file."""

    offsets: list[int]
    end: int
    holds: bool


@dataclass
class File:
    """A decoded file.

    `packets` has None for each missing packet. `samples` is None if unknown. `hops` is the duration of the sound.
    """

    version: str
    model: str
    channels: int
    quality: int
    layers: bool
    rate: int
    packet_hops: int
    samples: int | None
    hops: int = 0
    index: Index | None = None
    comments: list[str] = field(default_factory=list)
    packets: list[Packet | None] = field(default_factory=list)
    damage: list[str] = field(default_factory=list)


class Record(NamedTuple):
    """A record. `number` is None if the checksum holds with none of the numbers that are tried."""

    kind: int
    begin: int
    body: bytes
    end: int
    number: int | None


def read_header(data: bytes, model: Model) -> File:
    if data[:4] != b"\x89ALD":
        raise Unreadable("no .aldm file")
    version = ".".join(str(part) for byte in data[4:5] for part in divmod(byte, 16))
    if data[4:5] and data[4] >> 4 != 1:
        raise Unreadable(f"version {version} is not known")
    if len(data) < 24:
        raise Unreadable("the file ends in its header")
    channels, quality, flags, rate, hops, samples, name, crc = struct.unpack("<3B3s2s5s4sH", data[5:24])
    if crc_hqx(data[:22], 0xFFFF) != crc:
        raise Unreadable("the header's checksum does not hold")
    rate, hops, samples = (int.from_bytes(value, "little") for value in (rate, hops, samples))
    flags_fit = flags <= 1 and (flags or quality != NO_BASE)
    if not (channels and flags_fit and 1 <= rate <= 768_000 and 1 <= hops <= 1024 and samples):
        raise Unreadable("a field of the header is out of limits")
    if name != model.fingerprint[:4]:
        raise Unreadable(f"the file is of model {name.hex()}, not {model.fingerprint[:4].hex()}")
    if hops % model.patch or (quality >= model.qualities and quality not in (OWN_QUALITY, NO_BASE)):
        raise Unreadable("a field of the header does not fit the model")
    known = None if samples == UNKNOWN else samples
    return File(version, name.hex(), channels, quality, bool(flags), rate, hops, known)


def leb128(data: bytes, at: int) -> tuple[int, int]:
    """The number at offset `at`, and the offset behind it."""
    value = 0
    for place, byte in enumerate(data[at : at + 3]):
        value |= (byte & 127) << 7 * place
        if byte < 128:
            return value, at + place + 1
    raise Damaged("a number does not end")


def read_record(data: bytes, at: int, expected: int) -> Record | None:
    """The record at offset `at`, or None if the file ends within it. `expected`: number of the next packet."""
    try:
        length, begin = leb128(data, at + 1)
    except Damaged:
        return None
    end = begin + length + 4
    if end > len(data):
        return None
    first = max(0, expected - (data[at] == LAYER))
    numbers = range(first, first + NUMBERS_TRIED) if data[at] in (PACKET, LAYER) else range(1)
    crc, stored = zlib.crc32(data[at : end - 4]), int.from_bytes(data[end - 4 : end], "little")
    number = next((n for n in numbers if zlib.crc32(n.to_bytes(4, "little"), crc) == stored), None)
    return Record(data[at], at, data[begin : end - 4], end, number)


def read_packet(body: bytes, file: File) -> tuple[Packet, bytes]:
    """The packet with its fields but without channels, and its payload."""
    hops, at = leb128(body, 0)
    quality = file.quality
    if quality == OWN_QUALITY:
        quality, at = int.from_bytes(body[at : at + 1], "little"), at + 1
        if quality >= OWN_QUALITY:
            raise Damaged("the packet has no quality")
    payload = at + 2 * file.channels
    if not 1 <= hops <= file.packet_hops or len(body) < payload:
        raise Damaged("a field of the packet is out of limits")
    gains = struct.unpack_from(f"<{file.channels}h", body, at)
    if gains[0] == COPY:
        raise Damaged("the first channel has none before it")
    return Packet(hops, quality, gains, []), body[payload:]


def read_channels(packet: Packet, payload: bytes, model: Model) -> list[Channel]:
    if packet.hops % model.patch:
        raise Damaged("the packet has a part of a vector")
    if packet.quality == NO_BASE:
        return []
    if packet.quality >= model.qualities:
        raise Damaged("the model does not have the quality of the packet")
    coder = RangeDecoder(payload)
    read = read_channel if model.transitions else read_adaptive_channel
    return [read(coder, model.vectors(packet.hops), packet.quality, model) for _ in range(packet.coded)]


def read_channel(coder: RangeDecoder, vectors: int, level: int, model: Model) -> Channel:
    rows = [intervals(counts) for counts in model.transitions[level]]
    channel, kind = Channel([], []), -1
    for _ in range(vectors):
        kind = coder.symbol(rows[kind])
        channel.classes.append(kind)
        channel.indices.append(read_vector(coder, [model.bank[table] for table in model.choice[level][kind]]))
    return channel


ADAPTIVE_BANK = [intervals(row) for row in adaptive_bank()]


class Adaptive:
    """State of section 5.1, for `size` channels in groups of `bands`."""

    def __init__(self, size: int, bands: int, level: int) -> None:
        self.s, self.m = [START[level % 8] << level // 8] * size, [0] * size
        self.f, self.bands, self.n = self.s.copy(), bands, 0

    def read(self, coder: RangeDecoder) -> list[int]:
        """Decode the next vector."""
        s, f, m, bands, tables = self.s, self.f, self.m, self.bands, list[list[int]]()
        for c in range(len(s)):
            begin, last = c - c % bands, c - c % bands + bands - 1
            near = f[c + 1 if c == begin else c - 1] + f[c - 1 if c == last else c + 1] >> 1
            scale = min(max((2 * s[c] + f[c] + near >> 2) >> 6, 4), 57344)
            e = scale.bit_length() - 3
            tables.append(ADAPTIVE_BANK[4 * e + (scale >> e) - 4])
        values, shift = read_vector(coder, tables), min(4, (self.n + 2).bit_length() - 1)
        for c, value in enumerate(values):
            q, a = value + (m[c] + 32768 >> 16), abs(value) << 16
            s[c] += a - s[c] >> shift
            f[c] += a - f[c] >> 1
            m[c] += (q << 16) - m[c] >> 2
            values[c] = q
        self.n += 1
        return values


def read_adaptive_channel(coder: RangeDecoder, vectors: int, level: int, model: Model) -> Channel:
    state = Adaptive(model.groups * model.bands, model.bands, level)
    return Channel([], [state.read(coder) for _ in range(vectors)])


def read_tracks(payload: bytes, kind: int, count: int, hops: int) -> list[list[Segment]]:
    """Tracks of a high band or stereo record, section 14."""
    coder, units, size = RangeDecoder(payload), -(-hops // 4), 1 + len(FIRST[kind])
    tracks = list[list[Segment]]()
    for _ in range(count):
        track, state, values = list[Segment](), Adaptive(size, size, 40), FIRST[kind]
        while sum(segment.units for segment in track) < units:
            duration, *steps = state.read(coder)
            if not 0 <= duration < len(DURATIONS):
                raise Damaged("a segment has no valid duration")
            values = [value + step for value, step in zip(values, steps, strict=True)]
            left = units - sum(segment.units for segment in track)
            track.append(Segment(min(DURATIONS[duration], left), values))
        tracks.append(track)
    return tracks


def read_vector(coder: RangeDecoder, tables: Sequence[list[int]]) -> list[int]:
    """Decode C values with their tables of intervals, and their escapes."""
    largest = (len(tables[0]) - 1) // 2
    values = [coder.symbol(table) - largest for table in tables]
    for c, value in enumerate(values):
        if abs(value) == largest:
            n = 8 << coder.uniform(16)
            magnitude = largest + n - 8 + coder.uniform(n)
            values[c] = magnitude if value > 0 else -magnitude
    return values


def read_layer(body: bytes, packet: Packet, model: Model) -> Layer:
    if len(body) < 12:
        raise Damaged("the layer is too short")
    layer = Layer(*struct.unpack_from("<2sBHHBBBBB", body))
    steps_fit = 1 <= layer.schedule <= 1000 and 1 <= layer.steps <= layer.schedule - layer.first
    atoms_fit = layer.bits <= 14 and 1 <= layer.atoms <= min(64, 1 << layer.bits)
    if not (steps_fit and atoms_fit and 1 <= layer.span <= 64 and layer.level <= 254):
        raise Damaged("a field of the layer is out of limits")
    if layer.denoiser != model.denoiser[:2]:
        raise Damaged("the layer is of another denoiser")
    if model.refinable <= packet.quality != NO_BASE:
        raise Damaged("the denoiser does not know the quality of the packet")
    width, blocks = layer.bits + 1, -(-model.vectors(packet.hops) // layer.span)
    used = packet.coded * blocks * (layer.steps - 1) * layer.atoms * width
    digits = "".join(f"{byte:08b}" for byte in body[12:])
    if len(digits) != used + -used % 8:
        raise Damaged("the layer is not as long as its picks")
    return layer._replace(picks=tuple(int(digits[at : at + width], 2) for at in range(0, used, width)))


class Reader:
    """Reads the records of a file, and collects what is damaged."""

    def __init__(self, data: bytes, model: Model) -> None:
        self.data, self.model, self.file = data, model, read_header(data, model)
        self.records: list[Record] = []  # not passed over, in the order of the file
        self.expected = 0  # number of the next packet
        self.ended = False  # an end record that counts was read
        self.passed_over = 0  # offset of the last byte that was passed over
        self.taken = 0  # offset of the last whole packet, or of its layer
        self.parameters = dict[tuple[int, bytes], bytes]()  # bodies of records for the next packet
        self.work = 0  # bytes checked while searching for a whole record

    def whole(self, at: int, kinds: Sequence[int] = range(256)) -> bool:
        record = read_record(self.data, at, self.expected)
        self.work += record.end - at if record else 1
        return record is not None and record.number is not None and record.kind in kinds

    def usable(self, record: Record) -> bool:
        """Whether a record is whole, or a damaged layer that section 8 lets a reader use.

        Such a layer stands right behind its packet, and a whole record or the end of the file follows it.
        """
        if record.number is not None or not self.file.layers:
            return record.number is not None
        behind = [before.kind for before in self.records[-1:]] == [PACKET]
        return behind and record.kind == LAYER and (record.end == len(self.data) or self.whole(record.end))

    def read(self) -> File:
        at, size = 24, len(self.data)
        while at < size:
            record = read_record(self.data, at, self.expected)
            if record and self.usable(record):
                try:
                    self.take(record)
                except Damaged as damage:
                    self.file.damage.append(f"record at byte {at}: {damage}")
                self.records.append(record)
                at = record.end
                continue
            begin, at = at, at + 1
            while at < size and not self.whole(at, KINDS):
                at = at + 1 if self.work < WORK_TO_RESYNCHRONISE else size
            self.file.damage.append(f"{at - begin} bytes from byte {begin} on passed over")
            self.passed_over = at - 1
        self.finish()
        return self.file

    def take(self, record: Record) -> None:
        file, body = self.file, record.body
        if record.kind == PACKET:
            self.take_packet(record)
        elif record.kind == LAYER:
            self.take_layer(record)
        elif record.kind in FIRST and file.version != "1.0" and file.channels <= 2:
            self.parameters.setdefault((record.kind, body[:1]), body)
        elif record.kind == COMMENT:
            file.comments.append(body.decode(errors="replace"))
        elif record.kind == END and len(body) == 5 and file.samples is None:
            samples = int.from_bytes(body, "little")
            if samples != UNKNOWN:
                taken = self.reached()[1] * 160 - -(-samples * 16000 // file.rate)
                if not (self.reached()[1] and samples and taken < 16 * 160):
                    raise Damaged("the end is not that of the packets before it")
                file.samples, self.ended = samples, True
        elif record.kind == INDEX and record.end == len(self.data):
            self.take_index(record)

    def take_packet(self, record: Record) -> None:
        file, number = self.file, record.number or 0
        self.expected = number + 1
        found, self.parameters = self.parameters, {}
        parameters = {kind: body for (kind, of), body in found.items() if of == bytes([number % 256])}
        if len(parameters) < len(found):
            file.damage.append(f"a high band or stereo record before packet {number} is not of it")
        if self.ended:
            raise Damaged("a packet behind the end")
        if file.packets and file.packets[-1] and file.packets[-1].hops < file.packet_hops:
            file.damage.append(f"packet {len(file.packets) - 1} is too short for one that is not the last")
            file.packets[-1] = None
        file.damage += [f"packet {n} is missing" for n in range(len(file.packets), number)]
        file.packets += [None] * (number + 1 - len(file.packets))
        packet, payload = read_packet(record.body, file)
        file.packets[-1], self.taken = packet, record.begin
        if self.behind_the_end(number):
            return
        packet.lost = True
        packet.channels = read_channels(packet, payload, self.model)
        packet.lost = False
        for kind, body in parameters.items():
            try:
                self.take_parameters(packet, kind, body)
            except Damaged as damage:
                file.damage.append(f"record before packet {number}: {damage}")

    def take_parameters(self, packet: Packet, kind: int, body: bytes) -> None:
        if kind == HIGH_BAND:
            packet.high_band = read_tracks(body[1:], kind, packet.coded, packet.hops)
            return
        if len(body) < 2 or packet.coded != 1 or packet.gains[1:] != (COPY,):
            raise Damaged("stereo of what is not one channel and its copy")
        [packet.stereo] = read_tracks(body[2:], kind, 1, packet.hops)
        packet.balance = int.from_bytes(body[1:2], "little", signed=True)

    def behind_the_end(self, number: int) -> bool:
        """Whether a packet begins at or after the end that the header gives."""
        file = self.file
        return file.samples is not None and number * file.packet_hops * file.rate >= file.samples * 100

    def take_layer(self, record: Record) -> None:
        last = next((r.number for r in reversed(self.records) if r.kind == PACKET), None)
        packet = self.file.packets[-1] if last == len(self.file.packets) - 1 else None
        if packet is None or last is None or record.number not in (None, last):
            raise Damaged("a layer without its packet")
        if not self.file.layers:
            raise Damaged("a layer where the header says that there are none")
        if packet.layered:
            raise Damaged("a second layer of the packet")
        packet.layer, packet.layered, self.taken = None, record.number is not None, record.begin
        if packet.coded and not self.behind_the_end(last):
            packet.layer = read_layer(record.body, packet, self.model)
        if not packet.layered:
            raise Damaged("the checksum of the layer does not hold")

    def take_index(self, record: Record) -> None:
        """Parse an index and compare it with the records before it."""
        distances, at, body = [int.from_bytes(record.body[:5], "little")], 5, record.body[:-4]
        with suppress(Damaged):  # then it does not hold
            while at < len(body):
                distance, at = leb128(body, at)
                distances.append(distance)
        *offsets, end = accumulate(distances)
        packets = [r for r in self.records if r.kind == PACKET]
        there = all(offsets[r.number or 0 : (r.number or 0) + 1] == [r.begin] for r in packets)
        after = (
            r.begin for r in [*self.records, record] if packets and r.begin > packets[-1].begin and r.kind != LAYER
        )
        fits = at == len(body) and record.body[-4:] == (record.end - record.begin).to_bytes(4, "little")
        holds = there and fits and len(offsets) == len(self.file.packets) and end == next(after, None)
        self.file.index = Index(offsets, end, holds)

    def reached(self) -> tuple[int, int]:
        """Number of the last whole packet (-1: none), and the hop where it ends."""
        last = max((n for n, packet in enumerate(self.file.packets) if packet), default=-1)
        packet = self.file.packets[last] if last >= 0 else None
        return last, last * self.file.packet_hops + packet.hops if packet else 0

    def finish(self) -> None:
        """Set duration and missing packets, which need the whole file."""
        file, (last, end) = self.file, self.reached()
        if last < 0:
            raise Unreadable("no whole packet")
        more = (len(file.packets) > last + 1 or self.passed_over > self.taken) and end % file.packet_hops == 0
        del file.packets[last + 1 :]
        file.hops = end
        if file.samples is not None:
            file.hops = -(-file.samples * 100 // file.rate)
            if end < file.hops:
                file.damage.append(f"the file ends early: {end} of {file.hops} hops")
                file.packets += [None] if more else []
                file.hops = min(file.hops, (last + 2) * file.packet_hops if more else end)
            del file.packets[-(-file.hops // file.packet_hops) :]
        for n, packet in enumerate(file.packets):
            if packet and packet.quality == NO_BASE and packet.coded and not packet.layer:
                file.damage.append(f"packet {n} has no base layer, and no layer that can be used")
                packet.lost = True
            if packet and packet.lost:
                file.packets[n] = None


def read(data: bytes, model: Model) -> File:
    return Reader(data, model).read()


def noise(seed: int, stream: int, step: int, number: int, count: int) -> list[int]:
    """The first `count` elements of a noise sequence, section 7."""
    elements: list[int] = []
    for group in range(-(-count // 16)):
        a, b, c, d, k, m = group, number, step, stream, seed, 0
        for _ in range(10):
            left, right = 0xD2511F53 * a, 0xCD9E8D57 * c
            a, b, c, d = right >> 32 ^ b ^ k, right % WORD, left >> 32 ^ d ^ m, left % WORD
            k, m = (k + 0x9E3779B9) % WORD, (m + 0xBB67AE85) % WORD
        elements += [NORMALS[x - 128] if x > 127 else -NORMALS[127 - x] for x in struct.pack("<4I", a, b, c, d)]
    return elements[:count]


def packet_facts(packet: Packet) -> dict[str, Any]:
    def digest(values: Sequence[int]) -> str:
        return sha256(struct.pack(f"<{len(values)}i", *values)).hexdigest()

    values = [value for channel in packet.channels for vector in channel.indices for value in vector]
    facts: dict[str, Any] = {"hops": packet.hops, "quality": packet.quality, "indices": digest(values)}
    facts["gains"] = [{SILENT: "silent", COPY: "copy"}.get(gain, gain / 256) for gain in packet.gains]
    facts["high_band"], facts["balance"], facts["stereo"] = packet.high_band, packet.balance, packet.stereo
    facts["classes"] = [channel.classes for channel in packet.channels]
    if layer := packet.layer:
        facts["layer"] = layer._asdict() | {"denoiser": layer.denoiser.hex(), "picks": digest(layer.picks)}
    return facts


def main(arguments: list[str]) -> int:
    if len(arguments) != 2:
        print("usage: reference_decoder.py FILE MODEL_FOLDER", file=sys.stderr)
        return 2
    try:
        file = read(Path(arguments[0]).read_bytes(), Model(Path(arguments[1])))
    except (OSError, Unreadable) as error:
        print(f"{arguments[0]}: {error}", file=sys.stderr)
        return 1
    packets = [packet and packet_facts(packet) for packet in file.packets]
    print(json.dumps(vars(file) | {"packets": packets, "index": file.index and file.index._asdict()}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

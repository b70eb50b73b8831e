"""Coverage-guided fuzzing of everything that parses (atheris, libFuzzer).

Usage: python tests/fuzz.py [options of libFuzzer] [folders of inputs], such as

    python tests/fuzz.py -max_total_time=600 -max_len=8192 -timeout=20 -rss_limit_mb=1500 corpus tests/golden/valid

An input that makes anything other than a FormatError, takes 20 s or 1500 MB ends the run and is kept. What atheris adds
to the code to see what it reaches leaks about 10 kB for each input (without it nothing leaks), so that an hour is
several runs on the same corpus.
"""

import io
import struct
import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["aldm.format"]):
    from aldm.format import adaptive
    from aldm.format import container as c
    from aldm.format.entropy import Tables, decode_indices
    from aldm.format.errors import DamageError, FormatError
    from aldm.format.index import find_packet, pack_index, read_index
    from aldm.format.layer import Layer
    from aldm.format.parameters import HighBand, Stereo
    from aldm.format.stream import StreamReader
from safetensors.numpy import load_file

ARRAYS = load_file(Path(__file__).parent / "golden/model/codec/tables.safetensors")
TABLES = Tables(ARRAYS["bank"], ARRAYS["choice"], ARRAYS["transitions"])
PATCH, LEVELS = 16, len(TABLES.choice)
CHANNELS, BANDS, OVERLAP = 32, 16, 64  # of the golden AudioLDM 2 checkpoint


def read_file(data: bytes) -> None:
    """All that a reader does with a file, from its start and from the middle."""
    for first in (0, 2):
        reader = StreamReader(io.BufferedReader(io.BytesIO(data)))  # type: ignore[arg-type]
        follow = reader.header.model[0] % 2 == 0  # as of the golden files that have adaptive tables
        size, number = reader.header.packet_hops, first
        for item in reader.packets(first):
            assert item.number == number, "a gap in the numbers"
            number += 1
            if item.packet is not None:
                decode_packet(reader, item.packet, item.layer, item.parameters, follow)
        assert reader.hops <= number * size or first
        assert reader.header.hops is None or reader.hops <= reader.header.hops


def decode_packet(
    reader: StreamReader, packet: c.Packet, layer: bytes | None, parameters: dict[int, bytes], follow: bool
) -> None:
    assert 1 <= packet.hops <= reader.header.packet_hops
    level = reader.header.quality if packet.quality is None else packet.quality
    coded, vectors = sum(gain > c.GAIN_COPY for gain in packet.gains), packet.hops // PATCH
    if follow:
        vectors = (packet.hops + OVERLAP) // 4
    try:
        if follow and level < adaptive.LEVELS and coded * vectors < 200:
            decode_adaptively(packet.payload, coded, vectors, level)
        elif level < LEVELS and coded * vectors < 500:
            for classes, indices in decode_indices(packet.payload, coded, vectors, TABLES, level):
                assert len(classes) == len(indices) == vectors
        for kind, body in parameters.items():
            if coded * packet.hops < 4000:
                parsed = (HighBand if kind == c.HIGH_BAND else Stereo).parse(body, packet)
                again = type(parsed).parse(parsed.pack(body[0]), packet)
                assert str(again) == str(parsed)
        if layer is not None:
            parsed, picks = Layer.parse(layer, coded, vectors)
            assert len(parsed.pack(picks)) == len(layer)
    except DamageError:
        pass


def decode_adaptively(payload: bytes, coded: int, vectors: int, level: int) -> None:
    """What decodes is coded again, and decodes to the same: the indices of any payload can be written."""
    streams = adaptive.decode_adaptive(payload, coded, vectors, CHANNELS, BANDS, level)
    again = adaptive.encode_adaptive(streams, BANDS, level)
    found = adaptive.decode_adaptive(again, coded, vectors, CHANNELS, BANDS, level)
    assert len(streams) == coded
    for one, other in zip(streams, found, strict=True):
        assert one.shape == (vectors, CHANNELS)
        assert (one == other).all()


def build(data: bytes) -> bytes:
    """A file whose checksums hold: a header of the first bytes, and records of the rest."""
    fields = struct.pack("<4sB", c.MAGIC, 0x11) + data[:17].ljust(17, b"\0")
    out = fields + struct.pack("<H", c.binascii.crc_hqx(fields, 0xFFFF))
    at, number = 17, 0
    while at + 3 <= len(data):
        kind, jump, length = data[at : at + 3]
        kind = c.KINDS.pattern[1 + kind % 7] if kind < 250 else kind
        number += jump if jump < 70 and kind == c.PACKET else 0
        out += c.pack_record(kind, data[at + 3 : at + 3 + length], number if kind in (c.PACKET, c.LAYER) else 0)
        at, number = at + 3 + length, number + (kind == c.PACKET)
    return out


def one_input(data: bytes) -> None:
    kind, data = data[:1], data[1:]
    try:
        if kind == b"\x89":  # an input that is a file
            read_file(kind + data)
        elif kind == b"I":
            for offset in read_index(io.BytesIO(bytes(24) + data)):
                assert offset >= 0
            find_packet(io.BytesIO(bytes(24) + data), len(data) // 9)
            offsets = sorted({24 + b * 9 for b in data})
            if offsets:
                assert read_index(io.BytesIO(bytes(offsets[-1] + 9) + pack_index(offsets, offsets[-1] + 9))) == offsets
        elif kind == b"P":
            for level in (0, LEVELS // 2, LEVELS - 1):
                decode_indices(data, 1 + len(data) % 3, 20, TABLES, level)
        elif kind == b"A":
            decode_adaptively(data[1:], 1 + len(data) % 3, 20, data[0] % adaptive.LEVELS if data else 0)
        elif kind == b"D":
            Layer.parse(data, 1 + len(data) % 3, 20)
        elif kind in (b"H", b"S"):
            gains = (0, c.GAIN_COPY) if kind == b"S" else (0,) * (1 + len(data) % 3)
            (Stereo if kind == b"S" else HighBand).parse(data, c.Packet(160, gains, b""))
        else:
            read_file(build(data))
    except FormatError:
        pass


if __name__ == "__main__":
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()

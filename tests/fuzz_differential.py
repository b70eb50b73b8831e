"""Differential fuzzing: the product and spec/reference_decoder.py have to read every mutated file alike.

Usage: python tests/fuzz_differential.py [--seconds N] [--mutations N] [--seed N] [--keep FOLDER]

Both have to agree on whether a file can be read, and on its length, comments, packets, indices, layers, picks, and
whether it is damaged. The seeds are the golden files. Files that are read differently are kept in a folder.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import random
import re
import sys
import time
import warnings
import zlib
from collections import Counter
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from aldm.codec.decoding.decoder import Decoder
from aldm.codec.decoding.packets import PacketDecoder
from aldm.codec.errors import ModelError
from aldm.format import FormatError
from aldm.format.layer import Layer
from aldm.format.parameters import units_of
from aldm.format.stream import Item, StreamReader
from mutate import mutate
from test_golden import MODELS, codec_of, expanded, model_of, names, read, reference, reference_model, streams

Facts = dict[str, Any]
PIPE_EVERY = 8  # mutations, of which one is read as a pipe too


class OneByte(io.RawIOBase):
    """A pipe that gives a byte at a time."""

    def __init__(self, data: bytes):
        self._data = io.BytesIO(data)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        piece = self._data.read(1)
        buffer[: len(piece)] = piece
        return len(piece)


class PicksOnly:
    """Takes the place of the diffusion, which costs 100 times the rest, and notes which layers the product uses."""

    used: tuple[Layer, Any] | None = None

    def __init__(self, denoiser: object, base: torch.Tensor, *_: object):
        self._base = base

    def decode(self, layer: Layer, picks: Any) -> torch.Tensor:
        PicksOnly.used = layer, picks
        return self._base


def product_facts(data: bytes) -> Facts:
    """What the product reads.

    Raises:
        FormatError, ModelError: nothing can be read.
    """
    codec = codec_of(data)
    decoder = codec.decoder(data)
    header, packets = decoder.header, {}
    for item in decoder.reader.packets():
        PicksOnly.used = packets[item.number] = None
        try:
            decoder.latents(item)
        except FormatError as error:
            decoder.damage.append(str(error))
            continue
        packet = item.packet
        quality = header.quality if packet.quality is None else packet.quality
        coded, vectors = sum(gain > -32767 for gain in packet.gains), codec.model.vectors_of(packet.hops)
        channels = streams(codec, packet, coded, vectors, quality)
        layer = None
        if PicksOnly.used:
            fields, picks = PicksOnly.used
            layer = vars(fields) | {"picks": picks.ravel().tolist()}
        packets[item.number] = {
            "hops": packet.hops,
            "quality": quality,
            "gains": packet.gains,
            "classes": [classes.tolist() for classes, _ in channels],
            "indices": [indices.tolist() for _, indices in channels],
            "layer": layer,
            **product_parameters(decoder, item),
        }
    if not decoder.reader.hops:
        raise FormatError("no packets")
    return {
        "hops": decoder.reader.hops,
        "samples": decoder.reader.samples,
        "comments": decoder.reader.comments,
        "packets": packets,
        "damage": bool(decoder.damage),
    }


def product_parameters(decoder: Decoder, item: Item) -> Facts:
    """What the product reads in high band and stereo records of a packet."""
    assert item.packet
    high_band, stereo = decoder.parameters(item)
    units = units_of(item.packet.hops)
    return {
        "high_band": high_band and [track.expand(units).tolist() for track in high_band.tracks],
        "balance": stereo.balance if stereo else 0,
        "stereo": stereo and stereo.track.expand(units).tolist(),
    }


def reference_facts(data: bytes, model: Any) -> Facts:
    """What the reference decoder reads.

    Raises:
        reference.Unreadable: nothing can be read.
    """
    file, packets = reference.read(data, model), {}
    for number, packet in enumerate(file.packets):
        packets[number] = packet and {
            "hops": packet.hops,
            "quality": packet.quality,
            "gains": packet.gains,
            "classes": [channel.classes for channel in packet.channels],
            "indices": [channel.indices for channel in packet.channels],
            "layer": packet.layer and packet.layer._asdict() | {"picks": list(packet.layer.picks)},
            "high_band": None if packet.high_band is None else list(map(expanded, packet.high_band)),
            "balance": packet.balance,
            "stereo": packet.stereo and expanded(packet.stereo),
        }
    return {
        "hops": file.hops,
        "samples": file.samples,
        "comments": file.comments,
        "packets": packets,
        "damage": bool(file.damage),
    }


def read_all(source: bytes | io.BufferedReader) -> list[Any]:
    reader = StreamReader(source)  # type: ignore[arg-type]
    return [list(reader.packets()), reader.hops, reader.samples, reader.comments, reader.damage]


def facts_of(data: bytes) -> tuple[Facts | None, Facts | None]:
    """What the product and the reference decoder read; None where they refuse."""
    try:
        product = product_facts(data)
    except (FormatError, ModelError):
        product = None
    try:
        expected = reference_facts(data, reference_model(model_of(data)))
    except reference.Unreadable:
        expected = None
    return product, expected


def difference(product: Facts | None, expected: Facts | None) -> str | None:
    """What differs, if anything: "accepted", a name of the facts, or "packets: " and a name of a packet's facts."""
    if product is None or expected is None:
        return None if product is expected else "accepted"
    for name in ("hops", "samples", "comments", "damage"):
        if product[name] != expected[name]:
            return name
    for number in sorted({*product["packets"], *expected["packets"]}):
        ours, theirs = product["packets"].get(number), expected["packets"].get(number)
        if (ours is None) != (theirs is None):
            return "packets: missing"
        if ours != theirs:
            return "packets: " + next(name for name in ours if ours[name] != theirs[name])
    return None


def seed_files() -> dict[str, list[bytes]]:
    """Golden files for each model."""
    pools: dict[str, list[bytes]] = {name: [] for name in MODELS}
    for name in (*names("valid"), *names("damaged")):
        if not re.search(r"quality-\d[1-9]", name):  # a few qualities will do
            pools[model_of(read(name))].append(read(name))
    return pools


def fuzz(
    seed: int = 0, mutations: int | None = None, seconds: float = math.inf, keep: Path | None = None
) -> dict[str, Any]:
    """Mutate golden files until a number of mutations or a time is reached.

    Args:
        keep: folder for up to 5 files of each finding.

    Returns:
        counts of mutations, of those that could be read, and of findings by kind.
    """
    pools = seed_files()
    models, weights = list(pools), [len(pool) for pool in pools.values()]
    rng, findings, done, readable = random.Random(seed), Counter[str](), 0, 0
    end = time.monotonic() + seconds
    module = sys.modules[PacketDecoder.__module__]
    with torch.inference_mode(), mock.patch.object(module, "Sampler", PicksOnly):
        while done != mutations and time.monotonic() < end:
            data = mutate(rng, pools[rng.choices(models, weights)[0]])
            try:
                product, expected = facts_of(data)
                readable += expected is not None
                found = difference(product, expected)
                if expected is not None and done % PIPE_EVERY == 0:
                    as_pipe = read_all(io.BufferedReader(OneByte(data), 1))
                    found = found or ("pipe" if as_pipe != read_all(data) else None)
            except Exception as error:  # neither may raise anything else
                found = f"{type(error).__name__}: {error}"
            done += 1
            if found:
                findings[found] += 1
                if keep and findings[found] <= 5:
                    keep.mkdir(parents=True, exist_ok=True)
                    label = re.sub(r"\W+", "-", found[:40])
                    (keep / f"{label}-{zlib.crc32(data):08x}.aldm").write_bytes(data)
    return {"mutations": done, "readable": readable, "findings": dict(findings)}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=60.0, help="stop after this time (default: 60)")
    parser.add_argument("--mutations", type=int, help="stop after this many")
    parser.add_argument("--seed", type=int, default=0, help="of the mutations (default: 0)")
    parser.add_argument("--keep", type=Path, help="folder for up to 5 files of each finding")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    result = fuzz(options.seed, options.mutations, options.seconds, options.keep)
    print(json.dumps(result))
    return 1 if result["findings"] else 0


if __name__ == "__main__":
    sys.exit(main())

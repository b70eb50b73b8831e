"""How the golden files were made. Files that exist are never made again: what they hold is a promise.

Usage: python tests/golden/make.py; it adds what is missing, and its line in expected.json.
"""

import dataclasses
import itertools
import json
import shutil
import struct
import sys
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import soundfile as sf
import torch
from aldm.codec import Codec
from aldm.codec.audioldm2.model import AudioLDM2
from aldm.codec.diffusion.ddcm import DDCM
from aldm.codec.errors import ModelError
from aldm.codec.fit.stages.tables import fit_tables
from aldm.codec.model_folder import TABLES
from aldm.format import FormatError
from aldm.format import container as c
from aldm.format.adaptive import encode_adaptive
from aldm.format.container import Header, Packet, pack_record
from safetensors.numpy import save_file

sys.path.insert(0, str(Path(__file__).parents[1]))
from test_golden import GOLDEN, MODELS, facts
from tiny_audioldm2 import calibrate, save


def sounds() -> dict[str, np.ndarray]:
    return {p.stem: sf.read(p, dtype="float32")[0] for p in (GOLDEN.parent / "data").glob("*.flac")}


def checkpoint(folder: Path) -> None:
    """AudioLDM 2's classes with as few weights as they can have; as published, 4 hops and 16 bands."""
    from diffusers import AudioLDM2UNet2DConditionModel, AutoencoderKL, DDIMScheduler

    torch.manual_seed(0)
    vae = AutoencoderKL(
        in_channels=1,
        out_channels=1,
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(4, 4, 4),
        layers_per_block=1,
        latent_channels=2,
        norm_num_groups=2,
    )
    unet = AudioLDM2UNet2DConditionModel(
        in_channels=2,
        out_channels=2,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=(4, 4),
        layers_per_block=1,
        norm_num_groups=2,
        cross_attention_dim=((None, 4, 8),) * 2,
        attention_head_dim=2,
    )
    scheduler = DDIMScheduler(beta_start=0.0015, beta_end=0.0195, beta_schedule="scaled_linear", clip_sample=False)
    calibrate(vae)
    vae.register_to_config(scaling_factor=6 * vae.config.scaling_factor)  # so that every quality has something to say
    save(folder, dict(vae=vae.half(), unet=unet.half(), scheduler=scheduler))


def fitted(folder: Path) -> None:
    """The same VAE, with tables, and without a denoiser."""
    model = AudioLDM2.from_pretrained(MODELS["audioldm2"])
    vae: Any = model.autoencoder
    shutil.copytree(MODELS["audioldm2"] / "vae", folder / "vae")
    music = torch.from_numpy(sounds()["music"][None, :65280]) / 2
    learned = fit_tables(
        [vae.encode(model.mel(music))[0].numpy()], model.codebook.step_scales, print, classes=2, tables=24
    )
    tables, step_scales = learned.tables, learned.step_scales.astype(np.float16)
    (folder / TABLES).parent.mkdir()
    arrays = dict(bank=tables.bank, choice=tables.choice, transitions=tables.transitions, gains=step_scales)
    save_file(arrays, folder / TABLES)


def valid() -> Iterator[tuple[str, bytes]]:
    """Every quality and every feature."""
    codec = Codec.from_pretrained(MODELS["tiny"])
    short = Codec.from_pretrained(MODELS["tiny"], packet_seconds=0.64)
    sound = sounds()
    speech, music, environment = (sound[name] for name in ("speech", "music", "environment"))
    for quality in range(codec.levels):
        yield f"quality-{quality:02}", codec.encode(music[16000:32000], 16000, quality=quality)
    yield "bitrate", short.encode(speech, 16000, bitrate=1.0)
    stereo = np.stack([speech[:48000], environment[:48000]])
    yield "stereo-44100", short.encode(stereo[:, :44100], 44100, quality=20)
    quiet = np.zeros(48000, np.float32)
    yield "five-channels", short.encode(np.stack([quiet, speech[:48000], speech[:48000], quiet, music[:48000]]), 16000)
    half = np.stack([speech[:48000], np.concatenate([speech[:20480], quiet[:27520]])])
    yield "copy-that-ends", short.encode(half, 16000, quality=12)
    yield "silence", short.encode(np.zeros(30000), 8000)
    yield "one-sample", short.encode(np.array([0.3]), 768000)
    yield "tags", short.encode(speech[:30000], 16000, comments=["TITLE=Ähre, £ 5", "ARTIST=a", "ARTIST=b", "EMPTY="])
    yield "index", short.encode(speech[:60000], 16000, quality=8, index=True, comments=["TITLE=with an index"])
    live = short.stream(16000, bitrate=1.2)
    yield "live-bitrate", live.push(speech[:50000]) + live.flush()
    live = short.stream(44100, 2, quality=16)
    yield "live-quality", live.push(stereo) + live.flush()
    live = short.stream(16000, quality=16)
    yield "live-without-an-end", live.push(speech[:50000])
    yield "both", short.encode(music[:40000], 16000, quality=10, layers="both", ddcm=DDCM(6, 64))
    yield "both-two-atoms", short.encode(stereo, 16000, quality=4, layers="both", ddcm=DDCM(4, 16, block=2, atoms=2))
    yield "ddcm", short.encode(music[:40000], 16000, layers="ddcm", ddcm=DDCM(8, 256))
    ddcm = short.encode(np.stack([speech[:20480], quiet[:20480]]), 16000, layers="ddcm", ddcm=DDCM(2))
    silent = [
        dataclasses.replace(Packet.parse(r.body, Header.parse(ddcm)), gains=(c.GAIN_SILENT,) * 2)
        for r in records(ddcm)
        if r.kind == c.PACKET
    ]
    bodies = [(p.pack(), n) for n, p in enumerate(silent)]
    yield (
        "silent-packets-with-layers-of-another-denoiser",
        ddcm[:24] + b"".join(pack_record(c.PACKET, body, n) + pack_record(c.LAYER, bytes(12), n) for body, n in bodies),
    )
    yield "generated", short.generate(1.5, 7, DDCM(5))
    base = short.encode(speech[:30000], 16000, quality=20)
    yield "unknown-record", base[:24] + pack_record(0x7E, b"from 1.7") + base[24:] + pack_record(0x21, b"")
    newer = dataclasses.replace(Header.parse(base), version=(1, 9))
    yield "minor-version", newer.pack() + base[24:]
    first, rest = records(base)[0], base[24:]
    longer = Packet.parse(first.body, Header.parse(base))
    longer = dataclasses.replace(longer, payload=longer.payload + b"\xff\0behind")
    yield "payload-behind-the-end", base[:24] + pack_record(c.PACKET, longer.pack()) + rest[first.size :]
    yield from full_band(short, speech, environment)
    klt = Codec.from_pretrained("klt", packet_seconds=1.28)
    yield "klt", klt.encode(environment[:40000], 16000, bitrate=1.5, comments=["MODEL=klt"])


def full_band(codec: Codec, speech: np.ndarray, environment: np.ndarray) -> Iterator[tuple[str, bytes]]:
    """Files of version 1.1. The clips have 16 kHz, and are said to have more."""
    room = np.stack([speech[:60000] + 0.3 * environment[:60000], speech[:60000] - 0.3 * environment[1000:61000]])
    yield "high-band", codec.encode(speech[:60000], 48000, quality=16)
    yield "stereo", codec.encode(room, 16000, quality=16)
    yield "high-band-and-stereo", codec.encode(room, 44100, bitrate=1.5, index=True, comments=["TITLE=both"])
    yield "high-band-of-two", codec.encode(room, 32000, quality=16, stereo="discrete")
    yield "stereo-inverted", codec.encode(np.stack([speech[:30000], -0.5 * speech[:30000]]), 44100, quality=16)
    yield "high-band-and-layers", codec.encode(room, 44100, quality=4, layers="both", ddcm=DDCM(4, 16))
    live = codec.stream(48000, 2, bitrate=2.0)
    yield "live-high-band-and-stereo", live.push(room) + live.flush()


def damaged_full_band() -> Iterator[tuple[str, bytes]]:
    """Parametric records that are lost, damaged, or not of their packet."""
    codec = Codec.from_pretrained(MODELS["tiny"], packet_seconds=0.64)
    sound = sounds()
    both = np.stack([sound["speech"][:60000], sound["environment"][:60000]])
    data = codec.encode(both, 44100, quality=10, stereo="parametric")
    head, parts = data[:24], [data[r.offset : r.offset + r.size] for r in records(data)]
    assert "".join(chr(part[0]) for part in parts) == "HSP" * 3
    yield "high-band-flipped-bit", head + b"".join([*parts[:3], parts[3][:9] + b"?" + parts[3][10:], *parts[4:]])
    yield "stereo-flipped-bit", head + b"".join([*parts[:4], parts[4][:9] + b"?" + parts[4][10:], *parts[5:]])
    yield "lost-packet-of-a-high-band", head + b"".join([*parts[:5], *parts[6:]])
    yield "high-bands-swapped", head + b"".join([parts[3], *parts[1:3], parts[0], *parts[4:]])
    lost = pack_record(c.HIGH_BAND, b"\1" + b"\xff" * 40)
    yield "high-band-that-does-not-decode", head + b"".join([*parts[:3], lost, *parts[4:]])
    yield "stereo-too-short", head + b"".join([*parts[:4], pack_record(c.STEREO, b"\1"), *parts[5:]])
    lost = pack_record(c.STEREO, b"\1\x0d" + b"\xff" * 40)  # a balance, and a track that is none
    yield "stereo-that-does-not-decode", head + b"".join([*parts[:4], lost, *parts[5:]])
    single = codec.encode(both[0], 16000, quality=10)
    plain = [single[r.offset : r.offset + r.size] for r in records(single)]
    newer = dataclasses.replace(Header.parse(single), version=c.PARAMETRIC_VERSION)
    yield "stereo-of-one-channel", newer.pack() + parts[1] + b"".join(plain)


def valid_audioldm2() -> Iterator[tuple[str, bytes]]:
    """Adaptive tables at every eighth of an octave, overlap, layers on a UNet, and a folder with tables."""
    short = Codec.from_pretrained(MODELS["audioldm2"], packet_seconds=0.64)
    sound = sounds()
    speech, music = sound["speech"], sound["music"]
    for quality in (0, 9, 14, 18, 22, 27, 36, 45, 47):
        yield f"audioldm2-quality-{quality:02}", short.encode(music[16000:32000], 16000, quality=quality)
    quiet = np.zeros(16000, np.float32)
    several = np.stack([quiet, speech[:16000], speech[:16000], quiet, music[:16000]])
    yield "audioldm2-five-channels", short.encode(several, 44100, quality=12)
    yield "audioldm2-one-sample", short.encode(np.array([0.3]), 768000)
    tags = dict(comments=["TITLE=Ähre"], index=True)
    yield "audioldm2-index", short.encode(speech[:20000], 16000, quality=8, **tags)
    live = short.stream(16000, bitrate=1.5)
    yield "audioldm2-live-bitrate", live.push(speech[:30000]) + live.flush()
    live = short.stream(16000, 2, quality=16)
    yield "audioldm2-live-without-an-end", live.push(np.stack([speech[:30000], music[:30000]]))
    yield "audioldm2-both", short.encode(music[:16000], 16000, quality=10, layers="both", ddcm=DDCM(4, 64))
    two = DDCM(3, 16, block=5, atoms=2)
    yield "audioldm2-both-stereo", short.encode(several[1:5:3], 16000, quality=4, layers="both", ddcm=two)
    yield "audioldm2-ddcm", short.encode(music[:16000], 16000, layers="ddcm", ddcm=DDCM(3, 256, block=2))
    yield "audioldm2-generated", short.generate(0.9, 7, DDCM(3, 16))
    base = Header.parse(short.encode(music[:10240], 16000, quality=20, layers="both", ddcm=DDCM(2, 1)))
    base = dataclasses.replace(base, layers=False)
    wild = np.random.default_rng(0).integers(0, 19, (32, 32))  # 64 hops and as many behind them
    indices = np.random.default_rng(1).integers(-(1 << wild), (1 << wild) + 1)
    packet = Packet(64, (-700,), encode_adaptive([indices], 16, base.quality))
    yield "audioldm2-escapes", base.pack() + pack_record(c.PACKET, packet.pack())
    learned = Codec.from_pretrained(MODELS["audioldm2-fitted"], packet_seconds=0.64)
    for quality in (3, 24, 47):
        yield f"audioldm2-fitted-quality-{quality:02}", learned.encode(music[16000:32000], 16000, quality=quality)
    yield "audioldm2-fitted-five-channels", learned.encode(several, 16000, bitrate=3)


def damaged_audioldm2() -> Iterator[tuple[str, bytes]]:
    codec = Codec.from_pretrained(MODELS["audioldm2"], packet_seconds=0.64)
    speech = sounds()["speech"][:30000]
    base = codec.encode(speech, 16000, quality=14)
    head, (tag, *parts) = base[:24], [base[r.offset : r.offset + r.size] for r in records(base)]
    yield "audioldm2-flipped-bit", head + b"".join([tag, parts[0], parts[1][:20] + b"?" + parts[1][21:], parts[2]])
    yield "audioldm2-lost-packet", head + b"".join([parts[0], parts[2]])
    yield "audioldm2-lost-first", head + b"".join(parts[1:])
    yield "audioldm2-truncated", base[: len(base) - len(parts[-1]) // 2]
    packet = Packet.parse(records(base)[2].body, Header.parse(base))

    def second(header: Header, **fields: Any) -> bytes:
        """The file with another packet in the middle."""
        own = header.quality == c.OWN_QUALITY
        made = [dataclasses.replace(Packet.parse(r.body, Header.parse(base)), quality=14) for r in records(base)[1:]]
        made[1] = dataclasses.replace(made[1], **fields)
        bodies = [(p if own else dataclasses.replace(p, quality=None)).pack() for p in made]
        return header.pack() + b"".join(pack_record(c.PACKET, body, n) for n, body in enumerate(bodies))

    header = Header.parse(base)
    yield "audioldm2-part-of-a-vector", second(dataclasses.replace(header, samples=None), hops=63)
    yield "audioldm2-does-not-decode", second(header, payload=b"\xff" * 12 + packet.payload)
    own = dataclasses.replace(header, quality=c.OWN_QUALITY)
    yield "audioldm2-quality-beyond-the-model", second(own, quality=48)
    both = codec.encode(speech, 16000, quality=10, layers="both", ddcm=DDCM(3, 64))
    head, (tag, *parts) = both[:24], [both[r.offset : r.offset + r.size] for r in records(both)]
    yield "audioldm2-layer-flipped-bit", head + b"".join([*parts[:3], parts[3][:-8] + b"?" + parts[3][-7:], *parts[4:]])
    other = pack_record(c.LAYER, bytes(2) + records(both)[4].body[2:], 1)
    yield "audioldm2-layer-of-another-denoiser", head + b"".join([*parts[:3], other, *parts[4:]])
    shorter = pack_record(c.LAYER, records(both)[4].body[:-1], 1)
    yield "audioldm2-layer-too-short", head + b"".join([*parts[:3], shorter, *parts[4:]])


def records(data: bytes) -> list[Any]:
    return list(c.read_records(data))


def damaged() -> Iterator[tuple[str, bytes]]:
    """What a reader gets something from, and reports."""
    codec = Codec.from_pretrained(MODELS["tiny"], packet_seconds=0.64)
    speech = sounds()["speech"][:60000]
    base = codec.encode(speech, 16000, quality=14)
    head, parts = base[:24], [base[r.offset : r.offset + r.size] for r in records(base)]
    flipped = bytearray(parts[2])
    flipped[9] ^= 16
    yield "flipped-bit", head + b"".join([*parts[:2], bytes(flipped), *parts[3:]])
    yield "lost-packet", head + b"".join([*parts[:2], *parts[3:]])
    yield "repeated-packet", head + b"".join([*parts[:3], parts[2], *parts[3:]])
    yield "swapped-packets", head + b"".join([parts[0], parts[2], parts[1], *parts[3:]])
    yield "lost-first", head + b"".join(parts[1:])
    yield "truncated", base[: len(base) - len(parts[-1]) // 2]
    yield "ends-early", head + b"".join(parts[:3])
    yield "garbage-between", head + parts[0] + b"PDCEI\x89ALD" * 9 + b"".join(parts[1:])
    packets = [Packet.parse(r.body, Header.parse(base)) for r in records(base)]
    short = dataclasses.replace(packets[1], hops=16)
    yield "short-in-the-middle", head + parts[0] + pack_record(c.PACKET, short.pack(), 1) + b"".join(parts[2:])
    long = dataclasses.replace(packets[1], hops=80)
    yield "long-packet", head + parts[0] + pack_record(c.PACKET, long.pack(), 1) + b"".join(parts[2:])
    copies = dataclasses.replace(packets[1], gains=(c.GAIN_COPY,))
    yield "first-channel-copies", head + parts[0] + pack_record(c.PACKET, copies.pack(), 1) + b"".join(parts[2:])
    unknown = dataclasses.replace(Header.parse(base), samples=None).pack()
    yield "end-too-early", unknown + b"".join(parts) + c.pack_end(10000)
    yield "packet-behind-the-end", unknown + b"".join(parts[:2]) + c.pack_end(20000) + b"".join(parts[2:])
    both = codec.encode(speech, 16000, quality=10, layers="both", ddcm=DDCM(6, 64))
    head, parts = both[:24], [both[r.offset : r.offset + r.size] for r in records(both)]
    flipped = bytearray(parts[3])
    flipped[-8] ^= 1
    yield "layer-flipped-bit", head + b"".join([*parts[:3], bytes(flipped), *parts[4:]])
    yield "layer-of-another-packet", head + b"".join([*parts[:3], parts[1], *parts[4:]])
    yield "layer-without-the-flag", dataclasses.replace(Header.parse(both), layers=False).pack() + both[24:]
    other = pack_record(c.LAYER, bytes(2) + records(both)[3].body[2:], 1)
    yield "layer-of-another-denoiser", head + b"".join([*parts[:3], other, *parts[4:]])
    body = records(both)[3].body
    yield (
        "layer-that-does-not-parse-and-a-second",
        head + b"".join([*parts[:3], pack_record(c.LAYER, body[:-1], 1), *parts[3:]]),
    )
    yield "layer-numbered-64-ahead", head + b"".join([*parts[:3], pack_record(c.LAYER, body, 65), *parts[4:]])
    yield "garbage-before-a-second-layer", head + b"".join([*parts[:4], b"garbage", parts[3]])
    flagless = dataclasses.replace(Header.parse(both), layers=False).pack()
    yield "damaged-layer-without-the-flag", flagless + b"".join([*parts[:3:2], bytes(flipped)])
    head, parts = unknown, [base[r.offset : r.offset + r.size] for r in records(base)]
    end = c.pack_end(20000)
    first = pack_record(c.PACKET, b"\0" + records(base)[0].body[1:])  # of no duration
    yield "end-before-the-first-whole-packet", head + first + end + b"".join(parts[1:])
    behind = pack_record(c.PACKET, records(base)[4].body, 67)
    yield "numbers-go-on-behind-the-end", head + b"".join([*parts[:2], c.pack_end(30000), parts[3], behind])
    last = pack_record(c.PACKET, dataclasses.replace(packets[1], hops=48).pack(), 1)
    yield "short-packet-and-packets-behind-the-end", head + b"".join([parts[0], last, c.pack_end(17000), *parts[2:]])
    yield "record-longer-than-the-file", base[:24] + b"P\xff\xff\x7f" + base[24:]
    indexed = codec.encode(speech, 16000, quality=14, index=True)
    yield "index-flipped-bit", indexed[:-6] + bytes([indexed[-6] ^ 4]) + indexed[-5:]


def invalid() -> Iterator[tuple[str, bytes]]:
    """What is refused, each with its error."""
    codec = Codec.from_pretrained(MODELS["tiny"])
    base = codec.encode(sounds()["speech"][:16000], 16000, quality=10)
    header, rest = Header.parse(base), base[24:]

    def raw(offset: int, value: bytes) -> bytes:
        fields = base[:offset] + value + base[offset + len(value) : 22]
        return fields + struct.pack("<H", c.binascii.crc_hqx(fields, 0xFFFF)) + rest

    yield "empty", b""
    yield "text", b"not an .aldm file at all, but long enough to be one"
    yield "wav", b"RIFF\x24\0\0\0WAVEfmt \x10\0\0\0"
    yield "signature-with-lf", b"\x89ALD\n" + base[5:]
    yield "header-truncated", base[:23]
    yield "header-alone", base[:24]
    yield "header-flipped-bit", base[:9] + bytes([base[9] ^ 1]) + base[10:]
    yield "version-0", raw(4, b"\x01")
    yield "version-2", raw(4, b"\x20")
    yield "no-channels", raw(5, b"\0")
    yield "quality-beyond-the-model", raw(6, bytes([codec.levels]))
    yield "no-base-without-the-flag", raw(6, b"\xff")
    yield "unknown-flag", raw(7, b"\x02")
    yield "no-rate", raw(8, b"\0\0\0")
    yield "rate-too-high", raw(8, (768_001).to_bytes(3, "little"))
    yield "no-hops", raw(11, b"\0\0")
    yield "too-many-hops", raw(11, (1025).to_bytes(2, "little"))
    yield "hops-not-of-the-model", raw(11, (1000).to_bytes(2, "little"))
    yield "no-samples", raw(13, bytes(5))
    yield "another-model", dataclasses.replace(header, model=b"none").pack() + rest
    yield "only-damage", base[:24] + bytes([*rest[:6], rest[6] ^ 1, *rest[7:]])
    yield "only-comments", base[:24] + pack_record(c.COMMENT, b"A=b")
    yield "endless-number", base[:24] + b"P\xff\xff\xff\xff" + bytes(40)


def invalid_audioldm2() -> Iterator[tuple[str, bytes]]:
    codec = Codec.from_pretrained(MODELS["audioldm2"])
    base = codec.encode(sounds()["speech"][:8000], 16000, quality=10)
    header, rest = Header.parse(base), base[24:]
    for name, changed in (
        ("quality-beyond-the-model", {"quality": 48}),
        ("hops-not-of-the-model", {"packet_hops": 1022}),
        ("another-model", {"model": header.model[::-1]}),
    ):
        yield f"audioldm2-{name}", dataclasses.replace(header, **changed).pack() + rest
    yield "audioldm2-only-damage", base[:24] + rest[:-5] + b"?" + rest[-4:]


def main() -> None:
    path = GOLDEN / "expected.json"
    expected = json.loads(path.read_text()) if path.exists() else {}
    for name, make in (("audioldm2", checkpoint), ("audioldm2-fitted", fitted)):
        if not MODELS[name].exists():
            make(MODELS[name])
    groups = {
        "valid": (valid, valid_audioldm2),
        "damaged": (damaged, damaged_full_band, damaged_audioldm2),
        "invalid": (invalid, invalid_audioldm2),
    }
    for group, makers in groups.items():
        for name, data in itertools.chain.from_iterable(make() for make in makers):
            file = GOLDEN / group / f"{name}.aldm"
            if not file.exists():
                file.write_bytes(data)
                try:
                    found = facts(data)
                except (FormatError, ModelError) as error:
                    found = {"error": type(error).__name__}
                expected[f"{group}/{name}"] = {"sha256": sha256(data).hexdigest(), **found}
    path.write_text(json.dumps(expected, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()

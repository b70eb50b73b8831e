"""What a user of the codec relies on, on real clips."""

import io
import time
from typing import Any

import numpy as np
import pytest
import soundfile as sf
import soxr
import torch
from aldm.codec import Codec
from aldm.codec.encoding.rate_control import OperatingPoint, RateController
from aldm.codec.errors import AudioError
from aldm.codec.model_folder import embedded_models
from aldm.format import DamageError, Header, Packet, Record
from aldm.format import container as c
from conftest import DATA, DOMAINS, clip
from distances import frame_errors
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st


def level(reference: np.ndarray, decoded: np.ndarray) -> float:
    """How much louder the decoded sound is above 60 Hz, dB."""
    a, b = (np.abs(np.fft.rfft(x))[60 * len(x) // 16000 :] for x in (reference, decoded))
    return float(10 * np.log10(np.sum(b**2) / np.sum(a**2)))


def test_rumble_does_not_decide_the_level(codec: Codec) -> None:
    """What is below hearing, and outweighs all else, leaves the rest at its level."""
    speech = clip("speech")[:64000]
    hertz = np.fft.rfftfreq(len(speech), 1 / 16000)
    noise = np.random.default_rng(0).standard_normal(len(hertz)) * (hertz > 2) * (hertz < 15)
    rumble = np.fft.irfft(noise, len(speech)).astype(np.float32)
    rumble *= 2 * np.sqrt(np.mean(speech**2) / np.mean(rumble**2))
    decoded = codec.decode(codec.encode(speech + rumble, 16000, bitrate=3))[0]
    assert abs(level(speech, decoded)) < 1


def records(data: bytes) -> list[Record]:
    return [r for r in c.read_records(data) if isinstance(r, Record)]


@pytest.mark.slow
@pytest.mark.parametrize("model", sorted(embedded_models()))
@pytest.mark.parametrize("name", DOMAINS)
def test_real_audio_comes_back(model: str, name: str) -> None:
    wave = clip(name)
    codec = Codec.from_pretrained(model)
    errors = []
    for quality in (16, 24, 32):
        decoded = codec.decode(codec.encode(wave, 16000, quality=quality))
        assert decoded.shape == (1, len(wave))
        assert abs(level(wave, decoded[0])) < 0.5
        errors.append(frame_errors(wave, decoded[0]).mean())
    assert errors[0] > errors[1] > errors[2]
    other = clip(DOMAINS[DOMAINS.index(name) - 1])[: len(wave)]
    other = np.pad(other, (0, len(wave) - len(other))) * np.sqrt(np.mean(wave**2) / np.mean(other**2))
    assert errors[0] < 0.5 * frame_errors(wave, other).mean()  # far nearer to the clip than another sound is


@pytest.mark.parametrize("name", DOMAINS)
@pytest.mark.parametrize("bitrate", [0.75, 1.5, 3.0, 6.0])
def test_bitrate_is_met_and_nearly_used(codec: Codec, name: str, bitrate: float) -> None:
    wave = clip(name)
    kbps = len(codec.encode(wave, 16000, bitrate=bitrate)) * 8 / (len(wave) / 16000) / 1000
    assert kbps <= bitrate
    assert kbps > 0.985 * bitrate


@pytest.mark.parametrize("bitrate", [0.02, 0.3, 1.5, 6.0, 50.0])
def test_a_bitrate_is_found_in_few_tries(codec: Codec, bitrate: float) -> None:
    music, tries = clip("music"), 0
    packets = list(codec.analyze(music, 16000))
    budget = bitrate * 125 * len(music) / 16000

    class Counting(RateController):
        def size(self, *arguments: Any) -> float:
            nonlocal tries
            tries += 1
            return super().size(*arguments)

    controller = Counting(codec.model.codebook.encoder(), codec.levels)
    found = controller.search(budget, packets)
    assert tries <= 10
    assert 0 <= found.rate <= codec.levels - 1
    if 0 < found.rate < codec.levels - 1:
        assert found.bits_ratio * controller.size(packets, found) == pytest.approx(budget)
    assert 0.95 < found.bits_ratio < 1.05
    if found.rate < codec.levels - 1:  # a little finer is too much
        assert controller.size(packets, OperatingPoint.at(min(found.rate + 0.3, codec.levels - 1))) > budget


def test_framing_is_cheap(codec: Codec, mixture: np.ndarray) -> None:
    wave = np.tile(mixture, 3)[: 30 * 16000]
    data = codec.encode(wave, 16000, bitrate=1.5)
    payload = sum(len(Packet.parse(r.body, Header.parse(data)).payload) for r in records(data))
    assert len(data) - payload < 0.02 * len(data)


@pytest.mark.slow
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    samples=st.integers(1, 120000),
    rate=st.sampled_from([8000, 11025, 16000, 22050, 44100, 48000]),
    channels=st.integers(1, 3),
)
def test_lengths_are_exact(codec: Codec, samples: int, rate: int, channels: int) -> None:
    speech = soxr.resample(clip("speech"), 16000, rate)
    wave = np.stack([np.resize(np.roll(speech, 100 * k), samples) for k in range(channels)])
    data = codec.encode(wave, rate, quality=4)
    assert codec.decode(data, original_rate=True).shape == (channels, samples)
    assert codec.decode(data, rate=16000).shape == (channels, -(-samples * 16000 // rate))


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3", "aiff", "caf"])
def test_input_formats(codec: Codec, suffix: str) -> None:
    stereo = np.stack([clip("speech")[:40000], clip("environment")[:40000]], 1)
    file = io.BytesIO()
    sf.write(file, soxr.resample(stereo, 16000, 44100), 44100, format=suffix.upper())
    file.seek(0)
    decoded = codec.decode(codec.encode(file, quality=20, stereo="discrete"), rate=16000)
    assert decoded.shape[0] == 2
    for ours, reference in zip(decoded, stereo.T, strict=True):
        assert frame_errors(reference, ours[: len(reference)]).mean() < 0.6


@pytest.mark.parametrize("offset", [0.01, 0.4])
def test_a_constant_offset_makes_no_click(codec: Codec, offset: float) -> None:
    wave = clip("music")[:47000]  # not a whole number of latent vectors
    reference = codec.decode(codec.encode(wave, 16000, quality=24))[0]
    decoded = codec.decode(codec.encode(wave + offset, 16000, quality=24))[0]
    assert abs(level(reference, decoded)) < 0.3
    assert np.abs(decoded[-1600:]).max() < 2 * np.abs(reference[-1600:]).max()


def test_stereo_stays_stereo(codec: Codec) -> None:
    wave = clip("speech")
    hard_left = np.stack([wave, np.zeros_like(wave)])
    left, right = codec.decode(codec.encode(hard_left, 16000))
    assert np.abs(right).max() < 1e-4
    assert abs(level(wave, left)) < 0.5
    mono = codec.encode(wave, 16000)
    dual = codec.encode(np.stack([wave, wave]), 16000)
    assert len(dual) == len(mono) + 2 * len(records(mono))  # a gain that says "copy" in each packet
    left, right = codec.decode(dual)
    np.testing.assert_array_equal(left, right)
    louder = codec.decode(codec.encode(np.stack([wave, 0.25 * wave]), 16000))
    assert level(louder[1], louder[0]) == pytest.approx(12.04, abs=0.5)


def test_bit_exact_silence_costs_nothing(codec: Codec) -> None:
    data = codec.encode(np.zeros(16000 * 12), 16000)
    assert len(data) < 50
    assert np.abs(codec.decode(data)).max() < 1e-6


@pytest.mark.parametrize("gain", [1e-3, 0.03, 1.0, 8.0])
def test_level_does_not_matter(codec: Codec, gain: float) -> None:
    wave = clip("speech")
    decoded = codec.decode(codec.encode(gain * wave, 16000, quality=20))[0]
    assert abs(level(gain * wave, decoded)) < 0.5
    reference = codec.decode(codec.encode(wave, 16000, quality=20))[0]
    assert frame_errors(wave, decoded / gain).mean() < 1.05 * frame_errors(wave, reference).mean()


@pytest.mark.slow
def test_packets_join_without_a_seam(short_packets: Codec, mixture: np.ndarray) -> None:
    errors, seams = [], []
    for name in DOMAINS:
        wave = np.tile(clip(name), 3)[: 12 * 16000]
        decoded = short_packets.decode(short_packets.encode(wave, 16000, quality=20))[0]
        error = frame_errors(wave, decoded)
        errors.append(error / error.mean())
        near = np.zeros(len(error), bool)
        for end in range(208, len(error), 208):
            near[end - 5 : end + 5] = True
        seams.append(near)
        jumps = np.abs(np.diff(decoded))
        at = np.arange(208 * 160, len(wave), 208 * 160) - 1
        assert jumps[at].mean() < 3 * jumps.mean()
    error, near = np.concatenate(errors), np.concatenate(seams)
    assert error[near].mean() < 1.1 * error[~near].mean()


def test_part_of_a_file(short_packets: Codec, stream: bytes, mixture: np.ndarray) -> None:
    whole = short_packets.decode(stream)[0]
    part = short_packets.decode(stream, start=5.0, duration=3.5)[0]
    assert len(part) == 56000
    # phases are found anew, so the sound is compared, not the samples
    assert frame_errors(whole[80000:136000], part).mean() < 0.5 * frame_errors(mixture[80000:136000], part).mean()
    assert short_packets.decode(stream, start=13.5).shape[1] == len(mixture) - 13.5 * 16000
    assert short_packets.decode(stream, start=13.5, duration=99).shape[1] == len(mixture) - 13.5 * 16000
    for start in (99, float("inf"), float("nan")):
        with pytest.raises(ValueError, match="nothing to decode"):
            short_packets.decode(stream, start=start)


def test_tokens_are_what_the_file_holds(short_packets: Codec, stream: bytes, mixture: np.ndarray) -> None:
    tokens = short_packets.tokens(mixture, 16000, quality=15)
    assert tokens.dtype == torch.int32
    assert tokens.shape == (1, -(-len(mixture) // 2560), short_packets.model.autoencoder.latent_channels)
    from aldm.format.entropy import decode_indices

    at = 0
    for record in records(stream):
        packet = Packet.parse(record.body, Header.parse(stream))
        tables = short_packets.model.codebook.tables
        ((_, indices),) = decode_indices(packet.payload, 1, packet.hops // 16, tables, 15)
        np.testing.assert_array_equal(indices, tokens[0, at : at + packet.hops // 16])
        at += packet.hops // 16
    assert at == tokens.shape[1]


def test_encoding_is_repeatable_and_takes_any_source(codec: Codec) -> None:
    wave = clip("speech")
    data = codec.encode(wave, 16000)
    assert codec.encode(torch.from_numpy(wave), 16000) == data
    assert codec.encode(DATA / "speech.flac") == data
    assert codec.encode(io.BytesIO((DATA / "speech.flac").read_bytes())) == data
    np.testing.assert_array_equal(codec.decode(data), codec.decode(io.BytesIO(data)))


def test_comments_and_unknown_records_are_passed_over(codec: Codec) -> None:
    wave = clip("speech")[:32000]
    data = codec.encode(wave, 16000, comments=["TITLE=tëst"])
    assert records(data)[0].body.decode() == "TITLE=tëst"
    strange = data[:24] + c.pack_record(0x99, b"\1\2\3") + data[24:]
    np.testing.assert_array_equal(codec.decode(strange, strict=True), codec.decode(data, strict=True))


def test_unknown_length(short_packets: Codec, stream: bytes, mixture: np.ndarray) -> None:
    header = Header.parse(stream)
    unknown = Header(**{**vars(header), "samples": None}).pack() + stream[24:]
    ended = unknown + c.pack_end(len(mixture))
    np.testing.assert_array_equal(short_packets.decode(ended, strict=True), short_packets.decode(stream))
    open_end = short_packets.decode(unknown)
    assert open_end.shape[1] == -(-len(mixture) // 2560) * 2560


def test_a_damaged_packet_costs_that_packet(short_packets: Codec, stream: bytes, mixture: np.ndarray) -> None:
    whole = short_packets.decode(stream)[0]
    third = records(stream)[2]
    damaged = bytearray(stream)
    damaged[third.offset + third.size // 2] ^= 8
    decoder = short_packets.decoder(bytes(damaged))
    decoded = np.concatenate(list(decoder.blocks(False, 0, None)), 1)[0]
    assert len(decoded) == len(mixture)
    assert decoder.decoded_packets == len(records(stream)) - 1
    assert len(decoder.damage) == 2  # the bytes, and the packet that is missing for it
    size = decoder.header.packet_hops * 160
    assert frame_errors(whole[: 2 * size], decoded[: 2 * size]).mean() < 0.1
    errors = frame_errors(mixture, decoded)
    assert errors[3 * 208 + 10 :].mean() < 1.1 * frame_errors(mixture, whole)[3 * 208 + 10 :].mean()
    with pytest.raises(DamageError, match="damaged"):
        short_packets.decode(bytes(damaged), strict=True)


def test_a_damaged_last_packet_keeps_the_length(short_packets: Codec, stream: bytes, mixture: np.ndarray) -> None:
    damaged = bytearray(stream)
    damaged[-1] ^= 1
    assert short_packets.decode(bytes(damaged)).shape[1] == len(mixture)


def test_a_payload_that_lies(codec: Codec) -> None:
    wave = clip("speech")[:32000]
    data = codec.encode(wave, 16000, quality=20)
    packet = Packet.parse(records(data)[0].body, Header.parse(data))
    for payload in (b"", b"\xff" * 3000, packet.payload[:40]):
        lie = data[:24] + c.pack_record(c.PACKET, Packet(packet.hops, packet.gains, payload).pack())
        assert codec.decode(lie).shape == (1, len(wave))  # noise or silence, of the right length
    long = data[:24] + c.pack_record(c.PACKET, Packet(1040, packet.gains, packet.payload).pack())
    with pytest.raises(DamageError, match="out of range"):
        codec.decode(long)


def test_absurd_indices_stay_in_their_packet(short_packets: Codec, stream: bytes, mixture: np.ndarray) -> None:
    from aldm.format.entropy import encode_indices

    header = Header.parse(stream)
    second = records(stream)[1]
    packet = Packet.parse(second.body, header)
    loud = [(np.zeros(13, int), np.full((13, short_packets.model.autoencoder.latent_channels), 100_000))]
    payload = encode_indices(loud, short_packets.model.codebook.tables, header.quality)
    crafted = c.pack_record(c.PACKET, Packet(packet.hops, packet.gains, payload).pack(), 1)
    data = bytearray(stream)
    data[second.offset : second.offset + second.size] = crafted
    decoded = short_packets.decode(bytes(data))[0]
    assert np.isfinite(decoded).all()
    assert len(decoded) == len(mixture)
    assert (
        frame_errors(mixture, decoded)[-200:].mean()
        < 2 * frame_errors(mixture, short_packets.decode(stream)[0])[-200:].mean()
    )


def test_many_silent_channels_cost_no_vocoder(codec: Codec) -> None:
    started = time.process_time()
    header = Header(16000, 255, 163840, 5, 1024, codec.model.fingerprint[:4])
    body = Packet(1024, (c.GAIN_SILENT,) * 255, b"").pack()
    decoded = codec.decode(header.pack() + c.pack_record(c.PACKET, body))
    assert decoded.shape == (255, 163840)
    assert not decoded.any()
    assert time.process_time() - started < 20  # a vocoder for each would take minutes


def test_sizes_that_lie_do_not_cost_memory(codec: Codec) -> None:
    data = codec.encode(clip("speech")[:32000], 16000)
    header = Header.parse(data)
    hours = Header(**{**vars(header), "samples": 1 << 39}).pack() + data[24:]
    decoder = codec.decoder(hours)
    assert sum(b.shape[1] for b in decoder.blocks(False, 0, None)) <= 32000 + 2560
    assert decoder.damage


@pytest.mark.parametrize(
    ("wave", "message"),
    [
        (np.zeros(0), "empty"),
        (np.array([0.0, np.nan, 0.0]), "NaN"),
        (np.array([0.0, np.inf, 0.0]), "NaN"),
        (np.array([0.0, 1e30]), "beyond"),
        (np.zeros((2, 3, 4)), r"\[C, N\]"),
        (np.zeros(100, np.int64), "floating point"),
    ],
)
def test_unusable_samples(codec: Codec, wave: np.ndarray, message: str) -> None:
    with pytest.raises(AudioError, match=message):
        codec.encode(wave, 16000)


@pytest.mark.parametrize("wave", [[0.5], [0.0], [1e-30, -1e-30], [1e4, -1e4], [0.5] * 3000])
def test_strange_but_valid_samples(codec: Codec, wave: list[float]) -> None:
    decoded = codec.decode(codec.encode(np.array(wave), 16000))
    assert decoded.shape == (1, len(wave))
    assert np.isfinite(decoded).all()


@pytest.mark.parametrize("options", [dict(quality=-1), dict(quality=99), dict(bitrate=0), dict(bitrate=1, quality=1)])
def test_options_out_of_range(codec: Codec, options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"quality|bitrate"):
        codec.encode(clip("speech"), 16000, **options)  # type: ignore[arg-type]

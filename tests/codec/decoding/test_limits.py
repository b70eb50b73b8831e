"""What a small file can make a decoder do is bounded."""

import io

import numpy as np
import pytest
from aldm.codec import Codec
from aldm.format import container
from aldm.format.container import GAIN_SILENT, Header, Packet


def silence(codec: Codec, channels: int, rate: int, packets: int = 1, hops: int = 1024) -> bytes:
    """A file of some hundred bytes that claims long silence in many channels."""
    seconds = packets * hops / 100
    header = Header(rate, channels, round(seconds * rate), 20, hops, codec.model.fingerprint[:4])
    body = Packet(hops, (GAIN_SILENT,) * channels, b"").pack()
    return header.pack() + b"".join(container.pack_record(container.PACKET, body, n) for n in range(packets))


@pytest.mark.parametrize(("channels", "rate"), [(255, 16000), (255, 768000), (1, 768000), (16, 96000)])
def test_blocks_stay_small(codec: Codec, channels: int, rate: int) -> None:
    samples, largest = 0, 0
    data = silence(codec, channels, rate, hops=32)
    for block in codec.decoder(data).blocks(original_rate=True):
        assert not block.any()
        samples, largest = samples + block.shape[1], max(largest, block.nbytes)
    assert samples == round(0.32 * rate)
    assert largest <= (9e6 if rate == 16000 else 5e7)  # the resampler holds some back, for each channel


def test_duration_is_limited(codec: Codec) -> None:
    data = silence(codec, 1, 16000, packets=3)
    with pytest.raises(ValueError, match="more than the limit"):
        codec.decode(data, max_duration=30)
    assert codec.decode(data, max_duration=31).shape == (1, 491520)
    assert codec.decode(data, max_duration=2, start=20, duration=2).shape == (1, 32000)  # only what is decoded counts


def test_duration_of_a_stream_is_limited(codec: Codec) -> None:
    """It does not say how long it will be."""
    stream = codec.stream(16000, quality=5)
    data = stream.push(np.random.default_rng(0).normal(0, 0.1, 25 * 16000).astype(np.float32))
    with pytest.raises(ValueError, match="more than the limit"):
        list(codec.decoder(io.BytesIO(data), max_duration=12).blocks())

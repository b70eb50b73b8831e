"""The codec inside other programs: it computes alike in whatever state they have torch, and can be handed around."""

import copy
import multiprocessing
import pickle
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from aldm.codec import Codec
from conftest import clip

import aldm

SPEECH = clip("speech")[:48000]


@pytest.fixture(scope="module")
def codec() -> Codec:
    return Codec.from_pretrained()


@pytest.fixture(scope="module")
def known(codec: Codec) -> tuple[bytes, np.ndarray, torch.Tensor]:
    """A file, its sound, and tokens, in a plain state of torch."""
    data = codec.encode(SPEECH, 16000, bitrate=1.5)
    return data, codec.decode(data), codec.tokens(SPEECH, 16000, codebook="vq")


@pytest.fixture
def plain() -> Iterator[None]:
    yield
    torch.set_default_dtype(torch.float32)
    torch.set_default_device(None)


@pytest.mark.usefixtures("plain")
@pytest.mark.parametrize("state", ["autocast", "float64", "float16", "meta device", "inference mode"])
def test_state_of_torch_does_not_matter(codec: Codec, known: Any, state: str) -> None:
    data, sound, tokens = known
    autocast = torch.autocast("cpu", dtype=torch.bfloat16, enabled=state == "autocast")
    if state in ("float64", "float16"):
        torch.set_default_dtype(getattr(torch, state))
    if state == "meta device":
        torch.set_default_device("meta")
    with autocast, torch.inference_mode(state == "inference mode"):
        assert codec.encode(SPEECH, 16000, bitrate=1.5) == data
        assert torch.equal(codec.tokens(SPEECH, 16000, codebook="vq"), tokens)
        blocks = list(codec.decoder(data).blocks())
        stream = codec.stream(16000, quality=20)
        live = stream.push(SPEECH) + stream.flush()
        assert torch.is_autocast_enabled("cpu") == (state == "autocast")  # the caller's state is as it was
        loaded = Codec.from_pretrained()
    np.testing.assert_allclose(np.concatenate(blocks, 1), sound, atol=2e-3)
    assert loaded.encode(SPEECH, 16000, bitrate=1.5) == data
    again = codec.stream(16000, quality=20)
    assert again.push(SPEECH) + again.flush() == live


def test_copies(codec: Codec, known: Any) -> None:
    for other in (pickle.loads(pickle.dumps(codec)), copy.deepcopy(codec)):
        assert other.encode(SPEECH, 16000, bitrate=1.5) == known[0]
        assert np.array_equal(other.decode(known[0]), known[1])


def test_threads_that_load_and_encode_at_once(known: Any) -> None:
    reset = torch.nn.Linear.reset_parameters
    found: list[bytes] = []

    def work() -> None:
        found.append(Codec.from_pretrained().encode(SPEECH, 16000, bitrate=1.5))
        assert torch.nn.Linear(3, 3).weight.abs().sum() > 0

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [known[0]] * 4
    assert torch.nn.Linear.reset_parameters is reset


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_processes(codec: Codec, known: Any, method: str) -> None:
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"no {method} here")
    threads = torch.get_num_threads()
    torch.set_num_threads(2)  # OpenMP has threads, which a forked child has not
    codec.encode(SPEECH, 16000, bitrate=1.5)
    try:
        with ProcessPoolExecutor(1, multiprocessing.get_context(method)) as pool:
            assert pool.submit(codec.encode, SPEECH, 16000, bitrate=1.5).result(300) == known[0]
    finally:
        torch.set_num_threads(threads)


def test_batches(codec: Codec, known: Any) -> None:
    clips = [SPEECH, clip("music")[:30000], clip("environment")[:20001]]
    files = codec.encode_batch(clips, 16000, bitrate=1.5)
    assert files[0] == known[0]
    assert [sound.shape for sound in codec.decode_batch(files)] == [(1, len(c)) for c in clips]
    most = max(map(len, clips))
    padded = np.stack([np.pad(c, (0, most - len(c)))[None] for c in clips])
    tokens, counts = codec.tokens_batch(padded, 16000, map(len, clips), codebook="vq")
    assert tokens.shape == (3, 1, int(counts.max()), 16)
    for mine, count, c in zip(tokens, counts, clips, strict=True):
        assert torch.equal(mine[:, :count], codec.tokens(c, 16000, codebook="vq"))
        assert not mine[:, count:].any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bitrate": 1500}, "did you mean 1.5"),
        ({"bitrate": "1.5"}, "a number of kbit/s"),
        ({"bitrate": True}, "a number of kbit/s"),
        ({"quality": 24.0}, "an integer"),
        ({"quality": 99}, "0 to 47"),
        ({"quality": 3, "bitrate": 2.0}, "not both"),
    ],
)
def test_wrong_rates(codec: Codec, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        codec.encode(SPEECH, 16000, **options)


def test_the_package_itself(codec: Codec) -> None:
    assert aldm.Codec is Codec
    assert aldm.__version__.count(".") == 2
    assert repr(codec) == "Codec('base', sample_rate=16000, device='cpu')"
    with pytest.raises(AttributeError):
        aldm.nothing  # noqa: B018

"""The vector codebook: tokens for language models."""

import numpy as np
import pytest
import torch
from aldm.codec import Codec
from aldm.codec.errors import ModelError
from aldm.codec.fit.stages.tokens import fit_codes
from aldm.codec.quantization.vector import CODES, SIZE, VectorCodebook, channel_groups
from conftest import DOMAINS, clip
from hypothesis import given
from hypothesis import strategies as st


def distance(codec: Codec, first: np.ndarray, second: np.ndarray) -> float:
    """Of log-mels of samples [N], whatever their level."""
    whole = [wave[: len(wave) // 160 * 160] / np.sqrt((wave**2).mean()) for wave in (first, second)]
    mels = codec.model.mel(torch.from_numpy(np.stack(whole).astype(np.float32))).clamp(min=-6)
    return (mels[0] - mels[1]).abs().mean().item()


def test_groups_cover_the_leading_channels_once() -> None:
    for groups in (1, 4, 16):
        assert sorted(channel_groups(groups).ravel().tolist()) == list(range(groups * SIZE))


@given(st.integers(0, 2**32 - 1))
def test_the_nearest_code_is_chosen(seed: int) -> None:
    rng = np.random.default_rng(seed)
    codebook = VectorCodebook(rng.standard_normal((2, CODES, SIZE)).astype(np.float32), 0)
    latents = rng.standard_normal((20, 3)).astype(np.float32)
    tokens = codebook.quantize(latents)
    for group, channels in enumerate(channel_groups(2)):
        distances = np.square(latents[channels].T[:, None] - codebook.codes[group]).sum(2)
        assert np.array_equal(tokens[:, group], distances.argmin(1))
    assert np.array_equal(codebook.quantize(codebook.dequantize(tokens, 20)), tokens)


@pytest.mark.slow
def test_learned_codes_are_better_than_samples() -> None:
    generator = torch.Generator().manual_seed(1)
    samples = torch.randn(16 * CODES, SIZE, generator=generator) * torch.linspace(4, 0.5, SIZE)
    fresh = torch.randn(4 * CODES, SIZE, generator=generator) * torch.linspace(4, 0.5, SIZE)

    def error(codes: torch.Tensor) -> float:
        return torch.cdist(fresh, codes).min(1).values.square().mean().item()

    assert error(fit_codes(samples, 0)) < 0.9 * error(samples[:CODES])


@pytest.mark.parametrize("domain", DOMAINS)
def test_tokens_sound_like_the_clip(codec: Codec, domain: str) -> None:
    wave = clip(domain)
    tokens = codec.tokens(wave, 16000, codebook="vq")
    assert tokens.dtype == torch.int32
    assert tokens.shape == (1, -(-len(wave) // 2560), 16)
    assert tokens.min() >= 0
    assert tokens.max() < CODES
    decoded = codec.detokenize(tokens, codebook="vq")[0, : len(wave)]
    shuffled = codec.detokenize(tokens[:, torch.randperm(tokens.shape[1])], codebook="vq")[0, : len(wave)]
    assert distance(codec, decoded, wave) < 0.5
    assert distance(codec, decoded, wave) < 0.6 * distance(codec, shuffled, wave)


def test_scalar_tokens_decode_as_their_file_does(codec: Codec) -> None:
    wave = clip("music")
    tokens = codec.tokens(wave, 16000, quality=20)
    decoded = codec.detokenize(tokens, quality=20)[0, : len(wave)]
    file = codec.decode(codec.encode(wave, 16000, quality=20))[0]
    assert distance(codec, decoded, file) < 0.2


def test_refusals(codec: Codec) -> None:
    wave = clip("speech")[:8000]
    with pytest.raises(ValueError, match="no codebook rvq"):
        codec.tokens(wave, 16000, codebook="rvq")
    with pytest.raises(ModelError, match="no vector codebook"):
        Codec.from_pretrained("klt").tokens(wave, 16000, codebook="vq")
    for tokens in ([[[0] * 15]], [[[CODES] * 16]], [[[-1] * 16]]):
        with pytest.raises(ValueError, match="tokens are"):
            codec.detokenize(np.array(tokens), codebook="vq")
    with pytest.raises(ValueError, match="tokens are"):
        codec.detokenize(np.zeros((1, 4, 16), int))
    with pytest.raises(ValueError, match="no tokens"):
        codec.detokenize(np.zeros((1, 0, codec.model.autoencoder.latent_channels), int))


def test_silence_has_tokens(codec: Codec) -> None:
    wave = np.stack([np.zeros(32000, np.float32), clip("speech")[:32000]])
    tokens = codec.tokens(wave, 16000, codebook="vq")
    assert np.abs(codec.detokenize(tokens[:1], codebook="vq")).max() < 1e-2

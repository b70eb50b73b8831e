"""A checkpoint of AudioLDM 2's classes and shapes, but with a few small channels and random weights."""

from pathlib import Path
from typing import Any

import soundfile as sf
import torch
from aldm.codec.dsp.mel import LogMel

DATA = Path(__file__).parent / "data"


def networks(seed: int = 0) -> dict[str, Any]:
    """Components of the pipeline; sizes are published ones where the codec sees them, else diffusers' dummy sizes.

    Args:
        seed: of the VAE's weights.
    """
    from diffusers import AudioLDM2UNet2DConditionModel, AutoencoderKL, DDIMScheduler
    from transformers import SpeechT5HifiGan, SpeechT5HifiGanConfig

    torch.manual_seed(0)
    unet = AudioLDM2UNet2DConditionModel(
        block_out_channels=(8, 16),
        layers_per_block=1,
        norm_num_groups=8,
        sample_size=256,
        in_channels=8,
        out_channels=8,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=((None, 16, 32),) * 2,
        attention_head_dim=2,
    )
    torch.manual_seed(seed)
    vae = AutoencoderKL(
        block_out_channels=(8, 8, 16),
        in_channels=1,
        out_channels=1,
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        latent_channels=8,
        layers_per_block=1,
        norm_num_groups=4,
        sample_size=1024,
        scaling_factor=0.4110932946205139,
    )
    torch.manual_seed(0)
    vocoder = SpeechT5HifiGan(
        SpeechT5HifiGanConfig(
            model_in_dim=64,
            sampling_rate=16000,
            upsample_initial_channel=32,
            upsample_rates=[5, 4, 2, 2, 2],
            upsample_kernel_sizes=[16, 16, 8, 4, 4],
            resblock_kernel_sizes=[3, 7, 11],
            resblock_dilation_sizes=[[1, 3, 5]] * 3,
            normalize_before=False,
        )
    )
    scheduler = DDIMScheduler(
        beta_start=0.0015,
        beta_end=0.0195,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )
    calibrate(vae, vocoder)
    return dict(vae=vae, unet=unet, vocoder=vocoder, scheduler=scheduler)


def text_stack() -> dict[str, Any]:
    """The parts that read prompts, in diffusers' dummy sizes; the language model as published checkpoints name it."""
    import transformers
    from diffusers.pipelines.audioldm2.modeling_audioldm2 import AudioLDM2ProjectionModel
    from tokenizers import pre_tokenizers

    torch.manual_seed(0)
    layers: dict[str, Any] = dict(num_attention_heads=2, num_hidden_layers=1)
    clap = transformers.ClapConfig(
        text_config=dict(hidden_size=8, intermediate_size=37, vocab_size=300, projection_dim=16, **layers),
        audio_config=dict(
            spec_size=8, window_size=4, num_mel_bins=8, patch_size=2, patch_stride=[2, 2], patch_embeds_hidden_size=8,
            depths=[1], num_attention_heads=[2], num_hidden_layers=1, hidden_size=8, intermediate_size=37,
            projection_dim=16,
        ),
        projection_dim=16,
    )  # fmt: skip
    t5 = transformers.T5Config(vocab_size=200, d_model=32, d_ff=37, d_kv=8, num_heads=2, num_layers=1)
    gpt2 = transformers.GPT2Config(n_embd=16, n_head=2, n_layer=1, vocab_size=100, n_positions=99, max_new_tokens=8)
    letters = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    pieces = [
        ("<pad>", 0.0),
        ("</s>", 0.0),
        ("<unk>", 0.0),
        ("\u2581", -1.0),
        *((chr(c), -2.0) for c in range(33, 127)),
    ]
    return dict(
        text_encoder=transformers.ClapModel(clap),
        text_encoder_2=transformers.T5EncoderModel(t5),
        projection_model=AudioLDM2ProjectionModel(text_encoder_dim=16, text_encoder_1_dim=32, langauge_model_dim=16),
        language_model=transformers.GPT2Model(gpt2),
        tokenizer=transformers.RobertaTokenizer(
            vocab={letter: n for n, letter in enumerate(letters)}, merges=[], model_max_length=77
        ),
        tokenizer_2=transformers.T5Tokenizer(vocab=pieces, model_max_length=77),
    )


@torch.inference_mode()
def calibrate(vae: Any, vocoder: Any = None) -> None:
    """Random networks whose outputs have the sizes that trained ones have."""
    mel = LogMel()(torch.from_numpy(sf.read(DATA / "music.flac", dtype="float32")[0][None, :65280]) / 2)
    latents = vae.encode(mel[:, None]).latent_dist.mean
    vae.register_to_config(scaling_factor=1 / float(latents.std()))
    out = vae.decoder.conv_out
    out.weight.mul_(2 / vae.decode(latents).sample.std())
    out.bias.add_(-5 - vae.decode(latents).sample.mean())
    if vocoder is None:
        return
    vocoder.conv_post.bias.zero_()
    vocoder.conv_post.weight.mul_(0.1 / vocoder(mel).std())


def save(folder: Path, parts: dict[str, Any]) -> Path:
    """Save each part as diffusers' pipelines do."""
    for name, part in parts.items():
        part.save_pretrained(folder / name)
    return folder

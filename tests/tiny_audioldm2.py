"""A checkpoint of AudioLDM 2's classes and shapes, but with a few small channels and random weights."""

from pathlib import Path
from typing import Any

import soundfile as sf
import torch
from aldm.codec.mel import LogMel

DATA = Path(__file__).parent / "data"


def networks(text: bool = False) -> dict[str, Any]:
    """Components of the pipeline; sizes are published ones where the codec sees them, else diffusers' dummy sizes."""
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
        cross_attention_dim=((None, 768, 1024),) * 2,
        attention_head_dim=2,
    )
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
    _calibrate(vae, vocoder)
    return dict(vae=vae, unet=unet, vocoder=vocoder, scheduler=scheduler)


@torch.inference_mode()
def _calibrate(vae: Any, vocoder: Any) -> None:
    """Random networks whose outputs have the sizes that trained ones have."""
    mel = LogMel()(torch.from_numpy(sf.read(DATA / "music.flac", dtype="float32")[0][None, :65280]) / 2)
    latents = vae.encode(mel[:, None]).latent_dist.mean
    vae.register_to_config(scaling_factor=1 / float(latents.std()))
    out = vae.decoder.conv_out
    out.weight.mul_(2 / vae.decode(latents).sample.std())
    out.bias.add_(-5 - vae.decode(latents).sample.mean())
    vocoder.conv_post.bias.zero_()
    vocoder.conv_post.weight.mul_(0.1 / vocoder(mel).std())


def save(folder: Path, parts: dict[str, Any]) -> Path:
    """Save each part as diffusers' pipelines do."""
    for name, part in parts.items():
        part.save_pretrained(folder / name)
    return folder

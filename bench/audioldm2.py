"""The cost of AudioLDM 2: `python -m aldm.bench.audioldm2 FOLDER` times every stage at the published size.

Weights do not change what a network costs, so they are random, and nothing is downloaded; 2.5 GB are written to FOLDER
(4.6 GB with the text encoders) by the first run.
"""

from __future__ import annotations

import argparse
import resource
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..codec.audioldm2.model import AudioLDM2
from ..codec.codec import Codec
from ..codec.errors import AldmWarning
from ..codec.values import DecodedLatents, Latents

SECONDS = 10.24


def published() -> dict[str, Callable[[], Any]]:
    """Makers of the parts of `cvssp/audioldm2` and `-music`, as their configurations say."""
    import diffusers
    import transformers
    from diffusers.pipelines.audioldm2.modeling_audioldm2 import AudioLDM2ProjectionModel, AudioLDM2UNet2DConditionModel

    cross, blocks = "CrossAttn", ("DownBlock2D", "UpBlock2D")
    return {
        "vae": lambda: diffusers.AutoencoderKL(
            1, 1, ("DownEncoderBlock2D",) * 3, ("UpDecoderBlock2D",) * 3, (128, 256, 512), 2,
            latent_channels=8, sample_size=1024, scaling_factor=0.4110932946205139,
        ),
        "vocoder": lambda: transformers.SpeechT5HifiGan(
            transformers.SpeechT5HifiGanConfig(
                model_in_dim=64, upsample_initial_channel=1024, upsample_rates=[5, 4, 2, 2, 2],
                upsample_kernel_sizes=[16, 16, 8, 4, 4], normalize_before=False,
            )
        ),
        "unet": lambda: AudioLDM2UNet2DConditionModel(
            sample_size=256, in_channels=8, out_channels=8, block_out_channels=(128, 256, 384, 640),
            down_block_types=(blocks[0], *(cross + blocks[0],) * 3),
            up_block_types=(*(cross + blocks[1],) * 3, blocks[1]),
            cross_attention_dim=((None, 768, 1024),) * 4, attention_head_dim=8, layers_per_block=2,
        ),
        "scheduler": lambda: diffusers.DDIMScheduler(
            beta_start=0.0015, beta_end=0.0195, beta_schedule="scaled_linear", clip_sample=False,
            set_alpha_to_one=False, steps_offset=1,
        ),
        "text_encoder": lambda: transformers.ClapModel(transformers.ClapConfig()),
        "text_encoder_2": lambda: transformers.T5EncoderModel(
            transformers.T5Config(
                d_model=1024, d_ff=2816, num_layers=24, num_heads=16, feed_forward_proj="gated-gelu",
            )
        ),
        "projection_model": lambda: AudioLDM2ProjectionModel(512, 1024, 768),
        "language_model": lambda: transformers.GPT2Model(transformers.GPT2Config()),
    }  # fmt: skip


def write(folder: Path, text: bool) -> None:
    """Make and save the parts that are not there yet."""
    for name, make in published().items():
        if not (folder / name).exists() and (text or name in ("vae", "vocoder", "unet", "scheduler")):
            torch.manual_seed(0)
            make().save_pretrained(folder / name)


def timed(name: str, work: Callable[[], Any], times: int = 1) -> Any:
    """Run something once to warm up and then a few times; say the least time, of the wall and of the processor."""
    result, took = work(), []
    for _ in range(times):
        wall, busy = time.perf_counter(), time.process_time()
        work()
        took.append((time.perf_counter() - wall, time.process_time() - busy))
    wall, busy = min(took)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(
        f"{name:28} {wall:8.2f} s wall {busy:8.2f} s cpu {wall / SECONDS:7.3f} of real time {peak:6.2f} GB", flush=True
    )
    return result


def measure(folder: Path, device: str, dtype: str | None, text: bool) -> None:
    """Print a line for each stage, for 10.24 s of one channel."""
    started = time.perf_counter()
    model = AudioLDM2.from_pretrained(folder, device, dtype)
    codec = Codec(model)
    print(f"loading the VAE: {time.perf_counter() - started:.1f} s; {device}, {model.dtype}")
    rng = np.random.default_rng(0)
    wave = (rng.normal(size=round(SECONDS * 16000)) * 0.1).astype(np.float32)
    (packet,) = timed("mel + VAE encoder", lambda: list(codec.analyze(wave, 16000)))
    rng_latents = rng.normal(size=packet.channels[0].latents.shape).astype(
        np.float32
    )  # those of random weights say nothing
    coded = timed("quantiser, one level", lambda: model.codebook.quantize(rng_latents, 22))
    payload = timed("entropy coder, writing", lambda: model.codebook.pack([coded[:2]], 22))
    vectors = len(coded.indices)
    timed("entropy coder, reading", lambda: model.codebook.unpack(payload, 1, vectors, 22))
    latents = torch.from_numpy(coded.latents)[None]
    frames = timed("VAE decoder", lambda: model.frames(DecodedLatents(Latents(latents, 1.0))))
    for name in model.vocoders:
        vocoder = model.with_vocoder(name)

        network = vocoder.renderer()
        timed(name, lambda vocoder=network: (vocoder.push(frames), vocoder.flush()))  # type: ignore[misc]
    unet = model.denoiser
    assert unet is not None  # `write` made one
    sigma = unet.runtime.sigmas[500:501]
    step, level = torch.tensor([14.0]), torch.tensor([-1])
    timed("UNet, one step", lambda: unet(latents, sigma, latents, level, step))
    if text:
        from ..codec.audioldm2.text import text_stack

        stack = text_stack(unet.runtime.checkpoint, device, model.dtype)
        timed("a prompt", lambda: stack.encode_prompt("techno with a strong beat", device, 1, False))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype")
    parser.add_argument("--text", action="store_true", help="the text encoders too; FOLDER must have their tokenizers")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    warnings.simplefilter("ignore", AldmWarning)
    options.folder.mkdir(parents=True, exist_ok=True)
    write(options.folder, options.text)
    measure(options.folder, options.device, options.dtype, options.text)

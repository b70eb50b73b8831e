"""Other windows and bands than those of the embedded models: made by a recipe, and used like any model."""

from pathlib import Path

import numpy as np
import pytest
import torch
from aldm.codec import Codec
from aldm.codec.dsp.mel import LogMel
from aldm.codec.fit import read_recipe, run_recipe
from aldm.codec.vocoders.griffin_lim import GriffinLim
from conftest import DOMAINS, clip

RECIPE = """
[front_end]
n_fft = {n_fft}
n_mels = {n_mels}
floor = -10.5

[networks.autoencoder]
latent_channels = 200
width = 0

[networks.magnitude_net]
width = 32
blocks = 1

[networks.corrector]
width = 32
blocks = 1
n_fft = {short}

[[stages]]
kind = "klt"

[[stages]]
kind = "tables"
hours = 0.01
classes = 4
tables = 64

[[stages]]
kind = "magnitudes"
steps = 2
batch_size = 2
frames = 96

[[stages]]
kind = "corrector"
steps = 2
batch_size = 2
frames = 96
"""


@pytest.mark.slow
@pytest.mark.parametrize(("n_fft", "n_mels", "short"), [(512, 64, 512), (640, 96, 400), (512, 80, 320)])
def test_a_model_with_another_window(shard: Path, tmp_path: Path, n_fft: int, n_mels: int, short: int) -> None:
    """Its decoded clips are nearly as near to the originals as with exact log-mels, in one piece or in packets."""
    path = tmp_path / "r.toml"
    path.write_text(RECIPE.format(n_fft=n_fft, n_mels=n_mels, short=short))
    model = run_recipe(read_recipe(path), [shard], tmp_path / "m", tmp_path / "w", lambda line: None)
    assert model is not None
    assert model.corrector is not None
    assert model.corrector.config["n_fft"] == short
    ruler = LogMel(n_mels=80, floor=-8.0)
    for codec in (Codec(model), Codec.from_pretrained(tmp_path / "m", packet_seconds=2.08)):
        for domain in DOMAINS:
            wave = clip(domain)
            data = codec.encode(wave, 16000, quality=44)
            decoded = codec.decode(data)
            assert decoded.shape == (1, len(wave))
            error = (ruler(torch.from_numpy(wave)[None]) - ruler(torch.from_numpy(decoded))).abs().mean()
            assert error < 0.4  # nats; noise of the same level has more than 2
            level = 10 * np.log10(np.square(decoded).mean() / np.square(wave).mean())
            assert abs(level) < 0.7


@pytest.mark.parametrize("n_fft", [400, 512, 640, 1024])
def test_chunks_of_griffin_lim_are_nearly_the_whole(n_fft: int) -> None:
    """Magnitudes of the waveform are as asked for, however they come."""
    mel = LogMel(n_fft=n_fft, n_mels=64, floor=-10.0)
    wave = torch.from_numpy(clip("music")[:48000])[None]
    magnitudes = mel.spectrum(torch.nn.functional.pad(wave, (mel.pad, mel.pad))).abs()
    errors = []
    for size in (300, 40):
        vocoder = GriffinLim(mel)
        parts = [vocoder.push(part) for part in magnitudes.split(size, 2)] + [vocoder.flush()]
        decoded = torch.cat(parts, 1)
        assert decoded.shape == wave.shape
        found = mel.spectrum(torch.nn.functional.pad(decoded, (mel.pad, mel.pad))).abs()
        errors.append(((found - magnitudes).square().sum() / magnitudes.square().sum()).sqrt().item())
    assert errors[0] < 0.25
    assert errors[1] < errors[0] + 0.05

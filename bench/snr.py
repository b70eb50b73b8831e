"""Why SNR says nothing here: `python -m aldm.bench.snr CLIPS` makes the table of docs/snr.md."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
import torch
from torch import Tensor

from ..codec.codec import Codec
from ..codec.dsp.loudness import PEAK
from ..codec.dsp.mel import LogMel
from ..codec.vocoders.griffin_lim import griffin_lim
from .experiment import clips_argument, clips_in, table_head, table_row
from .metrics import Wave, align, log_mel, waveform_metrics
from .sources import load

COLUMNS = ("SNR, dB", "correlation", "mel distance")


def normalised(wave: Wave, size: int) -> tuple[Tensor, float]:
    """Peak 0.5, cut to a multiple of `size`: [1, N], and what to multiply by to come back."""
    cut = torch.from_numpy(wave[: len(wave) // size * size])[None]
    peak = float(cut.abs().max())
    return cut * (PEAK / peak), peak / PEAK


def systems(codec: Codec) -> dict[str, Callable[[Wave], Wave]]:
    """Systems to compare: each maps a clip to the decoded clip."""
    mel, model = codec.model.mel, codec.model
    narrow = LogMel()  # AudioLDM 2's 64 bands

    def sound(front: LogMel, magnitudes: Tensor) -> Wave:
        return griffin_lim(magnitudes, front)[0, front.pad : -front.pad].numpy()

    def exact(wave: Wave, front: LogMel) -> Wave:
        x, back = normalised(wave, front.hop_length)
        return sound(front, front.magnitudes(front(x))) * back

    def autoencoder(wave: Wave, misscaled: bool) -> Wave:
        x, back = normalised(wave, model.patch_samples)
        if misscaled:  # librosa.feature.melspectrogram and power_to_db(ref=max) / 20, as if that were a log-mel
            padded = torch.nn.functional.pad(x[:, None], (mel.pad, mel.pad), mode="reflect")[:, 0]
            power = mel.spectrum(padded).abs().square().transpose(1, 2) @ mel.basis.T
            decibel = 10 * (power.clamp(min=1e-10) / power.max()).log10()
            features = decibel.clamp(min=-80) / 20
        else:
            features = mel(x)
        latents = model.autoencoder.encode(features)
        return sound(mel, model.decode_magnitudes(latents, 0.24)) * back

    return {
        "silence": np.zeros_like,
        "the clip, sign changed": np.negative,
        "exact mel, 64 bands": lambda wave: exact(wave, narrow),
        "the same, 30 dB quieter": lambda wave: exact(wave, narrow) * 10**-1.5,
        "`base`, no quantiser": lambda wave: autoencoder(wave, False),
        "the same on mis-scaled mels": lambda wave: autoencoder(wave, True),
        "`base`, 1.5 kbit/s": lambda wave: codec.decode(codec.encode(wave, 16000, bitrate=1.5))[0],
        "`base`, 6 kbit/s": lambda wave: codec.decode(codec.encode(wave, 16000, bitrate=6))[0],
    }


def figures(reference: Wave, decoded: Wave) -> list[float]:
    """One for each of COLUMNS."""
    decoded = align(reference, decoded)
    found = waveform_metrics(reference, decoded)
    return [found["snr"], found["correlation"], float(np.abs(log_mel(reference) - log_mel(decoded)).mean())]


@click.command()
@clips_argument
def main(clips: tuple[Path, ...]) -> None:
    """Print a row for each system: means over the clips."""
    codec = Codec.from_pretrained()
    waves = [load(path) for path in clips_in(clips)]
    print(table_head("", *COLUMNS))
    with torch.inference_mode():
        for name, system in systems(codec).items():
            rows = [figures(wave, system(wave).astype(np.float32)) for wave in waves]
            print(table_row(name, *(f"{value:.2f}" for value in np.mean(rows, 0))), flush=True)


if __name__ == "__main__":
    main()

"""One clip through every stage of the codec: the loss in each."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import quote

import soundfile as sf

from .codecs.base import AudioCodec, number
from .codecs.ours import Aldm, ExactMel, Unquantized
from .metrics import SAMPLE_RATE, Wave, score
from .plots import plot_spectrograms
from .sources import load


def analyze(
    clip: Path,
    out: Path,
    bitrates: Sequence[float],
    *,
    domain: str,
    model: str = "",
    say: Callable[[str], None] = lambda line: None,
) -> list[dict[str, Any]]:
    """Write the clip as every stage leaves it (WAV), spectrograms of all (PNG), and analysis.json with all metrics.

    Stages: exact log-mel through Griffin-Lim alone, through the vocoder (network and Griffin-Lim), the autoencoder
    without quantisation, and the codec at each bitrate.

    Raises:
        BenchError: no usable audio.
        Missing: no such model.
    """
    original = load(clip)
    out.mkdir(parents=True, exist_ok=True)
    codec = Aldm(model)
    stages: list[tuple[str, AudioCodec, str]] = [("exact mel, Griffin-Lim", ExactMel(model, "griffin-lim"), "ceiling")]
    if codec.codec.model.magnitude_net is not None:
        stages.append(("exact mel, vocoder", ExactMel(model), "ceiling"))
    stages.append(("autoencoder, not quantised", Unquantized(model), "ceiling"))
    stages += [(f"{number(b)} kbit/s", codec, number(b)) for b in bitrates]
    waves: dict[str, Wave] = {"original": original}
    rows: list[dict[str, Any]] = []
    for name, stage, setting in stages:
        with TemporaryDirectory() as temporary:
            coded = stage.run(original, setting, Path(temporary))
        waves[name] = coded.decoded
        kbps = None if coded.size is None else coded.size * 8 / len(original) * SAMPLE_RATE / 1000
        rows.append(dict(stage=name, bytes=coded.size, kbps=kbps, **score(original, coded.decoded, domain)))
        values = "  ".join(f"{k} {v:.3f}" for k, v in rows[-1].items() if isinstance(v, float))
        say(f"{name}: {values}")
    for name, wave in waves.items():
        sf.write(out / f"{quote(name.replace(',', '').replace(' ', '-').replace('/', '-per-'))}.wav", wave, SAMPLE_RATE)
    plot_spectrograms(waves, out / "spectrograms.png")
    facts = dict(clip=clip.name, seconds=len(original) / SAMPLE_RATE, domain=domain, stages=rows)
    (out / "analysis.json").write_text(json.dumps(facts, indent=1) + "\n")
    return rows

"""Speech quality without a reference, by networks that listeners' ratings trained: DNSMOS and DistillMOS."""

from __future__ import annotations

import contextlib
import functools
import io
import sys
import types
from pathlib import Path
from typing import Any

from .base import EXTRA, SAMPLE_RATE, Family, Metric, Pair, Scores

RATED = "mean opinion score from 1 to 5, predicted by a network without the original"
DNSMOS_KEYS = {
    "dnsmos_ovrl": "ovrl_mos",
    "dnsmos_sig": "sig_mos",
    "dnsmos_bak": "bak_mos",
    "dnsmos_p808": "p808_mos",
}


@functools.cache
def _dnsmos() -> Any:
    """The scorer of speechmos, with one thread for each of its networks."""
    import onnxruntime
    from speechmos import dnsmos

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1

    def session(name: str) -> Any:
        path = Path(dnsmos.__file__).parent / "dnsmos_models" / name
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    scorer = dnsmos.DNSMOS.__new__(dnsmos.DNSMOS)  # its constructor makes sessions that take all cores
    scorer.onnx_sess, scorer.p808_onnx_sess = session("sig_bak_ovr.onnx"), session("model_v8.onnx")
    return scorer


def dnsmos(pair: Pair) -> Scores:
    """DNSMOS P.835 (overall, signal, background) and P.808 (Reddy et al., ICASSP 2021 and 2022)."""
    found = _dnsmos()(pair.decoded, SAMPLE_RATE, False)
    return {name: float(found[key]) for name, key in DNSMOS_KEYS.items()}


@functools.cache
def _distillmos() -> Any:
    import torch

    torch.set_num_threads(1)
    try:
        import torchaudio  # noqa: F401
    except (ImportError, OSError):  # PyPI's build needs CUDA; distillmos uses it in its command line only
        sys.modules["torchaudio"] = types.ModuleType("torchaudio")
    import distillmos

    with contextlib.redirect_stdout(io.StringIO()):  # it prints where its weights are
        return distillmos.ConvTransformerSQAModel().eval()


def distillmos(pair: Pair) -> Scores:
    """DistillMOS (Stahl and Gamper, ICASSP 2025)."""
    import torch

    with torch.inference_mode():
        return {"distillmos": float(_distillmos()(torch.from_numpy(pair.decoded)[None]))}


FAMILIES = (
    Family(
        "dnsmos",
        (
            Metric("dnsmos_ovrl", "DNSMOS OVRL", "MOS", "higher", "naturalness", f"Overall quality: {RATED}."),
            Metric("dnsmos_sig", "DNSMOS SIG", "MOS", "higher", "naturalness", f"Quality of the speech: {RATED}."),
            Metric("dnsmos_bak", "DNSMOS BAK", "MOS", "higher", "naturalness", f"Absence of noise: {RATED}."),
            Metric("dnsmos_p808", "DNSMOS P.808", "MOS", "higher", "naturalness", f"Overall quality: {RATED}."),
        ),
        dnsmos,
        ("speechmos", "onnxruntime", "librosa", "requests"),
        shortest=1.0,
        speech_only=True,
        compares=False,
    ),
    Family(
        "distillmos",
        (Metric("distillmos", "DistillMOS", "MOS", "higher", "naturalness", f"Overall quality: {RATED}."),),
        distillmos,
        ("distillmos", "xls_r_sqa"),
        f"{EXTRA} and pip install --no-deps distillmos xls-r-sqa",
        shortest=1.0,
        speech_only=True,
        compares=False,
    ),
)

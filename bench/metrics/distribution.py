"""Distance between the originals and the decoded clips as two sets of sounds: the kernel audio distance (KAD)."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .base import EXTRA, SAMPLE_RATE, Metric, Wave

Vectors = NDArray[np.float32]
SCALE = 100.0  # of the published toolkit
MIN_CLIPS = 3  # fewer have no interval
SPEECH_WINDOW, SPEECH_STEP = 76, 38  # frames of 10 ms
YAMNET_WINDOW, YAMNET_STEP = 15600, 7800  # samples
MEANING = (
    "Kernel audio distance between the set of originals and the set of decoded clips in a network's embedding; 0: no "
    "difference."
)


@dataclass(frozen=True)
class Embedding:
    """A network that turns windows of a clip into vectors.

    Attributes:
        embed: of a wave [N] at 16 kHz, [windows, size]; no window if the clip is shorter than one.
        seconds: length of a window; half of it is the step.
    """

    metric: Metric
    embed: Callable[[Wave], Vectors]
    seconds: float
    speech_only: bool
    modules: tuple[str, ...]
    hint: str = EXTRA

    @property
    def name(self) -> str:
        """As the metric."""
        return self.metric.name


def _interpreter(path: Path, **options: Any) -> Any:
    from ai_edge_litert.interpreter import Interpreter

    return Interpreter(str(path), num_threads=1, **options)


@functools.cache
def _speech_networks() -> tuple[Any, Any]:
    import pyopen_wakeword

    folder = Path(pyopen_wakeword.__file__).parent / "models"
    return _interpreter(folder / "melspectrogram.tflite"), _interpreter(folder / "embedding_model.tflite")


def _call(network: Any, values: NDArray[np.float32]) -> NDArray[np.float32]:
    details = network.get_input_details()[0]
    network.resize_tensor_input(details["index"], values.shape)
    network.allocate_tensors()
    network.set_tensor(details["index"], values)
    network.invoke()
    return network.get_tensor(network.get_output_details()[0]["index"])


def embed_speech(wave: Wave) -> Vectors:
    """Google's speech embedding (Lin et al., arXiv 2002.01322), as openWakeWord packages it: [windows, 96]."""
    size = (SPEECH_WINDOW + 3) * 160  # its mel network needs 30 ms around the frames
    if len(wave) < size:
        return np.zeros((0, 96), np.float32)
    mel, network = _speech_networks()
    frames = _call(mel, (wave * np.float32(32767))[None])[0, 0] / 10 + 2  # samples as of 16 bits; its scale
    starts = range(0, len(frames) - SPEECH_WINDOW + 1, SPEECH_STEP)
    windows = np.stack([frames[start : start + SPEECH_WINDOW] for start in starts])
    return _call(network, windows[..., None].astype(np.float32)).reshape(len(windows), -1)


SPEECH = Embedding(
    Metric("kad_speech", "KAD, speech", "", "lower", "naturalness", MEANING, pooled=True),
    embed_speech,
    SPEECH_WINDOW / 100,
    True,
    ("pyopen_wakeword", "ai_edge_litert"),
)
YAMNET = Metric("kad_yamnet", "KAD, YAMNet", "", "lower", "naturalness", MEANING, pooled=True)


@functools.cache
def _yamnet(path: Path) -> tuple[Any, int]:
    """The network, and the number of its tensor [1, 1024] before the classes, which most files do not return."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of memory that intermediate tensors take
        try:
            network = _interpreter(path, experimental_preserve_all_tensors=True)
            network.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise ValueError(f"{path} is not a TFLite model that can run here") from error
    pooled = [t["index"] for t in network.get_tensor_details() if list(t["shape"]) == [1, 1024]]
    inputs = network.get_input_details()
    if not pooled or len(inputs) != 1 or np.prod(inputs[0]["shape"]) != YAMNET_WINDOW:
        raise ValueError(f"{path} is not YAMNet: it needs an input of {YAMNET_WINDOW} samples and 1024 features")
    return network, pooled[0]


def embed_yamnet(path: Path, wave: Wave) -> Vectors:
    """YAMNet's features before its classes (Plakal and Ellis, 2020), from a TFLite file: [windows, 1024].

    Raises:
        ValueError: the file is not such a network.
    """
    network, pooled = _yamnet(path)
    details = network.get_input_details()[0]
    out = []
    for start in range(0, len(wave) - YAMNET_WINDOW + 1, YAMNET_STEP):
        network.set_tensor(details["index"], wave[start : start + YAMNET_WINDOW].reshape(details["shape"]))
        network.invoke()
        out.append(network.get_tensor(pooled)[0].copy())
    return np.stack(out) if out else np.zeros((0, 1024), np.float32)


def embeddings(yamnet: Path | None) -> list[Embedding]:
    """Those that can be had: the one for speech, and YAMNet if its file is given."""
    found = [SPEECH]
    if yamnet is not None:
        seconds = YAMNET_WINDOW / SAMPLE_RATE
        found.append(
            Embedding(YAMNET, functools.partial(embed_yamnet, yamnet), seconds, False, ("ai_edge_litert",))
        )  # fmt: skip
    return found


def kad(originals: Sequence[Vectors], decoded: Sequence[Vectors]) -> tuple[float, float, float]:
    """Kernel audio distance (Chung et al., arXiv 2502.15602) and its 95 % interval by the jackknife over clips.

    The unbiased estimate of the squared maximum mean discrepancy, times 100, with a Gaussian kernel as wide as the
    median distance between originals. As the sets are paired, and windows of one clip resemble each other, only pairs
    of windows from different clips count (the U-statistic of Gretton et al., JMLR 2012, over clips). It may be a
    little below zero.

    Args:
        originals, decoded: for each clip [windows, size], with as many windows in both.

    Raises:
        ValueError: fewer than 3 clips.
    """
    if len(originals) < MIN_CLIPS:
        raise ValueError(f"KAD needs at least {MIN_CLIPS} clips")
    from scipy.spatial.distance import cdist, pdist

    x, y = (np.concatenate(each).astype(np.float64) for each in (originals, decoded))
    bandwidth = max(float(np.median(pdist(x))), 1e-12)

    def kernel(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.exp(-cdist(a, b, "sqeuclidean") / (2 * bandwidth**2))

    cross = kernel(x, y)
    pairs = kernel(x, x) + kernel(y, y) - cross - cross.T
    counts = np.array([len(each) for each in originals])
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    sums = np.add.reduceat(np.add.reduceat(pairs, starts, 0), starts, 1)
    sizes = np.outer(counts, counts).astype(np.float64)
    for table in (sums, sizes):
        np.fill_diagonal(table, 0)
    value = sums.sum() / sizes.sum()
    without = (sums.sum() - 2 * sums.sum(0)) / (sizes.sum() - 2 * sizes.sum(0))
    clips = len(counts)
    error = 1.96 * np.sqrt((clips - 1) / clips * ((without - without.mean()) ** 2).sum())
    return SCALE * float(value), SCALE * float(value - error), SCALE * float(value + error)

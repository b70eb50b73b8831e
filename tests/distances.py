"""How far decoded sound is from the original, for tests."""

import numpy as np
import torch
from aldm.codec.dsp.mel import LogMel

MEL = LogMel(n_mels=80, floor=-9.0)


def frame_errors(reference: np.ndarray, decoded: np.ndarray) -> np.ndarray:
    """Mean log-mel difference of each 10 ms, in nats."""
    scale = 0.5 / np.abs(reference).max()
    pair = torch.from_numpy(np.stack([reference, decoded]).astype(np.float32) * scale)
    a, b = MEL(pair[:, : len(reference) // 160 * 160])
    return (a - b).abs().mean(1).numpy()

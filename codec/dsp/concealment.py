"""Sound in the place of packets that are missing: a fade into the background and out of it.

Per bin of the spectrum, the background is a low quantile of what was heard on either side: room and steady tones stay,
words and beats go. On 43 clips that lost one packet of 1.28 s or two (`python -m aldm.bench.concealment`):

    speech, music, other sounds    log-mel error       ViSQOL
    this                           0.32  0.21  0.27    1.38  3.90  4.20
    silence                        0.82  0.58  0.67    1.37  3.87  4.16
    the packet before once more    0.43  0.24  0.32    1.47  3.90  4.16
    nothing lost                   0.14  0.14  0.17    2.99  4.04  4.38

In the same order, STOI of speech is 0.57 0.43 0.48 0.84, and PESQ 1.40 1.33 1.24 2.16: not every metric hears the
difference there. A higher quantile scores the same and babbles.
"""

from __future__ import annotations

import torch
from torch import Tensor

CONTEXT = 256  # frames on either side that are listened to
EDGE = 8  # of them next to the gap, whose level it starts and ends with
FADE = 30.0  # frames in which the difference to the background falls to 1 / e
BACKGROUND = 0.2  # quantile
PIECE = 1024  # frames that are filled at once


def fill(before: Tensor, after: Tensor, missing: int, start: int) -> Tensor:
    """Frames `start` to `start` + PIECE, or to the end, of a gap.

    Args:
        before, after: frames [C, bins, T] next to the gap, CONTEXT of them or as many as there are.
        missing: frames in the gap.
    Returns:
        [C, bins, PIECE or what is left].
    """
    t = torch.arange(start, min(missing, start + PIECE), device=before.device).float()
    both = torch.cat([before, after], -1)
    if not both.shape[-1]:
        return both.new_zeros(*both.shape[:-1], len(t))
    background = both.quantile(BACKGROUND, -1, keepdim=True)
    out = background.expand(*both.shape[:-1], len(t))
    for edge, away in ((before[..., -EDGE:], t), (after[..., :EDGE], missing - 1 - t)):
        if edge.shape[-1]:
            level = edge.square().mean(-1, keepdim=True).sqrt()
            out = out + (level - background).clamp(min=0) * torch.exp(-away / FADE)
    return out

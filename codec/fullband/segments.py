"""Parameters of a packet as segments of adaptive duration, by a trade of bits against errors."""

from __future__ import annotations

import numpy as np

from ...format.parameters import DURATIONS

SEGMENT_BITS = 3.0  # of a segment's duration
STEP_BITS = 0.4, 2.2, 1.4  # about what steps of 0 and 1 cost, and each more


def choose_segments(features: np.ndarray, weights: np.ndarray, bits: float, trade: float) -> np.ndarray:
    """Numbers of the durations of segments, such that error and bits are least (dynamic programming).

    Args:
        features: [units, F], in quantiser steps.
        weights: [units, F], of squared errors.
        bits: about what a segment takes.
        trade: squared steps that a bit is worth.
    """
    units = len(features)
    sums = np.zeros((3, units + 1, features.shape[1]))
    sums[:, 1:] = np.cumsum([weights, weights * features, weights * features**2], 1)
    starts = np.arange(units)[:, None]
    ends = np.minimum(starts + np.array(DURATIONS), units)
    weight, first, second = sums[:, ends] - sums[:, starts]
    errors = (second - first**2 / np.maximum(weight, 1e-9)).sum(-1) + trade * bits
    best, choice = np.zeros(units + 1), np.zeros(units, np.int64)
    for start in range(units - 1, -1, -1):
        costs = errors[start] + best[ends[start]]
        choice[start] = costs.argmin()
        best[start] = costs[choice[start]]
    chosen, at = list[int](), 0
    while at < units:
        chosen.append(int(choice[at]))
        at += DURATIONS[chosen[-1]]
    return np.array(chosen)


def choose_steps(targets: np.ndarray, before: np.ndarray, weights: np.ndarray, trade: float) -> np.ndarray:
    """Integers near targets [P] that cost few bits after the integers `before`; arguments as above."""
    whole = np.rint(targets - before).astype(np.int64)
    candidates = np.stack([np.zeros_like(whole), whole - np.sign(whole), whole])
    zero, one, more = STEP_BITS
    size = np.abs(candidates)
    bits = np.where(size == 0, zero, one + more * (size - 1))
    costs = weights * (before + candidates - targets) ** 2 + trade * bits
    return before + np.take_along_axis(candidates, costs.argmin(0)[None], 0)[0]

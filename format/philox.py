"""Noise with the same integers on all machines: Philox 4x32-10, mapped to normals. spec/aldm-format.md, section 7."""

from __future__ import annotations

import numpy as np

MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
WEYL = (0x9E3779B9, 0xBB67AE85)
ROUNDS = 10
LOW = np.uint64(0xFFFFFFFF)
HIGH = np.uint64(32)

UNIT = 32  # standard deviation of NORMALS
# round(32 * inverse normal distribution((b + 0.5) / 256)) for the bytes b = 128 .. 255; for 255 - b the negative
UPPER = (
    0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4, 5, 5, 5, 6, 6, 6, 6, 7, 7, 7, 8, 8, 8, 9, 9, 9, 10, 10, 10, 11, 11,
    11, 12, 12, 12, 13, 13, 13, 14, 14, 14, 15, 15, 15, 16, 16, 17, 17, 17, 18, 18, 18, 19, 19, 19, 20, 20, 21,
    21, 21, 22, 22, 23, 23, 23, 24, 24, 25, 25, 25, 26, 26, 27, 27, 28, 28, 29, 29, 30, 30, 31, 31, 32, 32, 33,
    33, 34, 34, 35, 35, 36, 37, 37, 38, 38, 39, 40, 40, 41, 42, 43, 43, 44, 45, 46, 47, 48, 49, 50, 51, 52, 53,
    54, 56, 57, 59, 61, 63, 65, 67, 71, 75, 81, 92,
)  # fmt: skip
NORMALS = np.array([-value for value in UPPER[::-1]] + list(UPPER), np.int8)


def philox(counters: np.ndarray, key: tuple[int, int]) -> np.ndarray:
    """Philox 4x32-10 (Salmon, Moraes, Dror, Shaw, SC 2011): counters [..., 4] -> random words [..., 4], all uint32."""
    c0, c1, c2, c3 = np.moveaxis(counters.astype(np.uint64), -1, 0)
    k0, k1 = key
    for _ in range(ROUNDS):
        first, second = c0 * MULTIPLIERS[0], c2 * MULTIPLIERS[1]
        c0, c1, c2, c3 = (
            second >> HIGH ^ c1 ^ np.uint64(k0),
            second & LOW,
            first >> HIGH ^ c3 ^ np.uint64(k1),
            first & LOW,
        )
        k0, k1 = k0 + WEYL[0] & 0xFFFFFFFF, k1 + WEYL[1] & 0xFFFFFFFF
    return np.stack([c0, c1, c2, c3], -1).astype(np.uint32)


def words(seed: int, stream: int, step: int, numbers: np.ndarray, count: int) -> np.ndarray:
    """Random words.

    Args:
        seed: 0 .. 2^32 - 1.
        stream: purpose of the noise, see the specification.
        step: of the diffusion.
        numbers: [n] numbers of sequences, such as those of atoms, each below 2^32.
        count: words of each sequence.

    Returns:
        uint32 [n, count].
    """
    groups = -(-count // 4)
    counters = np.empty((len(numbers), groups, 4), np.uint32)
    counters[..., 0] = np.arange(groups)
    counters[..., 1] = np.asarray(numbers)[:, None]
    counters[..., 2] = step
    counters[..., 3] = stream
    return philox(counters, (seed, 0)).reshape(len(numbers), -1)[:, :count]


def normals(seed: int, stream: int, step: int, numbers: np.ndarray, count: int) -> np.ndarray:
    """Normally distributed integers with standard deviation UNIT: int8 [n, count]. Arguments as in `words`.

    Each word gives four of them, from its lowest byte on.
    """
    octets = words(seed, stream, step, numbers, -(-count // 4)).astype("<u4").view(np.uint8)
    return NORMALS[octets.reshape(len(numbers), -1)[:, :count]]

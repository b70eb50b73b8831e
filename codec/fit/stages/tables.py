"""Integer frequency tables for the scalar codebook, counted on the encoder's choices."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ....format.entropy import Tables
from ...levels import step_size
from ...nn.predictor import Predictor
from ...quantization.rdo import ClassCosts, choose_indices
from ...quantization.scalar import ScalarCodebook
from ..data.audio_cache import encode_clips
from ..draft import Draft
from ..quantization import residuals
from .base import HoursStage, Job

TOTAL = 1 << 16  # counts of a table add up to about this
HELD_OUT_HOURS = 0.1
REPORTED = (16, 24, 32, 40)  # levels


def _integer(counts: np.ndarray) -> np.ndarray:
    """Counts >= 1 with a sum near TOTAL in the last axis."""
    share = counts / counts.sum(-1, keepdims=True)
    return np.maximum(1, np.rint(share * TOTAL)).astype(np.int32)


def _count(indices: np.ndarray, classes: np.ndarray, number: int, limit: int) -> np.ndarray:
    """Histograms [number, C, 2 * limit + 1] of indices [N, C] by class."""
    channels, symbols = indices.shape[1], 2 * limit + 1
    flat = (classes[:, None] * channels + np.arange(channels)) * symbols + np.clip(indices, -limit, limit) + limit
    return np.bincount(flat.ravel(), minlength=number * channels * symbols).reshape(number, channels, symbols)


def _smooth(counts: np.ndarray, prior: float = 20.0) -> np.ndarray:
    """Counts by class and channel, backed by those of the channel and these by a wide Laplacian."""
    limit = counts.shape[2] // 2
    wide = np.exp(-np.abs(np.arange(-limit, limit + 1)) / 2.0)
    channel = counts.sum(0) + 0.5 * wide
    return counts + prior * channel / channel.sum(1, keepdims=True)


def _costs(smoothed: np.ndarray) -> np.ndarray:
    return -np.log2(smoothed / smoothed.sum(-1, keepdims=True)).astype(np.float32)


def _cluster(counts: np.ndarray, tables: int, rounds: int = 15) -> tuple[np.ndarray, np.ndarray]:
    """Share `tables` frequency tables among histograms [n, symbols]: Lloyd's algorithm under code length."""
    symbols = counts.shape[1]
    limit = symbols // 2
    magnitude = (counts * np.abs(np.arange(-limit, limit + 1))).sum(1) / counts.sum(1)
    order = np.argsort(magnitude)
    weight = np.cumsum(np.log2(1 + magnitude[order] * 64) * counts.sum(1)[order])
    choice = np.empty(len(counts), np.int64)
    choice[order] = np.minimum(tables - 1, (weight / weight[-1] * tables).astype(int))
    wide = 0.02 * np.exp(-np.abs(np.arange(-limit, limit + 1)) / 3.0)
    bank = np.zeros((tables, symbols))
    for _ in range(rounds):
        sums = np.zeros((tables, symbols))
        for table in range(tables):
            sums[table] = counts[choice == table].sum(0)
        used = sums.sum(1) > 0
        bank[used] = _integer(sums[used] + wide)
        bank[~used] = _integer(wide)
        costs = _costs(bank.astype(np.float64))
        choice = (counts.astype(np.float32) @ costs.T).argmin(1)
    return bank.astype(np.int32), choice


def fit_tables(
    latents: list[np.ndarray],
    step_scales: np.ndarray,
    progress: Callable[[str], None],
    predictor: Predictor | None = None,
    classes: int = 32,
    limit: int = 31,
    tables: int = 512,
) -> ScalarCodebook:
    """Entropy-constrained classes and tables for every quality level.

    Alternates, as in entropy-constrained vector quantisation (Chou, Lookabaugh, Gray, 1989), between giving each
    vector the class and the indices that are best for it and counting what was given. Levels go from fine to
    coarse and start with the classes of the level before.

    Args:
        latents: [C, N] per clip.
        step_scales: [levels, C].
        predictor: its predictions are subtracted first.
    """
    joined = np.concatenate([z.T for z in latents]).astype(np.float32)
    starts = np.cumsum([0] + [z.shape[1] for z in latents[:-1]])
    levels, channels = step_scales.shape
    every = np.arange(channels)
    histograms = np.zeros((levels, classes, channels, 2 * limit + 1), np.float32)
    transitions = np.zeros((levels, classes + 1, classes), np.int32)
    given: np.ndarray | None = None
    for level in range(levels - 1, -1, -1):
        if predictor is not None:
            joined = np.concatenate([z.T for z in residuals(predictor, latents, step_scales[level], level)])
        scaled = joined / (step_size(level) * step_scales[level])
        if given is None:
            energy = np.log1p(np.abs(scaled)).sum(1)
            given = np.searchsorted(np.quantile(energy, np.linspace(0, 1, classes + 1)[1:-1]), energy)
            indices = np.rint(scaled).astype(np.int32)
            rounds = 10
        else:
            indices = np.rint(scaled).astype(np.int32)
            rounds = 3
        for _ in range(rounds):
            counts = _smooth(_count(indices, given, classes, limit))
            costs = _costs(counts)
            of_classes = ClassCosts.of(costs, np.bincount(given, minlength=classes)[None] + 1)
            given = (of_classes.search(scaled) + of_classes.transitions).argmin(1)

            def bits(at: np.ndarray, costs: np.ndarray = costs, given: np.ndarray = given) -> np.ndarray:
                return costs[given[:, None], every, np.clip(at, -limit, limit) + limit]

            indices = choose_indices(scaled, bits)
        histograms[level] = _smooth(_count(indices, given, classes, limit))
        first = np.zeros(len(given), bool)
        first[starts] = True
        pairs = np.zeros((classes + 1, classes))
        np.add.at(pairs, (given[:-1][~first[1:]], given[1:][~first[1:]]), 1)
        np.add.at(pairs, (np.full(len(starts), classes), given[starts]), 1)
        share = (np.bincount(given, minlength=classes) + 0.5) / len(given)
        transitions[level] = _integer(pairs + 8 * share)
        total = bits(indices, _costs(histograms[level])).sum()
        progress(f"tables of level {level}: {total / len(given):.1f} bits per vector")
    bank, choice = _cluster(histograms.reshape(-1, 2 * limit + 1), tables)
    choice = choice.reshape(levels, classes, channels).astype(np.uint8 if tables <= 256 else np.uint16)
    return ScalarCodebook(step_scales.astype(np.float32), Tables(bank, choice, transitions), predictor)


@dataclass(frozen=True, kw_only=True)
class FitTables(HoursStage):
    """Integer tables of all quality levels.

    Attributes:
        classes: contexts of a vector.
        limit: magnitude from which on an index is escaped.
        tables: how many the classes and channels of all levels share.
    """

    kind = "tables"
    changes = ("tables",)

    classes: int = 32
    limit: int = 31
    tables: int = 512

    def run(self, draft: Draft, job: Job) -> dict[str, float]:
        autoencoder, step_scales = draft.require("autoencoder"), draft.require("step_scales")
        latents = encode_clips(autoencoder, draft.mel, job.cache, self.hours)
        codebook = fit_tables(latents, step_scales, job.log.say, draft.predictor, self.classes, self.limit, self.tables)
        draft.tables = codebook.tables
        held_out = encode_clips(autoencoder, draft.mel, job.cache, HELD_OUT_HOURS, held_out=True)
        vectors = sum(z.shape[1] for z in held_out)
        found: dict[str, float] = {}
        for level in REPORTED if held_out else ():
            bits = sum(codebook.encoder().estimate(z, level) for z in held_out)
            found[f"bits_per_vector_{level}"] = bits / vectors
        return found

"""The encoder's side: samples of any rate -> samples for the core, and high band and stereo records of its packets."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from ...format.container import (
    HIGH_BAND,
    MAX_PARAMETRIC_CHANNELS,
    PARAMETRIC_VERSION,
    STEREO,
    VERSION,
    Packet,
    pack_record,
)
from ...format.parameters import STEREO_BANDS, HighBand
from ..audio.reader import AudioReader
from ..audio.resampling import Resampler
from .downmix import Downmix
from .high_band import audible, fit_high_band
from .spectra import CORE_RATE, CORE_STEREO_BANDS, FRAMES_PER_HOP, FULL_BINS, FULL_RATE, HIGH_EDGES, STEREO_EDGES, power
from .spectra import Analysis as SpectralAnalysis
from .stereo import Products, fit_stereo, products

STEREO_MODES = ("auto", "parametric", "discrete", "mono")
PARAMETRIC_BELOW = 12.0  # kbit/s of two channels, below which "auto" is parametric
DOWNMIX_SECONDS = 0.06  # that the mid channel is late
TRADE = 4.0  # squared quantiser steps that a bit is worth at 1 kbit/s; in inverse proportion to the rate
TRADES = 0.5, 12.0
SHARE = 0.2  # of the rate that a kind of record is held to, as far as there is something to save
MAX_TRADE = 12.0
LEAST_BYTES = 60  # of a packet at its rate, with less of which there are no parameters


@dataclass(frozen=True)
class ParametricSettings:
    """How much of a sound is described by parameters.

    Attributes:
        high_band: what is above 8 kHz is.
        stereo: "parametric", "discrete" or "mono"; for two channels.
        rate: kbit/s that the parameters are chosen for.
        limited: it is a limit.
    """

    high_band: bool
    stereo: str
    rate: float
    limited: bool

    @classmethod
    def choose(
        cls,
        sample_rate: int,
        channels: int,
        high_band: bool,
        stereo: str,
        bitrate: float | None,
        level: int | None,
        packet_seconds: float,
    ) -> ParametricSettings:
        """For a sound and what a caller asks for, a bitrate or a level.

        Raises:
            ValueError: no such stereo mode.
        """
        if stereo not in STEREO_MODES:
            raise ValueError(f"no stereo mode {stereo}; there are {', '.join(STEREO_MODES)}")
        rate = bitrate or 6.0 * 2 ** (((level or 0) - 44) / 6.4)  # about what a level takes
        enough = bitrate is None or bitrate * 125 * packet_seconds >= LEAST_BYTES
        if channels != 2:
            stereo = "discrete"
        elif stereo == "auto":
            stereo = "parametric" if rate < PARAMETRIC_BELOW and enough else "discrete"
        has_high_band = high_band and sample_rate > CORE_RATE and channels <= MAX_PARAMETRIC_CHANNELS and enough
        return cls(has_high_band, stereo, rate, bitrate is not None)

    @property
    def version(self) -> tuple[int, int]:
        """Of the format of streams that may have such records."""
        return PARAMETRIC_VERSION if self.high_band or self.stereo == "parametric" else VERSION


class HopQueue:
    """Means over hops of values of frames [C, T, B]; those of the stream's first frame are left out."""

    def __init__(self) -> None:
        self._frames: np.ndarray | None = None
        self._hops = list[np.ndarray]()

    def push(self, frames: np.ndarray) -> None:
        """Take frames."""
        held = frames[:, 1:] if self._frames is None and frames.shape[1] else frames
        if self._frames is not None:
            held = np.concatenate([self._frames, held], 1)
        elif not frames.shape[1]:
            return
        count = held.shape[1] // FRAMES_PER_HOP
        self._frames = held[:, count * FRAMES_PER_HOP :]
        whole = held[:, : count * FRAMES_PER_HOP]
        self._hops.append(whole.reshape(len(held), count, FRAMES_PER_HOP, held.shape[2]).mean(2))

    def take(self, count: int) -> np.ndarray:
        """The next hops, [C, count, B]; zeros behind the end of the stream."""
        held = np.concatenate(self._hops, 1)
        self._hops = [held[:, count:]]
        return np.pad(held[:, :count], ((0, 0), (0, max(0, count - held.shape[1])), (0, 0)))


class ParametricEncoder:
    """Splits the samples of one file or stream into what the core codes and parameters of the rest.

    Attributes:
        channels: of what the core codes.
    """

    def __init__(self, sample_rate: int, channels: int, setting: ParametricSettings):
        self._setting = setting
        self._downmix = None if channels != 2 or setting.stereo == "discrete" else Downmix()
        self.channels = 1 if setting.stereo == "mono" else channels
        self._resampler = Resampler(sample_rate, CORE_RATE, channels)
        self._high_resampler = Resampler(sample_rate, FULL_RATE, channels) if setting.high_band else None
        self._analysis = SpectralAnalysis(FULL_RATE, channels)
        self._high, self._low_products, self._high_products = HopQueue(), HopQueue(), HopQueue()

    @property
    def mixes(self) -> bool:
        """Whether the core codes a mid channel, which comes later than others."""
        return self._downmix is not None

    def blocks(self, reader: AudioReader) -> Iterator[np.ndarray]:
        """What the core codes of a file, [C, n] at CORE_RATE."""
        for block in reader.blocks(reader.sample_rate):
            yield self.push(block)
        yield self.flush()

    def push(self, block: np.ndarray) -> np.ndarray:
        """Take samples [C, n]; return what the core codes of them, as far as it is settled."""
        if self._high_resampler:
            self._analyze(self._analysis.push(self._high_resampler.push(block)))
        return self._mix(self._resampler.push(block))

    def flush(self) -> np.ndarray:
        """The rest."""
        if self._high_resampler:
            self._analyze(self._analysis.push(self._high_resampler.flush()))
            self._analyze(self._analysis.flush())
        rest = self._mix(self._resampler.flush())
        if self._downmix is None:
            return rest
        return np.concatenate([rest, self._shared(self._downmix.flush())], 1)

    def _mix(self, block: np.ndarray) -> np.ndarray:
        return block if self._downmix is None else self._shared(self._downmix.push(block))

    def _shared(self, middle: np.ndarray) -> np.ndarray:
        """The mid channel as that of all channels; its products go to their queue."""
        assert self._downmix
        for frames in self._downmix.frames:
            self._low_products.push(np.stack(frames))
        self._downmix.frames.clear()
        return np.repeat(middle, self.channels, 0)

    def _analyze(self, spectra: np.ndarray) -> None:
        high = spectra[:, :, HIGH_EDGES[0] : FULL_BINS]
        powers = power(high)
        if self._downmix is not None:
            powers = powers.mean(0, keepdims=True)
            edges = STEREO_EDGES[CORE_STEREO_BANDS:] - HIGH_EDGES[0]
            self._high_products.push(np.stack(products(high, edges)))
        self._high.push(powers)

    def records(self, number: int, hops: int, gains: list[int]) -> bytes:
        """High band and stereo records of the next packet, perhaps none.

        Args:
            hops: its duration. gains: of its channels, as in `Packet`.
        """
        return b"".join(
            pack_record(kind, body)
            for kind, body in ((HIGH_BAND, self._high_band(number, hops, gains)), (STEREO, self._stereo(number, hops)))
            if body
        )

    def _high_band(self, number: int, hops: int, gains: list[int]) -> bytes:
        if not self._setting.high_band:
            return b""
        powers = self._high.take(hops)
        coded = [c for c in range(len(powers)) if Packet(hops, tuple(gains[c : c + 1]), b"").coded]
        if not any(audible(powers[c]) for c in coded):
            return b""

        def pack(trade: float) -> bytes:
            return HighBand([fit_high_band(powers[c], trade) for c in coded]).pack(number)

        return self._fit(pack, hops)

    def _stereo(self, number: int, hops: int) -> bytes:
        if self._setting.stereo != "parametric":
            return b""
        assert self._downmix
        low = self._low_products.take(hops)
        high = np.zeros((4, hops, STEREO_BANDS - CORE_STEREO_BANDS))
        if self._high_resampler:
            high = self._high_products.take(hops)
        found = Products(*np.concatenate([low, high], 2))

        def pack(trade: float) -> bytes:
            stereo = fit_stereo(found, trade)
            return b"" if stereo is None else stereo.pack(number)

        return self._fit(pack, hops)

    def _fit(self, pack: Callable[[float], bytes], hops: int) -> bytes:
        """A body that takes its share of the rate, or as little more as can be."""
        rate = self._setting.rate
        trade = min(max(TRADE / rate, TRADES[0]), TRADES[1])
        most = SHARE * rate * 125 * hops / 100 if self._setting.limited else np.inf
        while len(body := pack(trade)) > most and trade < MAX_TRADE:
            trade *= 1.5
        return body

"""The decoder's side: sound above 8 kHz, and two channels out of one.

The high band is the decoded 3.8 to 7.6 kHz, whitened and moved up, and noise with their temporal envelope, both shaped
by the levels of the file (after spectral band replication, ISO/IEC 14496-3, 4.6.18). The decorrelated copy of the mid
channel has its bins late by 10 to 30 ms and turning, in groups, and its level follows the mid channel's.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable, Iterator

import numpy as np

from ...format.container import GAIN_COPY, Packet
from ...format.parameters import HIGH_BANDS, HighBand, Stereo
from ...format.philox import UNIT, normals
from ..dsp.loudness import SPECIAL
from .high_band import OFF, levels_of
from .spectra import (
    CORE_BINS,
    CORE_RATE,
    CORE_STEREO_BANDS,
    FRAME_RATE,
    FRAMES_PER_HOP,
    FULL_BINS,
    FULL_RATE,
    HIGH_EDGES,
    OVERLAP,
    STEREO_EDGES,
    Analysis,
    Context,
    Synthesis,
    band_sums,
    moving_mean,
    power,
)
from .stereo import NEUTRAL, mixing_of

SOURCE = slice(76, 152)  # bins that are moved up, by their number and multiples of it: 3.8 to 7.6 kHz
WHITENED = 19  # bins, whose level is made even
RADIUS = 8  # frames on either side, over which it is
NOISE_FRAMES = 1024  # after which the noise repeats
NOISE_STREAM = 3  # of the generator of noise
SHAPING = 0.5  # of the source's temporal envelope that noise gets, in decibels
SILENT = 1e-12  # power of the source, per bin, below which it says nothing
GROUPS = np.array([0, 2, 4, 6, 8, 10, 13, 16, 20, 25, 30, 37, 44, 54, 64, 80, 96, 112, 128, 144, 161])  # bins
DELAYS = 3, 5, 2, 4, 6  # frames, of the groups in turn
TURNS = 6, -8, 7, -6, 8, -7  # a second, of the groups in turn: steady tones would stay coherent
FOLLOWED = 2  # frames on either side, over which levels are followed
MAX_FOLLOWED = 2.0
BLOCK_VALUES = 1 << 15  # of a block that is worked on at once
GLIDE = 4  # frames over which mixing changes


@functools.cache
def noise_frames() -> np.ndarray:
    """Spectra of white noise in the high band, [NOISE_FRAMES, bins]; one period of it."""
    hop = FULL_RATE // FRAME_RATE
    wave = normals(0, NOISE_STREAM, 0, np.zeros(1, np.int64), NOISE_FRAMES * hop).astype(np.float32) / UNIT
    spectra = Analysis(FULL_RATE, 1).push(np.concatenate([wave, wave[:, : OVERLAP * hop]], 1))
    return spectra[0, OVERLAP : OVERLAP + NOISE_FRAMES, HIGH_EDGES[0] : FULL_BINS].astype(np.complex64)


@functools.cache
def interpolation() -> np.ndarray:
    """Levels of bands -> levels of bins, [bands, bins]; linear between the middles of bands."""
    middles = (HIGH_EDGES[:-1] + HIGH_EDGES[1:] - 1) / 2
    bins = np.arange(HIGH_EDGES[0], FULL_BINS)
    return np.stack([np.interp(bins, middles, one) for one in np.eye(HIGH_BANDS)])


def extend(core: np.ndarray, levels: np.ndarray, noise: np.ndarray, time: np.ndarray) -> np.ndarray:
    """The high band of a channel, [T, bins].

    Args:
        core: spectra [T + 2 RADIUS, CORE_BINS] of the frames and those around them.
        levels: [T, bands] in dB. noise: [T], its share.
        time: [T] numbers of the frames.
    """
    source = core[:, SOURCE]
    energy = power(source).reshape(len(core), -1, WHITENED).sum(2) / WHITENED
    mean = moving_mean(energy[None], RADIUS)[0]
    own = slice(RADIUS, len(core) - RADIUS)
    whitened = source[own] / np.sqrt(np.repeat(mean, WHITENED, 1) + SILENT)
    heard = mean.mean(1)
    shape = ((energy[own].mean(1) + SILENT) / (heard + SILENT)) ** (SHAPING / 2)
    share = np.where(heard > SILENT, noise, 1.0)[:, None]
    made = (np.sqrt(share) * shape[:, None]) * noise_frames()[time % NOISE_FRAMES]
    made += np.sqrt(1 - share) * np.tile(whitened, 4)[:, : made.shape[1]]
    return made * 10 ** (levels @ interpolation() / 20)


def decorrelate(core: np.ndarray, time: int) -> np.ndarray:
    """A decorrelated copy of spectra [T, CORE_BINS], the same shape; its first frames lack what was before.

    Args:
        time: number of the first frame.
    """
    out, frames = np.zeros_like(core), np.arange(time, time + len(core))[:, None]
    for n, (begin, end) in enumerate(itertools.pairwise(GROUPS)):
        delay = DELAYS[n % len(DELAYS)]
        turned = np.exp(1j * np.pi * (n + 0.5 + 2 * frames[delay:] * TURNS[n % len(TURNS)] / FRAME_RATE))
        out[delay:, begin:end] = core[:-delay, begin:end] * turned
    edges = np.append(STEREO_EDGES[:CORE_STEREO_BANDS], CORE_BINS)
    follow, lead = (moving_mean(band_sums(power(z), edges)[None], FOLLOWED)[0] for z in (out, core))
    gain = np.minimum(np.sqrt((lead + SILENT) / (follow + SILENT)), MAX_FOLLOWED)
    out[FOLLOWED:-FOLLOWED] *= np.repeat(gain, np.diff(edges), 1)
    return out


class ParametricDecoder:
    """Blocks [C, n] of the core -> blocks with their high band and stereo image.

    Args:
        channels: of the file.
        rate: of the blocks that it gives: CORE_RATE, for the stereo image alone, or FULL_RATE.
        start: number of the first hop.
    """

    BEFORE = RADIUS + FOLLOWED + max(DELAYS)

    def __init__(self, channels: int, rate: int, start: int):
        self._channels, self._rate = channels, rate
        self._analysis, self._synthesis = Analysis(CORE_RATE, channels), Synthesis(rate, channels)
        self._context = Context(self.BEFORE, RADIUS + FOLLOWED)
        self._frame, self._time = 0, start * FRAMES_PER_HOP
        self._levels, self._noise = np.zeros((channels, 0, HIGH_BANDS)), np.zeros((channels, 0))
        self._mixing = NEUTRAL[None, :0]  # of frames, from GLIDE before the next one on
        self._doubled = np.zeros(0, bool)

    def add(
        self, hops: int, part: slice, packet: Packet | None, high_band: HighBand | None, stereo: Stereo | None
    ) -> None:
        """Parameters of the hops that follow: of a part of a packet of so many hops; None: it is missing."""
        levels, noise = np.full((self._channels, hops, HIGH_BANDS), OFF), np.zeros((self._channels, hops))
        if packet is not None and high_band is not None:
            tracks = iter(high_band.tracks)
            for c, gain in enumerate(packet.gains):
                if gain == GAIN_COPY:
                    levels[c], noise[c] = levels[c - 1], noise[c - 1]
                elif gain not in SPECIAL:
                    levels[c], noise[c] = levels_of(next(tracks), hops)
        if packet is None or not packet.coded:  # missing, or silent but for the end of what was before
            mixing = np.repeat(self._mixing[-1:] if self._mixing.size else NEUTRAL[None], hops, 0)
            doubled = np.full(hops, self._doubled[-1] if len(self._doubled) else False)
        else:
            mixing = np.repeat(NEUTRAL[None], hops, 0) if stereo is None else mixing_of(stereo, hops)
            doubled = np.full(hops, packet.doubled)
        if not self._mixing.size:
            self._mixing = np.repeat(mixing[part.start : part.start + 1], GLIDE, 0)
        frames = functools.partial(np.repeat, repeats=FRAMES_PER_HOP)
        self._levels = np.concatenate([self._levels, frames(levels[:, part], axis=1)], 1)
        self._noise = np.concatenate([self._noise, frames(noise[:, part], axis=1)], 1)
        self._mixing = np.concatenate([self._mixing, frames(mixing[part], axis=0)])
        self._doubled = np.concatenate([self._doubled, frames(doubled[part], axis=0)])

    def blocks(self, core: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """The same for a stream of blocks, each of whose parameters are added before it comes."""
        size = max(1, BLOCK_VALUES // self._channels)
        for block in core:
            for at in range(0, block.shape[1], size):
                yield self.push(block[:, at : at + size])
        if len(self._doubled):
            yield self.flush()

    def push(self, block: np.ndarray) -> np.ndarray:
        """Take samples, all of whose parameters were added; return those that are complete by now."""
        return self._run(self._analysis.push(block), False)

    def flush(self) -> np.ndarray:
        """The rest."""
        return self._run(self._analysis.flush(), True)

    def _run(self, spectra: np.ndarray, last: bool) -> np.ndarray:
        held = self._context.push(spectra, last)
        count = held.shape[1] - self.BEFORE - RADIUS - FOLLOWED
        if count <= 0:
            return np.zeros((self._channels, 0), np.float32)
        bins = FULL_BINS if self._rate == FULL_RATE else CORE_BINS
        out = np.zeros((self._channels, count, bins), np.complex64)
        # frame 0 is centred before the stream, and those at its end have no parameters of their own
        rows = np.clip(np.arange(count) - (self._frame == 0), 0, len(self._doubled) - 1)
        time = np.arange(self._frame, self._frame + count) + self._time
        own = slice(FOLLOWED + max(DELAYS), held.shape[1] - FOLLOWED)
        doubled = self._doubled[rows]
        single = not (doubled.all() and self._channels == 2)
        for c in range(self._channels if single else 1):
            self._fill(out[c], held[c, own], rows, time, c)
        if doubled.any():
            left, right = self._pair(held[0], rows, time, out[0])
            out[0, doubled], out[1, doubled] = left[doubled], right[doubled]
        used = min(count - (self._frame == 0), len(self._doubled) - 1)  # at the end of the stream one is kept
        self._levels, self._noise = self._levels[:, used:], self._noise[:, used:]
        self._mixing, self._doubled = self._mixing[used:], self._doubled[used:]
        self._frame += count
        return self._synthesis.push(out)

    def _fill(self, out: np.ndarray, core: np.ndarray, rows: np.ndarray, time: np.ndarray, channel: int = 0) -> None:
        """Put the spectra of a channel [T, bins] where they belong.

        Args:
            core: [T + 2 RADIUS, CORE_BINS].
        """
        out[:, : CORE_BINS - 1] = core[RADIUS:-RADIUS, : CORE_BINS - 1]
        levels = self._levels[channel, rows]
        if out.shape[1] > CORE_BINS and levels.max() > OFF:
            out[:, HIGH_EDGES[0] :] = extend(core, levels, self._noise[channel, rows], time)

    def _pair(
        self, held: np.ndarray, rows: np.ndarray, time: np.ndarray, middle: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Left and right spectra [T, bins] of the mid channel's."""
        other = np.zeros_like(middle)
        core = decorrelate(held, int(time[0]))[FOLLOWED + max(DELAYS) : len(held) - FOLLOWED]
        self._fill(other, core, rows, time + NOISE_FRAMES // 2)
        total = np.cumsum(np.concatenate([np.zeros_like(self._mixing[:1]), self._mixing]), 0)
        smooth = (total[rows + GLIDE + 1] - total[rows + 1]) / GLIDE
        edges = np.minimum(STEREO_EDGES, middle.shape[1])
        widths = np.diff(edges)
        a, b, e, phase = np.repeat(smooth, widths, 2).transpose(1, 0, 2).astype(np.complex64)
        return a * middle + e * other, (b * middle - e * other) * phase.conj()

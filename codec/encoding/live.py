"""Live encoding: blocks in, packets out."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from ...format import container
from ...format.container import Header
from ..audio.framing import Window
from ..audio.samples import check_layout, check_samples
from ..errors import AudioError
from ..fullband.encoder import DOWNMIX_SECONDS, ParametricEncoder, ParametricSettings
from ..torch_defaults import with_torch_defaults
from .analysis import AnalyzedPacket, Analyzer
from .encoder import Encoder, Gains
from .rate_control import BUDGET_MARGIN, COARSE_TOLERANCE, OperatingPoint
from .settings import EncodeSettings

END_BYTES = len(container.pack_end(0))
BURST_SECONDS = 2.56  # of bits that may be saved for later


class LiveEncoder:
    """Encodes a stream of unknown length; made by `Codec.stream`.

    With a quality, all packets have it, and their bytes are those of `Codec.encode`. With a bitrate, each has the
    finest quality for which the stream so far stays under it, header and all, or the coarsest; a stream of a few short
    packets whose last has hardly any sound may end some ten bytes above it.

    Attributes:
        sample_rate, channels: of what is pushed.
        samples: per channel, pushed so far.
        bytes: returned so far.
        latency: seconds from the first sample of a packet to its bytes, computing apart.
    """

    def __init__(
        self,
        analyzer: Analyzer,
        sample_rate: int,
        channels: int,
        settings: EncodeSettings,
        parametric: ParametricSettings,
        preamble: bytes = b"",
    ):
        check_layout(channels, sample_rate)
        self.sample_rate, self.channels, self.samples, self.bytes = sample_rate, channels, 0, 0
        model = analyzer.model
        self._analyzer, self._encoder, self._framer = analyzer, Encoder(model), analyzer.framer()
        self._parametric = ParametricEncoder(sample_rate, channels, parametric)
        self._level, self._bitrate = settings.level, settings.bitrate
        heard = analyzer.packet_hops + model.overlap + model.context
        self.latency = heard / container.HOPS_PER_SECOND + model.mel.pad / model.mel.sample_rate
        if self._parametric.mixes:
            self.latency += DOWNMIX_SECONDS
        header = Header(
            sample_rate=sample_rate,
            channels=self._parametric.channels,
            samples=None,
            quality=container.OWN_QUALITY if settings.level is None else settings.level,
            packet_hops=analyzer.packet_hops,
            model=model.fingerprint[:4],
            version=parametric.version,
        )
        self._pending = header.pack() + preamble  # goes out with the first block
        self._packets, self._seconds = 0, 0.0  # that are coded
        self._saved = -float(len(self._pending) + END_BYTES)  # bytes that later packets may take
        self._reserve = 0.0  # bytes for the last packet

    @with_torch_defaults
    def push(self, block: np.ndarray) -> bytes:
        """Take samples [C, n] or, of one channel, [n]; return the packets that are complete by now, perhaps none.

        Raises:
            AudioError: another number of channels; NaN, infinite or absurdly loud samples.
        """
        block = np.atleast_2d(np.asarray(block, np.float32))
        if block.ndim != 2 or len(block) != self.channels:
            raise AudioError(f"blocks must be [{self.channels}, n], not {block.shape}")
        check_samples(block)
        self.samples += block.shape[1]
        return self._encode(self._framer.push(self._parametric.push(block)))

    @with_torch_defaults
    def flush(self) -> bytes:
        """The rest, and the record that says how long it was.

        Raises:
            AudioError: nothing was pushed.
        """
        if not self.samples:
            raise AudioError("empty: no samples")
        windows = [*self._framer.push(self._parametric.flush()), *self._framer.flush()]
        data = self._encode(windows[:-1])
        self._saved, self._reserve = self._saved + self._reserve, math.inf  # nothing more is kept
        data += self._encode(windows[-1:])
        end = container.pack_end(self.samples)
        self.bytes += len(end)
        return data + end

    def _encode(self, windows: Iterable[Window]) -> bytes:
        data, self._pending = self._pending, b""
        for window in windows:
            [packet] = self._analyzer.analyze_windows([window])
            packet.parameters = self._parametric.records(self._packets, packet.hops, packet.gains)
            if self._level is not None:
                packets = self._encoder.compensated([packet], self._level)
                point = OperatingPoint.fixed(self._level)
                data += b"".join(self._encoder.records(packets, point, first=self._packets))
            else:
                data += self._fit(packet)
            self._packets += 1
        self.bytes += len(data)
        return data

    def _fit(self, packet: AnalyzedPacket) -> bytes:
        """A packet at the finest quality that the bitrate allows."""
        assert self._bitrate is not None
        rate, a_second = self._encoder.rate, self._bitrate * 125
        # the last packet is filled up with what nobody sent
        until = min(self._seconds + packet.hops / container.HOPS_PER_SECOND, self.samples / self.sample_rate)
        budget, self._seconds = a_second * (until - self._seconds), until
        least = 10 + 4 * self.channels  # bytes of a last packet of hardly any sound
        keep = max(0, min(least - self._reserve, budget / 32))
        self._reserve, self._saved = self._reserve + keep, self._saved - keep
        allowed = budget + self._saved
        fixed = 1 + len(packet.parameters)
        guess = rate.search(allowed - fixed, [packet], tolerance=COARSE_TOLERANCE)
        packets, gains = list(self._encoder.compensated([packet], guess.level)), Gains()

        def encode(point: OperatingPoint) -> bytes:
            records = self._encoder.records(packets, point, first=self._packets, own_quality=True, gains=gains)
            return b"".join(records)

        point = rate.search(BUDGET_MARGIN * allowed - fixed, packets, guess.rate)
        record = rate.encode_within(point, max(allowed, 1), encode, steer=False)
        self._saved = min(self._saved + budget - len(record), BURST_SECONDS * a_second)
        return record

"""Encoding while the sound is still being made: blocks in, packets out."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from ...format import container
from ...format.container import Header
from ..audio.framing import Window
from ..audio.reader import Resampler, check_samples
from ..errors import AudioError
from .analysis import Analysis
from .encoder import SURE, Encoder, Gains
from .loudness_compensation import raised
from .rate_control import ROUGHLY, setting, slower

END_BYTES = len(container.pack_end(0))
BURST = 2.56  # seconds' worth of bits that may be saved for later


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
        encoder: Encoder,
        sample_rate: int,
        channels: int,
        quality: int | None,
        bitrate: float | None,
        preamble: bytes = b"",
    ):
        self.sample_rate, self.channels, self.samples, self.bytes = sample_rate, channels, 0, 0
        model = encoder.model
        self._encoder, self._framer = encoder, encoder.framer()
        self._resampler = Resampler(sample_rate, model.mel.sample_rate, channels)
        self._quality, self._bitrate = quality, bitrate
        hops = encoder.packet_vectors * model.autoencoder.patch
        heard = hops + model.overlap + model.context
        self.latency = heard / container.HOPS_PER_SECOND + model.mel.pad / model.mel.sample_rate
        header = Header(
            sample_rate=sample_rate,
            channels=channels,
            samples=None,
            quality=container.OWN_QUALITY if quality is None else quality,
            packet_hops=hops,
            model=model.fingerprint[:4],
        )
        self._pending = header.pack() + preamble  # goes out with the first block
        self._packets, self._seconds = 0, 0.0  # that are coded
        self._saved, self._kept = -float(len(self._pending) + END_BYTES), 0.0  # bytes; the latter for the last packet

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
        return self._encode(self._framer.push(self._resampler.push(block)))

    def flush(self) -> bytes:
        """The rest, and the record that says how long it was.

        Raises:
            AudioError: nothing was pushed.
        """
        if not self.samples:
            raise AudioError("empty: no samples")
        windows = [*self._framer.push(self._resampler.flush()), *self._framer.flush()]
        data = self._encode(windows[:-1])
        self._saved, self._kept = self._saved + self._kept, math.inf  # nothing more is kept
        data += self._encode(windows[-1:])
        end = container.pack_end(self.samples)
        self.bytes += len(end)
        return data + end

    def _encode(self, windows: Iterable[Window]) -> bytes:
        data, self._pending = self._pending, b""
        for window in windows:
            [packet] = self._encoder.analyze_windows([window])
            if self._quality is not None:
                packets = raised(self._encoder.model, [packet], self._quality)
                data += b"".join(self._encoder.records(packets, self._quality, first=self._packets))
            else:
                data += self._fit(packet)
            self._packets += 1
        self.bytes += len(data)
        return data

    def _fit(self, packet: Analysis) -> bytes:
        """A packet at the finest quality that the bitrate allows."""
        assert self._bitrate is not None
        a_second = self._bitrate * 125
        # the last packet is filled up with what nobody sent
        until = min(self._seconds + packet.hops / container.HOPS_PER_SECOND, self.samples / self.sample_rate)
        budget, self._seconds = a_second * (until - self._seconds), until
        least = 10 + 4 * self.channels  # bytes of a last packet of hardly any sound
        keep = max(0, min(least - self._kept, budget / 32))
        self._kept, self._saved = self._kept + keep, self._saved - keep
        rate, _ = self._encoder.fit_bitrate(budget + self._saved - 1, [packet], unused=ROUGHLY)
        [packet] = raised(self._encoder.model, [packet], int(rate))
        rate, ratio = self._encoder.fit_bitrate(SURE * (budget + self._saved) - 1, [packet], rate)
        gains: Gains = {}
        while True:
            quality = (*setting(rate), ratio)
            found = self._encoder.records([packet], *quality, first=self._packets, own=True, gains=gains)
            record = b"".join(found)
            if len(record) <= budget + self._saved or rate == 0:
                break
            rate = slower(rate, len(record) / max(budget + self._saved, 1))
        self._saved = min(self._saved + budget - len(record), BURST * a_second)
        return record

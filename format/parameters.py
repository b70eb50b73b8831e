"""Parametric records of version 1.1: high band and stereo. Specified in spec/aldm-format.md, section 14.

A track is what a record says over the duration of its packet: segments, each with a vector of integers that holds for
its duration. The vectors are coded as differences to the one before, under the adaptive tables of section 5.1.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np

from .adaptive import State, bank
from .container import Packet
from .entropy import decode_vector, encode_vector, new_decoder, new_encoder, payload_errors, payload_of
from .errors import DamageError

UNIT_HOPS = 4  # durations of segments count units of 40 ms
DURATIONS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)  # of segments, in units; the last one of a packet may be cut
START_LEVEL = 40
HIGH_BANDS = 8
STEREO_BANDS = 14
MAX_LEVEL_DIFFERENCE = 15  # a difference of this magnitude or more: the other channel is silent
DECORRELATED = 7  # steps of coherence from 1 down to 0
PHASES = 8
# What the first vector of a record is relative to: noise, and the levels' DCT; level differences, coherences, phases.
FIRST_HIGH_BAND = (3, -70, 9, 0, 0, 0, 0, 0, 0)
FIRST_STEREO = (0,) * (3 * STEREO_BANDS)


@dataclass(frozen=True)
class Track:
    """Segments of a packet.

    Attributes:
        durations: [N] numbers of entries of DURATIONS.
        values: [N, P] int64.
    """

    durations: np.ndarray
    values: np.ndarray

    def expand(self, units: int) -> np.ndarray:
        """The values of each unit of the packet, [units, P]."""
        return np.repeat(self.values, np.take(DURATIONS, self.durations), 0)[:units]


def units_of(hops: int) -> int:
    """Units that a packet of so many hops has; the last one may be cut."""
    return -(-hops // UNIT_HOPS)


def encode_tracks(tracks: list[Track], first: tuple[int, ...]) -> bytes:
    """Payload of a record: tracks of equal duration, one after the other."""
    coder = new_encoder()
    for track in tracks:
        state = State(1 + len(first), 1 + len(first), START_LEVEL)
        steps = np.diff(track.values, axis=0, prepend=np.array([first]))
        for vector in np.concatenate([track.durations[:, None], steps], 1):
            encode_vector(coder, vector - state.centre, bank()[state.table])
            state.update(vector)
    return payload_of(coder)


def decode_tracks(payload: bytes, count: int, units: int, first: tuple[int, ...]) -> list[Track]:
    """Inverse of `encode_tracks`.

    Args:
        count: of tracks.
        units: that the segments of each track fill.

    Raises:
        DamageError: the payload does not decode.
    """
    coder, tracks = new_decoder(payload), []
    with payload_errors():
        for _ in range(count):
            state = State(1 + len(first), 1 + len(first), START_LEVEL)
            vectors, reached = list[np.ndarray](), 0
            while reached < units:
                vector = decode_vector(coder, bank()[state.table]) + state.centre
                if not 0 <= vector[0] < len(DURATIONS):
                    raise DamageError("damaged record: invalid duration of a segment")
                state.update(vector)
                vectors.append(vector)
                reached += DURATIONS[vector[0]]
            both = np.array(vectors, np.int64)
            tracks.append(Track(both[:, 0], np.cumsum(both[:, 1:], 0) + np.array(first)))
    return tracks


@dataclass(frozen=True)
class HighBand:
    """Body of a high band record: a track for each coded channel of its packet.

    Values of a segment: share of noise, 0 (none) to 3 (all); coefficients of the orthonormal DCT-II of the levels of
    HIGH_BANDS bands, in steps of 3 dB.
    """

    tracks: list[Track]

    def pack(self, number: int) -> bytes:
        """Body of the record of a packet of that number."""
        return bytes([number & 0xFF]) + encode_tracks(self.tracks, FIRST_HIGH_BAND)

    @classmethod
    def parse(cls, body: bytes, packet: Packet) -> HighBand:
        """Parse the body of the record of a packet.

        Raises:
            DamageError: it does not decode.
        """
        return cls(decode_tracks(body[1:], packet.coded, units_of(packet.hops), FIRST_HIGH_BAND))


@dataclass(frozen=True)
class Stereo:
    """Body of a stereo record: what makes two channels of one.

    Attributes:
        balance: level of the left channel above the right one, in steps of 1/8 dB, -128 .. 127.
        track: values of a segment, STEREO_BANDS of each: level differences (left above right) besides the balance, in
            steps of 2 dB; coherences, 0 (1.0) .. DECORRELATED (0.0); phases of left before right, in steps of pi / 4.
    """

    balance: int
    track: Track

    def pack(self, number: int) -> bytes:
        """Body of the record of a packet of that number."""
        return struct.pack("<Bb", number & 0xFF, self.balance) + encode_tracks([self.track], FIRST_STEREO)

    @classmethod
    def parse(cls, body: bytes, packet: Packet) -> Stereo:
        """Parse the body of the record of a packet.

        Raises:
            DamageError: it does not decode, or the packet has other than one coded channel and its copy.
        """
        if len(body) < 2:
            raise DamageError("damaged stereo record: too short")
        if not packet.doubled:
            raise DamageError("stereo record of a packet that is not one coded channel and its copy")
        (balance,) = struct.unpack_from("<b", body, 1)
        [track] = decode_tracks(body[2:], 1, units_of(packet.hops), FIRST_STEREO)
        return cls(balance, track)

"""The enhancement layer of a packet: parameters of a diffusion and the picks of its noise (DDCM). Spec, section 7."""

from __future__ import annotations

import struct
from dataclasses import astuple, dataclass

import numpy as np

from .errors import DamageError

FIELDS = struct.Struct("<2sBHHBBBBB")
MAX_TIMESTEPS = 1000
MAX_STEPS = 255
MAX_SPAN = 64
MAX_BITS = 14
MAX_ATOMS = 64


@dataclass(frozen=True)
class Layer:
    """Parameters of an enhancement layer.

    Attributes:
        denoiser: first 2 bytes of the fingerprint of the model's denoiser.
        seed: of the codebooks and of the initial noise, 0 .. 255.
        schedule: steps of a whole diffusion from pure noise, 1 .. 1000.
        first: number of the first step that is taken, 0 .. schedule - 1.
        steps: how many steps are taken, 1 .. 255. All but the last have picks; the last one's guess is the result.
        span: latent vectors in a block, 1 .. 64; the last block of a packet may be shorter.
        bits: a codebook has 2 ** bits atoms, 0 .. 14.
        atoms: picks for each block and step, 1 .. 64.
        level: quality of a base layer with as much error as the result has, 0 .. 254; for the autoencoder's decoder.
    """

    denoiser: bytes
    seed: int
    schedule: int
    first: int
    steps: int
    span: int
    bits: int
    atoms: int
    level: int

    def __post_init__(self) -> None:
        limits = {
            "seed": (0, 0xFF),
            "schedule": (1, MAX_TIMESTEPS),
            "first": (0, self.schedule - 1),
            "steps": (1, min(MAX_STEPS, self.schedule - self.first)),
            "span": (1, MAX_SPAN),
            "bits": (0, MAX_BITS),
            "atoms": (1, min(MAX_ATOMS, 1 << self.bits if 0 <= self.bits <= MAX_BITS else 1)),
            "level": (0, 254),
        }
        for name, (low, high) in limits.items():
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"DDCM layer: {name} is {low} to {high}, not {getattr(self, name)}")

    def shape(self, channels: int, vectors: int) -> tuple[int, int, int, int]:
        """Shape of the picks: channels, blocks, steps with picks, atoms."""
        return channels, -(-vectors // self.span), self.steps - 1, self.atoms

    def size(self, channels: int, vectors: int) -> int:
        """Size of the body for a packet, in bytes."""
        return FIELDS.size + -(-int(np.prod(self.shape(channels, vectors))) * (self.bits + 1) // 8)

    def pack(self, picks: np.ndarray) -> bytes:
        """Body of the layer record.

        Args:
            picks: [channels, blocks, steps - 1, atoms], twice the number of an atom, plus 1 if it is negated.
        """
        bits = picks.astype(np.int64)[..., None] >> np.arange(self.bits, -1, -1) & 1
        return FIELDS.pack(*astuple(self)) + np.packbits(bits.astype(np.uint8).ravel()).tobytes()

    @classmethod
    def parse(cls, body: bytes, channels: int, vectors: int) -> tuple[Layer, np.ndarray]:
        """Inverse of `pack`.

        Raises:
            DamageError: parameters out of range, or another number of picks than they ask for.
        """
        try:
            layer = cls(*FIELDS.unpack_from(body))
        except (ValueError, struct.error) as error:
            raise DamageError(f"damaged DDCM layer: {error}") from error
        if len(body) != layer.size(channels, vectors):
            raise DamageError(f"damaged DDCM layer: {len(body)} bytes instead of {layer.size(channels, vectors)}")
        shape = layer.shape(channels, vectors)
        bits = np.unpackbits(np.frombuffer(body, np.uint8, offset=FIELDS.size))[
            : int(np.prod(shape)) * (layer.bits + 1)
        ]
        # 16 bits each, since a record of 2 MB can hold 16 million picks
        return layer, bits.reshape(*shape, layer.bits + 1) @ (1 << np.arange(layer.bits, -1, -1)).astype(np.uint16)

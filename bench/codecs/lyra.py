"""Lyra v2 through its TFLite networks."""

from __future__ import annotations

import importlib.util
import time
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ..metrics import Wave
from .base import Coded, Missing, nearest


class Lyra:
    """Lyra v2 (speech at 16 kHz, 20 ms frames) through the TFLite networks of google/lyra in a folder; bare packets.

    Of its decoder only the networks run: no packet is lost, so that concealment and comfort noise have no part.
    """

    FRAME = 320  # samples
    BITS: ClassVar = {3.2: 64, 6.0: 120, 9.2: 184}  # of a frame, by kbit/s
    FILES = ("soundstream_encoder.tflite", "quantizer.tflite", "lyragan.tflite")

    def __init__(self, argument: str = ""):
        if not argument:
            raise Missing("name the folder of its networks, as lyra:FOLDER (google/lyra, lyra/model_coeffs)")
        if importlib.util.find_spec("ai_edge_litert") is None:
            raise Missing("the package ai-edge-litert is not installed")
        from ai_edge_litert.interpreter import Interpreter

        self.name = "lyra"
        paths = [Path(argument) / file for file in self.FILES]
        if lost := [path for path in paths if not path.is_file()]:
            raise Missing(f"there is no {lost[0]}")
        self.identity = " ".join(f"{zlib.crc32(path.read_bytes()):08x}" for path in paths)
        try:
            self.encoder, quantizer, self.decoder = (Interpreter(str(path), num_threads=1) for path in paths)
            self.quantize = quantizer.get_signature_runner("encode")
            self.dequantize = quantizer.get_signature_runner("decode")
        except (ValueError, RuntimeError) as error:
            raise Missing(f"the networks in {argument} cannot be loaded: {error}") from error

    def settings(self, bitrates: Sequence[float]) -> list[str]:
        return nearest(bitrates, list(self.BITS))

    def run(self, wave: Wave, setting: str, folder: Path) -> Coded:
        stages = self.BITS[float(setting)] // 4  # 16 code vectors each
        padded = np.pad(wave, (0, -len(wave) % self.FRAME)).clip(-1, 1)
        frames = np.trunc(padded * 32767).astype(np.float32).reshape(-1, 1, self.FRAME) / np.float32(32768)
        started = time.perf_counter()
        count = np.array(stages, np.int32)
        codes = [
            self.quantize(input_frames=features, num_quantizers=count)["output_0"][:stages]
            for features in self._stream(self.encoder, frames)
        ]
        encoded = time.perf_counter()
        indices = np.full((max(self.BITS.values()) // 4, 1, 1), -1, np.int32)  # -1: this stage was not sent
        features = []
        for code in codes:
            indices[:stages] = code.reshape(-1, 1, 1)
            features.append(self.dequantize(encoding_indices=indices)["output_0"])
        decoded = np.concatenate(list(self._stream(self.decoder, features)), axis=None)[: len(wave)]
        size = len(codes) * self.BITS[float(setting)] // 8
        return Coded(decoded.clip(-1, 1), size, encoded - started, time.perf_counter() - encoded)

    @staticmethod
    def _stream(network: Any, frames: Sequence[Wave]) -> Iterator[Wave]:
        """Outputs for inputs one after the other; the network remembers the ones before."""
        network.allocate_tensors()
        network.reset_all_variables()
        source, sink = network.get_input_details()[0]["index"], network.get_output_details()[0]["index"]
        for frame in frames:
            network.set_tensor(source, frame)
            network.invoke()
            yield network.get_tensor(sink)

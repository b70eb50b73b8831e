"""The codecs that can be compared, behind one small interface."""

from __future__ import annotations

import importlib.util
import math
import os
import shlex
import shutil
import signal
import subprocess
import tempfile
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
import soundfile as sf

from .metrics import SAMPLE_RATE, Wave

TIMEOUT = 600  # seconds for one command of another codec


class Missing(Exception):
    """A codec that cannot run here, and why."""


class CodecError(Exception):
    """A codec that failed on a clip."""


@dataclass
class Coded:
    """One clip through one codec.

    Attributes:
        size: bytes on disk, headers included; None for a ceiling, which writes nothing.
        container_bytes: of these, what belongs to a general container (Ogg).
        memory: peak resident bytes of the program that coded, where that is a program of its own.
    """

    decoded: Wave
    size: int | None
    encode_seconds: float
    decode_seconds: float
    container_bytes: int = 0
    memory: int | None = None


class AudioCodec(Protocol):
    """What the benchmark needs of a codec; made anew in every worker process."""

    name: str
    identity: str  # changes whenever old results are of no use

    def settings(self, bitrates: Sequence[float]) -> list[str]:
        """Names of the settings to run for the kbit/s that were asked for."""

    def run(self, wave: Wave, setting: str, folder: Path) -> Coded:
        """Code 16 kHz mono samples; `folder` is empty and for temporary files. Raises CodecError."""


def number(value: float) -> str:
    """A bitrate as the name of a setting."""
    return f"{value:g}"


def nearest(bitrates: Sequence[float], supported: Sequence[float]) -> list[str]:
    """Those of the supported rates that are nearest to the ones asked for."""
    return [number(r) for r in sorted({min(supported, key=lambda s: abs(np.log(s / b))) for b in bitrates})]


class Aldm:
    """This codec, in the same process; the argument names another model than the embedded default."""

    def __init__(self, argument: str = "", vocoder: str | None = None):
        from ..codec import Codec
        from ..codec.errors import ModelError
        from ..codec.model_folder import VOCODER, find_model, fingerprint

        self.name = "aldm" + (f":{argument}" if argument else "")
        try:
            folder = find_model(argument or None)
            self.codec = Codec.from_pretrained(folder, vocoder=vocoder)
        except ModelError as error:
            raise Missing(str(error)) from error
        weights = (folder / VOCODER).read_bytes() if (folder / VOCODER).exists() else b""
        self.identity = f"{fingerprint(folder).hex()} {zlib.crc32(weights):08x} {vocoder}"

    def settings(self, bitrates: Sequence[float]) -> list[str]:
        return [number(b) for b in bitrates]

    def run(self, wave: Wave, setting: str, folder: Path) -> Coded:
        started = time.perf_counter()
        data = self.codec.encode(wave, SAMPLE_RATE, bitrate=float(setting))
        encoded = time.perf_counter()
        decoded = self.codec.decode(data)[0]
        return Coded(decoded, len(data), encoded - started, time.perf_counter() - encoded)


class AldmDiffusion(Aldm):
    """This codec's embedded model with its denoiser: aldm-refine, aldm-both or aldm-ddcm; the argument is its steps."""

    def __init__(self, name: str, argument: str = ""):
        from ..codec.model_folder import DENOISER_FILES, find_model, fingerprint

        super().__init__()
        if argument and not argument.isdigit():
            raise ValueError(f"{name}:N has N steps of diffusion, not {argument!r}")
        if self.codec.model.denoiser is None:
            raise Missing("the model has no denoiser")
        self.name = name + (f":{argument}" if argument else "")
        self.mode, self.steps = name.removeprefix("aldm-"), int(argument) if argument else None
        self.identity += f" {fingerprint(find_model(None), DENOISER_FILES).hex()}"

    def run(self, wave: Wave, setting: str, folder: Path) -> Coded:
        refine = self.mode == "refine"
        steps = (self.steps or 10) if refine else self.steps
        options: dict[str, Any] = {} if refine else {"layers": self.mode, "steps": steps}
        try:
            started = time.perf_counter()
            data = self.codec.encode(wave, SAMPLE_RATE, bitrate=float(setting), **options)
            encoded = time.perf_counter()
            decoded = self.codec.decode(data, refine=steps if refine else 0)[0]
        except ValueError as error:
            raise CodecError(str(error)) from error
        return Coded(decoded, len(data), encoded - started, time.perf_counter() - encoded)


class AldmTokens(Aldm):
    """The tokens of this codec's vector codebook, packed to bits, and 2 bytes that say how loud the clip is."""

    def __init__(self, name: str, argument: str = ""):
        super().__init__(argument)
        if self.codec.model.vector_codebook is None:
            raise Missing("the model has no vector codebook")
        self.name = name + (f":{argument}" if argument else "")
        self.identity += f" {zlib.crc32(self.codec.model.vector_codebook.codes.tobytes()):08x}"

    def settings(self, bitrates: Sequence[float]) -> list[str]:
        return ["tokens"]

    def run(self, wave: Wave, setting: str, folder: Path) -> Coded:
        started = time.perf_counter()
        tokens = self.codec.tokens(wave, SAMPLE_RATE, codebook="vq")
        encoded = time.perf_counter()
        decoded = self.codec.detokenize(tokens, codebook="vq")[0, : len(wave)]
        decoded *= np.float32(np.linalg.norm(wave) / max(float(np.linalg.norm(decoded)), 1e-9))
        size = -(-tokens.numel() * 10 // 8) + 2
        return Coded(decoded, size, encoded - started, time.perf_counter() - encoded)


class ExactMel(Aldm):
    """Ceiling of the vocoder: the exact log-mel, through the network if the model has one, and Griffin-Lim."""

    def __init__(self, argument: str = "", vocoder: str | None = None):
        super().__init__(argument, vocoder)
        self.name = "exact-mel" + (f":{argument}" if argument else "")

    def settings(self, bitrates: Sequence[float]) -> list[str]:
        return ["ceiling"]

    def run(self, wave: Wave, setting: str, folder: Path) -> Coded:
        started = time.perf_counter()
        decoded = self._synthesize(wave)
        return Coded(decoded, None, 0.0, time.perf_counter() - started)

    def _mel(self, mel: Any) -> Any:
        return mel

    def _synthesize(self, wave: Wave) -> Wave:
        """As `Encoder` and `Decoder` do it, in one packet and without quantisation."""
        import torch

        from ..codec.levels import step_size
        from ..codec.values import Frames

        model = self.codec.model
        gain = 0.5 / max(float(np.abs(wave).max()), 1e-5)
        padded = np.pad(wave, (0, -len(wave) % model.patch_samples), mode="symmetric") * np.float32(gain)
        with torch.inference_mode():
            mel = self._mel(model.mel(torch.from_numpy(padded)[None]))
            finest = float(step_size(model.codebook.levels - 1))
            decoded = model.synthesize(Frames.of(model.magnitudes(mel, torch.full((1,), finest)), finest))[0]
        return decoded[: len(wave)].numpy() / np.float32(gain)


class Unquantized(ExactMel):
    """Ceiling of the autoencoder: its latents as they are."""

    def __init__(self, argument: str = ""):
        super().__init__(argument)
        self.name = "unquantized" + (f":{argument}" if argument else "")

    def _mel(self, mel: Any) -> Any:
        import torch

        from ..codec.levels import step_size

        autoencoder = self.codec.model.autoencoder
        finest = torch.full((1,), float(step_size(self.codec.levels - 1)))
        return autoencoder.decode(autoencoder.encode(mel), finest)


def run_command(command: Sequence[str] | str, timeout: float = TIMEOUT) -> tuple[float, int]:
    """Run a program; its seconds and peak resident bytes. A string goes to the shell.

    Raises:
        CodecError: it failed, or took longer than `timeout` seconds.
    """
    started = time.perf_counter()
    shell = isinstance(command, str)
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            command, shell=shell, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
        timer = threading.Timer(timeout, os.killpg, (process.pid, signal.SIGKILL))
        timer.start()
        try:
            _, status, usage = os.wait4(process.pid, 0)
        finally:
            timer.cancel()
        process.returncode = os.waitstatus_to_exitcode(status)
        took = time.perf_counter() - started
        if process.returncode:
            log.seek(0)
            last = log.read().decode(errors="replace").strip().splitlines()[-1:]
            name = command.split()[0] if isinstance(command, str) else command[0]
            raise CodecError(f"{name} ended with {process.returncode}: {' '.join(last) or 'it said nothing'}")
    return took, usage.ru_maxrss * 1024


def read_output(path: Path, count: int) -> Wave:
    """Samples that a codec's program wrote, at 16 kHz and mono.

    Raises:
        CodecError: nothing there, or not audio.
    """
    if not path.exists() or not path.stat().st_size:
        raise CodecError("its decoder wrote nothing")
    try:
        wave, rate = sf.read(path, dtype="float32", always_2d=True)
    except sf.SoundFileError as error:
        raise CodecError(f"its decoder wrote no audio: {error}") from error
    return to_16k(wave.mean(1), rate, count)


def to_16k(wave: Wave, rate: int, count: int) -> Wave:
    """Resampled from `rate`; `count` is how many samples are wanted, for the error message alone."""
    import soxr

    if not len(wave) or not np.isfinite(wave).all():
        raise CodecError(f"its decoder gave {len(wave)} samples, not {count} that are numbers")
    return wave if rate == SAMPLE_RATE else soxr.resample(wave, rate, SAMPLE_RATE)


class Commands:
    """Any codec that is a pair of shell commands with {in}, {bits}, {out} and {bitrate} (kbit/s) in them."""

    def __init__(self, name: str, encode: str, decode: str, version: str = ""):
        self.name, self.encode, self.decode = name, encode, decode
        self.identity = f"{encode} {decode} {version}"

    def settings(self, bitrates: Sequence[float]) -> list[str]:
        return [number(b) for b in bitrates] if "{bitrate}" in self.encode else ["-"]

    def container_bytes(self, data: bytes) -> int:
        """Of a file, what belongs to a general container."""
        return 0

    def run(self, wave: Wave, setting: str, folder: Path) -> Coded:
        source, bits, out = (folder / name for name in ("in.wav", "bits", "out.wav"))
        sf.write(source, wave, SAMPLE_RATE, subtype="PCM_16")
        names = {"{in}": source, "{bits}": bits, "{out}": out}
        commands = []
        for command in (self.encode, self.decode):
            for name, path in names.items():
                command = command.replace(name, shlex.quote(str(path)))
            commands.append(command.replace("{bitrate}", setting))
        encode_seconds, encode_memory = run_command(commands[0])
        if not bits.exists():
            raise CodecError("its encoder wrote nothing")
        data = bits.read_bytes()
        decode_seconds, decode_memory = run_command(commands[1])
        return Coded(
            read_output(out, len(wave)),
            len(data),
            encode_seconds,
            decode_seconds,
            self.container_bytes(data),
            max(encode_memory, decode_memory),
        )


def program(name: str) -> str:
    """Path of a program. Raises Missing."""
    path = shutil.which(name)
    if path is None:
        raise Missing(f"the program {name} is not installed")
    return path


class Opus(Commands):
    """Opus through opus-tools: 60 ms frames, no padding, no comments."""

    LOWEST, HIGHEST = 6.0, 256.0  # kbit/s that opusenc takes

    def __init__(self) -> None:
        options = "--quiet --framesize 60 --padding 0 --discard-comments --discard-pictures"
        version = subprocess.run([program("opusenc"), "--version"], capture_output=True, text=True).stdout
        super().__init__(
            "opus",
            f"{program('opusenc')} --bitrate {{bitrate}} {options} {{in}} {{bits}}",
            f"{program('opusdec')} --quiet --rate {SAMPLE_RATE} {{bits}} {{out}}",
            version,
        )

    def settings(self, bitrates: Sequence[float]) -> list[str]:
        return [number(b) for b in sorted({min(self.HIGHEST, max(self.LOWEST, b)) for b in bitrates})]

    def container_bytes(self, data: bytes) -> int:
        return ogg_overhead(data)


def ogg_overhead(data: bytes) -> int:
    """Bytes of an Ogg Opus file that are not audio packets: page headers, OpusHead and OpusTags (RFC 3533, 7845)."""
    position, packets, size = 0, [0], len(data)
    while data[position : position + 4] == b"OggS":
        count = data[position + 26]
        lacing = data[position + 27 : position + 27 + count]
        for length in lacing:
            packets[-1] += length
            if length < 255:
                packets.append(0)
        position += 27 + count + sum(lacing)
    return size - sum(packets[2:])


class Codec2(Commands):
    """Codec 2 through its c2enc and c2dec: speech at 8 kHz, headerless packets."""

    MODES: ClassVar = {0.7: "700C", 1.2: "1200", 1.3: "1300", 1.6: "1600", 2.4: "2400", 3.2: "3200"}

    def __init__(self) -> None:
        super().__init__("codec2", "{bitrate}", "")
        self.encoder, self.decoder = program("c2enc"), program("c2dec")

    def settings(self, bitrates: Sequence[float]) -> list[str]:
        return nearest(bitrates, list(self.MODES))

    def run(self, wave: Wave, setting: str, folder: Path) -> Coded:
        import soxr

        source, bits, out = (folder / name for name in ("in.raw", "bits", "out.raw"))
        (soxr.resample(wave, SAMPLE_RATE, 8000).clip(-1, 1) * 32767).astype("<i2").tofile(source)
        mode = self.MODES[float(setting)]
        encode_seconds, encode_memory = run_command([self.encoder, mode, str(source), str(bits)])
        decode_seconds, decode_memory = run_command([self.decoder, mode, str(bits), str(out)])
        decoded = np.fromfile(out, "<i2").astype(np.float32) / np.float32(32768)
        memory = max(encode_memory, decode_memory)
        return Coded(to_16k(decoded, 8000, len(wave)), bits.stat().st_size, encode_seconds, decode_seconds, 0, memory)


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


class Original:
    """The clip itself: what metrics without a reference give to it is the best that a codec can hope for."""

    name = "original"
    identity = ""

    def settings(self, bitrates: Sequence[float]) -> list[str]:
        return ["ceiling"]

    def run(self, wave: Wave, setting: str, folder: Path) -> Coded:
        return Coded(wave, None, 0.0, 0.0)


@dataclass(frozen=True)
class Checkpoint:
    """A codec of transformers: where its weights are, and how its codes become bits."""

    classname: str
    hub: str
    rates: Callable[[Any], list[float]]  # kbit/s by number of codebooks, from the model's config
    options: Callable[[int, float], dict[str, Any]]  # of encode(), from number of codebooks and rate


def _rates(config: Any, frame_rate: float, codebooks: int, entries: int) -> list[float]:
    return [n * frame_rate * math.log2(entries) / 1000 for n in range(1, codebooks + 1)]


CHECKPOINTS = {
    "encodec": Checkpoint(
        "EncodecModel",
        "facebook/encodec_24khz",
        lambda c: list(c.target_bandwidths),
        lambda n, rate: {"bandwidth": rate},
    ),
    "dac": Checkpoint(
        "DacModel",
        "descript/dac_16khz",
        lambda c: _rates(c, c.sampling_rate / c.hop_length, c.n_codebooks, c.codebook_size),
        lambda n, rate: {"n_quantizers": n},
    ),
    "mimi": Checkpoint(
        "MimiModel",
        "kyutai/mimi",
        lambda c: _rates(c, c.frame_rate, c.num_quantizers, c.codebook_size),
        lambda n, rate: {"num_quantizers": n},
    ),
}


class TransformersCodec:
    """EnCodec, DAC or Mimi through transformers, from the local cache, the hub, or a folder; codes packed to bits."""

    def __init__(self, kind: str, argument: str = ""):
        if importlib.util.find_spec("transformers") is None:
            raise Missing("the package transformers is not installed")
        import transformers

        self.kind = CHECKPOINTS[kind]
        self.name = kind
        where = argument or self.kind.hub
        try:
            self.model = getattr(transformers, self.kind.classname).from_pretrained(where).eval()
        except (OSError, ValueError) as error:
            raise Missing(f"the weights of {where} are neither in the cache nor reachable") from error
        self.identity = f"{where} {transformers.__version__}"
        self.rates = self.kind.rates(self.model.config)

    def settings(self, bitrates: Sequence[float]) -> list[str]:
        return nearest(bitrates, self.rates)

    def run(self, wave: Wave, setting: str, folder: Path) -> Coded:
        import soxr
        import torch

        config = self.model.config
        rate = config.sampling_rate
        target = min(self.rates, key=lambda r: abs(r - float(setting)))
        options = self.kind.options(self.rates.index(target) + 1, target)
        samples = torch.from_numpy(soxr.resample(wave, SAMPLE_RATE, rate).astype(np.float32))[None, None]
        with torch.inference_mode():
            started = time.perf_counter()
            encoded = self.model.encode(samples, **options)
            codes = encoded.audio_codes
            done = time.perf_counter()
            if "audio_scales" in encoded:
                decoded = self.model.decode(codes, encoded.audio_scales)[0]
            else:
                decoded = self.model.decode(audio_codes=codes)[0]
            ended = time.perf_counter()
        size = math.ceil(codes.numel() * math.log2(config.codebook_size) / 8)
        decoded = to_16k(decoded.reshape(-1).numpy(), rate, len(wave))
        return Coded(decoded, size, done - started, ended - done)


DIFFUSIONS = ("aldm-refine", "aldm-both", "aldm-ddcm")
CEILINGS = ("exact-mel", "unquantized", "original")
NAMES = ("aldm", *DIFFUSIONS, "aldm-vq", *CEILINGS, "opus", "codec2", "lyra", *CHECKPOINTS)


def make_codec(spec: str) -> AudioCodec:
    """A codec from "NAME" or "NAME:ARGUMENT", a model or folder.

    Raises:
        Missing: it cannot run here.
        ValueError: no such codec.
    """
    name, _, argument = spec.partition(":")
    if name in DIFFUSIONS:
        return AldmDiffusion(name, argument)
    if name == "aldm-vq":
        return AldmTokens(name, argument)
    if name in CHECKPOINTS:
        return TransformersCodec(name, argument)
    simple: dict[str, Callable[..., AudioCodec]] = {
        "aldm": Aldm, "exact-mel": ExactMel, "unquantized": Unquantized, "lyra": Lyra,
    }  # fmt: skip
    if name in simple:
        return simple[name](argument)
    alone: dict[str, Callable[[], AudioCodec]] = {"original": Original, "opus": Opus, "codec2": Codec2}
    if name in alone and not argument:
        return alone[name]()
    raise ValueError(f"no codec {spec!r}; there are {', '.join(NAMES)}")

"""Codecs that are programs: an encoder and a decoder, run as a user does."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import soundfile as sf

from ..metrics import SAMPLE_RATE, Wave
from .base import CodecError, Coded, Missing, number

TIMEOUT = 600  # seconds for one command of another codec


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


def read_output(path: Path, rate: int, count: int) -> Wave:
    """Samples [C, N] at `rate` that a codec's program wrote.

    Raises:
        CodecError: nothing there, or not audio.
    """
    if not path.exists() or not path.stat().st_size:
        raise CodecError("its decoder wrote nothing")
    try:
        wave, own = sf.read(path, dtype="float32", always_2d=True)
    except sf.SoundFileError as error:
        raise CodecError(f"its decoder wrote no audio: {error}") from error
    return resample(wave, own, rate, count).T


def resample(wave: Wave, rate: int, target: int, count: int) -> Wave:
    """[N] or [N, C] from one rate to another; `count` is how many samples are wanted, for the error message alone."""
    import soxr

    if not len(wave) or not np.isfinite(wave).all():
        raise CodecError(f"its decoder gave {len(wave)} samples, not {count} that are numbers")
    return wave if rate == target else soxr.resample(wave, rate, target)


class Commands:
    """Any codec that is a pair of shell commands with {in}, {bits}, {out}, {bitrate} (kbit/s) and {rate} (Hz)."""

    def __init__(self, name: str, encode: str, decode: str, version: str = ""):
        self.name, self.encode, self.decode = name, encode, decode
        self.identity = f"{encode} {decode} {version}"

    def settings(self, bitrates: Sequence[float]) -> list[str]:
        return [number(b) for b in bitrates] if "{bitrate}" in self.encode else ["-"]

    def container_bytes(self, data: bytes) -> int:
        """Of a file, what belongs to a general container."""
        return 0

    def run(self, wave: Wave, setting: str, folder: Path) -> Coded:
        coded = self.run_fullband(wave[None], SAMPLE_RATE, setting, folder)
        return replace(coded, decoded=coded.decoded.mean(0))

    def run_fullband(self, wave: Wave, rate: int, setting: str, folder: Path) -> Coded:
        source, bits, out = (folder / name for name in ("in.wav", "bits", "out.wav"))
        sf.write(source, wave.T, rate, subtype="PCM_16")
        names = {"{in}": source, "{bits}": bits, "{out}": out}
        commands = []
        for command in (self.encode, self.decode):
            for name, path in names.items():
                command = command.replace(name, shlex.quote(str(path)))
            commands.append(command.replace("{bitrate}", setting).replace("{rate}", str(rate)))
        encode_seconds, encode_memory = run_command(commands[0])
        if not bits.exists():
            raise CodecError("its encoder wrote nothing")
        data = bits.read_bytes()
        decode_seconds, decode_memory = run_command(commands[1])
        return Coded(
            read_output(out, rate, wave.shape[1]),
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

"""Griffin-Lim, and behind it the network that corrects it, over a stream."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor

from ..device import bfloat16
from ..dsp.loudness import audible_energy
from ..dsp.mel import LogMel
from ..dsp.stft import glide
from ..levels import COARSEST_STEP
from ..nn.corrector import STRIDE, Corrector
from ..values import Frames
from .griffin_lim import GriffinLim


class CorrectedGriffinLim:
    """Waveform of a stream of frames, in chunks that continue each other without a seam: a model's renderer."""

    def __init__(self, mel: LogMel, corrector: Corrector):
        self.griffin_lim = GriffinLim(mel)
        self.correction = Correction(mel, corrector)
        self._gain: Tensor | None = None  # [C, 1], at the end of what came out

    def push(self, frames: Frames) -> Tensor:
        """Take frames with STFT magnitudes; return the waveform [C, N] that is settled by now."""
        self.correction.expect(frames)
        return self._match_level(*self.correction.push(self.griffin_lim.push(frames.magnitudes)))

    def flush(self) -> Tensor:
        """The rest, after the last frame."""
        return self._match_level(*self.correction.push(self.griffin_lim.flush(), last=True))

    def __copy__(self) -> CorrectedGriffinLim:
        other = CorrectedGriffinLim.__new__(CorrectedGriffinLim)
        inner = dict(griffin_lim=copy.copy(self.griffin_lim), correction=copy.copy(self.correction))
        other.__dict__.update(self.__dict__, **inner)
        return other

    def _match_level(self, corrected: Tensor, given: Tensor) -> Tensor:
        """Make what is corrected as loud as what Griffin-Lim gave."""
        if not corrected.shape[1]:
            return corrected
        mel = self.griffin_lim.mel
        spectra = (mel.spectrum(F.pad(wave, (mel.pad, mel.pad))) for wave in (corrected, given))
        energy, wanted = (audible_energy(spectrum.abs()) for spectrum in spectra)
        before, self._gain = self._gain, (wanted / energy).clamp(0.25, 4).sqrt()[:, None]
        return glide(corrected, before, self._gain)


class Correction:
    """The corrector over a stream: each piece sees as much before and behind it as makes a difference."""

    def __init__(self, mel: LogMel, net: Corrector):
        self.mel, self.net = mel, net
        self._frames: Frames | None = None  # that are held
        self._wave: Tensor | None = None  # [C, N], from the short front-end's `pad` before these frames on
        self._before = 0  # how many of these frames are done

    def expect(self, frames: Frames) -> None:
        """Frames whose waveform will come."""
        self._frames = frames if self._frames is None else Frames.stack([self._frames, frames], -1)

    def push(self, wave: Tensor, last: bool = False) -> tuple[Tensor, Tensor]:
        """Take a waveform [C, N] that continues; return what is corrected by now, [C, M], and what it was."""
        assert self._frames is not None
        hop, pad, context = self.mel.hop_length, self.net.short.pad, self.net.context
        self._wave = F.pad(wave, (pad, 0)) if self._wave is None else torch.cat([self._wave, wave], 1)
        if last:
            count = ends = self._frames.count
            self._wave = F.pad(self._wave, (0, pad + STRIDE * hop))
        else:
            count = (self._wave.shape[1] - 2 * pad) // hop // STRIDE * STRIDE
            ends = count - context
            if ends <= self._before:
                return wave[:, :0], wave[:, :0]
        uneven = (0, count % STRIDE)
        frames = self._frames.map(lambda field: F.pad(field[..., :count], uneven, mode="replicate"))
        silent = frames.scale <= 0
        scale = frames.scale.masked_fill(silent, 1)
        step = torch.where(silent, COARSEST_STEP, frames.scaled_step / frames.scale.clamp(min=1e-20))
        with bfloat16(wave.device.type):
            decoded = self.net(
                self._wave[:, : frames.count * hop + 2 * pad], frames.magnitudes, step[:, 0], scale[:, 0]
            )
        done = slice(self._before * hop, ends * hop)
        decoded, given = decoded[:, done], self._wave[:, pad:][:, done]
        drop = max(0, ends - context)
        # Copies: parts of them would keep the whole in memory, for each channel
        self._frames = self._frames.map(lambda field: field[..., drop:].clone())
        self._wave = self._wave[:, drop * hop :].clone()
        self._before = ends - drop
        return decoded, given

"""Griffin-Lim, and behind it the network that corrects it, over a stream."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor

from ..device import bfloat16
from ..dsp.loudness import audible_energy
from ..dsp.mel import LogMel
from ..dsp.stft import ramp
from ..levels import COARSEST_STEP
from ..nn.corrector import STRIDE, Corrector
from .griffin_lim import GriffinLim


class Vocoder:
    """Waveform of a stream of frames, in chunks that continue each other without a seam.

    A frame is n_fft // 2 + 1 magnitudes, then what normalised ones have been multiplied by, then the quantiser's step
    multiplied by that as well; all of them 0 in silence.
    """

    def __init__(self, mel: LogMel, corrector: Corrector):
        self.griffin_lim = GriffinLim(mel)
        self.correction = Correction(mel, corrector)
        self._gain: Tensor | None = None  # [C, 1], at the end of what came out

    def push(self, frames: Tensor) -> Tensor:
        """Take frames [C, n_fft // 2 + 3, T]; return the waveform [C, N] that is settled by now."""
        magnitudes, scale, step = frames[:, :-2], frames[:, -2], frames[:, -1]
        silent = scale <= 0
        step = torch.where(silent, COARSEST_STEP, step / scale.clamp(min=1e-20))
        self.correction.expect(magnitudes, scale.masked_fill(silent, 1), step)
        return self._level(*self.correction.push(self.griffin_lim.push(magnitudes)))

    def flush(self) -> Tensor:
        """The rest, after the last frame."""
        return self._level(*self.correction.push(self.griffin_lim.flush(), last=True))

    def __copy__(self) -> Vocoder:
        other = Vocoder.__new__(Vocoder)
        inner = dict(griffin_lim=copy.copy(self.griffin_lim), correction=copy.copy(self.correction))
        other.__dict__.update(self.__dict__, **inner)
        return other

    def _level(self, corrected: Tensor, given: Tensor) -> Tensor:
        """Make what is corrected as loud as what Griffin-Lim gave, gliding to the new gain."""
        if not corrected.shape[1]:
            return corrected
        mel = self.griffin_lim.mel
        spectra = (mel.spectrum(F.pad(wave, (mel.pad, mel.pad))) for wave in (corrected, given))
        energy, wanted = (audible_energy(spectrum.abs()) for spectrum in spectra)
        gain = (wanted / energy).clamp(0.25, 4).sqrt()[:, None]
        before = gain if self._gain is None else self._gain
        self._gain = gain
        return corrected * torch.lerp(before, gain, ramp(corrected.shape[1], corrected))


class Correction:
    """The corrector over a stream: each piece sees as much before and behind it as makes a difference."""

    def __init__(self, mel: LogMel, net: Corrector):
        self.mel, self.net = mel, net
        self._sides: Tensor | None = None  # [C, n_fft // 2 + 3, T]: magnitudes, step and scale of the frames held
        self._wave: Tensor | None = None  # [C, N], from the short front-end's `pad` before these frames on
        self._before = 0  # how many of these frames are done

    def expect(self, magnitudes: Tensor, scale: Tensor, step: Tensor) -> None:
        """Frames whose waveform will come."""
        sides = torch.cat([magnitudes, step[:, None], scale[:, None]], 1)
        self._sides = sides if self._sides is None else torch.cat([self._sides, sides], 2)

    def push(self, wave: Tensor, last: bool = False) -> tuple[Tensor, Tensor]:
        """Take a waveform [C, N] that continues; return what is corrected by now, [C, M], and what it was."""
        assert self._sides is not None
        hop, pad, context = self.mel.hop_length, self.net.short.pad, self.net.context
        self._wave = F.pad(wave, (pad, 0)) if self._wave is None else torch.cat([self._wave, wave], 1)
        if last:
            count = ends = self._sides.shape[2]
            self._wave = F.pad(self._wave, (0, pad + STRIDE * hop))
        else:
            count = (self._wave.shape[1] - 2 * pad) // hop // STRIDE * STRIDE
            ends = count - context
            if ends <= self._before:
                return wave[:, :0], wave[:, :0]
        sides = F.pad(self._sides[..., :count], (0, count % STRIDE), mode="replicate")
        magnitudes, step, scale = sides[:, :-2], sides[:, -2], sides[:, -1]
        with bfloat16(wave.device.type):
            decoded = self.net(self._wave[:, : sides.shape[2] * hop + 2 * pad], magnitudes, step, scale)
        done = slice(self._before * hop, ends * hop)
        decoded, given = decoded[:, done], self._wave[:, pad:][:, done]
        drop = max(0, ends - context)
        # Copies: parts of them would keep the whole in memory, for each channel
        self._sides, self._wave = self._sides[..., drop:].clone(), self._wave[:, drop * hop :].clone()
        self._before = ends - drop
        return decoded, given

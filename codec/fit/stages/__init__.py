"""Stages of recipes, by kind: each makes or trains some parts of a model."""

from __future__ import annotations

from .autoencoder import TrainAutoencoder
from .base import Job, Stage, TrainingStage
from .channel_steps import ChannelSteps
from .corrector import TrainCorrector
from .denoiser import TrainDenoiser
from .grow import Grow
from .klt import Klt
from .magnitudes import TrainMagnitudes
from .predictor import TrainPredictor
from .tables import FitTables
from .tokens import FitTokens

STAGES: dict[str, type[Stage]] = {
    stage.kind: stage
    for stage in (
        *(Klt, Grow, TrainAutoencoder, ChannelSteps, TrainPredictor, FitTables),
        *(TrainMagnitudes, TrainCorrector, TrainDenoiser, FitTokens),
    )
}

__all__ = ["STAGES", "Job", "Stage", "TrainingStage"]

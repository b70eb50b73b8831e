"""A model in training: its parts, as far as stages have made them, and how they are stored between stages."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np
import torch
from torch import nn

from ...format.entropy import Tables
from ..diffusion.denoiser import Denoiser
from ..dsp.mel import LogMel
from ..model import Model
from ..nn.autoencoder import Autoencoder
from ..nn.corrector import Corrector
from ..nn.magnitude_net import MagnitudeNet
from ..nn.predictor import Predictor
from ..quantization.scalar import ScalarCodebook
from ..quantization.vector import VectorCodebook

NETWORKS: dict[str, type[nn.Module]] = dict(
    autoencoder=Autoencoder,
    predictor=Predictor,
    magnitude_net=MagnitudeNet,
    corrector=Corrector,
    denoiser=Denoiser,
)
WITH_MEL = ("magnitude_net", "corrector")  # networks whose constructors take the front-end first


@dataclass
class Draft:
    """Parts of a model; None: not made yet, or not part of it.

    Attributes:
        sizes: options of new networks, by part.
        step_scales: [levels, C], factors on the quantiser's steps.
    """

    mel: LogMel
    default_quality: int = 24
    sizes: dict[str, dict[str, Any]] = field(default_factory=dict)
    autoencoder: Autoencoder | None = None
    step_scales: np.ndarray | None = None
    predictor: Predictor | None = None
    tables: Tables | None = None
    magnitude_net: MagnitudeNet | None = None
    corrector: Corrector | None = None
    denoiser: Denoiser | None = None
    vector_codebook: VectorCodebook | None = None

    @classmethod
    def of(cls, model: Model) -> Draft:
        """The parts of a model that exists."""
        names = ("autoencoder", "magnitude_net", "corrector", "denoiser", "vector_codebook")
        parts = {name: getattr(model, name) for name in names}
        parts |= {name: getattr(model.codebook, name) for name in ("step_scales", "predictor", "tables")}
        return cls(model.mel, model.default_quality, **parts)

    def model(self) -> Model | None:
        """A model of the parts, or None: some that it needs are not there."""
        if self.autoencoder is None or self.tables is None:
            return None
        networks = (self.magnitude_net, self.corrector, self.denoiser, self.vector_codebook)
        return Model(self.mel, self.autoencoder, self.codebook(), self.default_quality, *networks)

    def codebook(self) -> ScalarCodebook:
        """The scalar codebook: step scales, tables, and the predictor if there is one.

        Raises:
            ValueError: no tables.
        """
        if self.step_scales is None or self.tables is None:
            raise ValueError("there are no tables yet: a stage of kind tables must come before")
        return ScalarCodebook(self.step_scales, self.tables, self.predictor)

    @overload
    def require(self, name: Literal["autoencoder"]) -> Autoencoder: ...
    @overload
    def require(self, name: Literal["predictor"]) -> Predictor: ...
    @overload
    def require(self, name: Literal["magnitude_net"]) -> MagnitudeNet: ...
    @overload
    def require(self, name: Literal["corrector"]) -> Corrector: ...
    @overload
    def require(self, name: Literal["denoiser"]) -> Denoiser: ...
    @overload
    def require(self, name: Literal["step_scales"]) -> np.ndarray: ...
    @overload
    def require(self, name: str) -> Any: ...
    def require(self, name: str) -> Any:
        """A part.

        Raises:
            ValueError: it does not exist yet.
        """
        if (part := getattr(self, name)) is None:
            raise ValueError(f"there is no {name} yet: the stage that makes it must come before")
        return part

    def new(self, name: str, **more: Any) -> None:
        """Make a new network of the recipe's size, random but for what its constructor sets to zero."""
        torch.manual_seed(0)
        setattr(self, name, self._network(name, {**more, **self.sizes.get(name, {})}))

    def _network(self, name: str, config: dict[str, Any]) -> nn.Module:
        return NETWORKS[name](*((self.mel,) if name in WITH_MEL else ()), **config)

    def save(self, path: Path, parts: tuple[str, ...], **more: Any) -> None:
        """Write some of the parts, and anything more that torch can save."""
        stored: dict[str, Any] = {}
        for name in parts:
            part = getattr(self, name)
            if part is None:
                stored[name] = None
            elif isinstance(part, nn.Module):
                stored[name] = dict(config=part.config, state=part.state_dict())
            elif isinstance(part, np.ndarray):
                stored[name] = torch.from_numpy(part)
            elif isinstance(part, Tables):
                stored[name] = [
                    torch.from_numpy(a.astype(np.int32)) for a in (part.bank, part.choice, part.transitions)
                ]
            elif isinstance(part, VectorCodebook):
                stored[name] = dict(codes=torch.from_numpy(part.codes), level=part.level)
        partial = path.with_suffix(".new")
        torch.save(dict(parts=stored, **more), partial)
        partial.replace(path)

    def load(self, stored: dict[str, Any]) -> None:
        """Take over the parts that `save` wrote."""
        for name, value in stored.items():
            if value is None:
                setattr(self, name, None)
            elif name in NETWORKS:
                network = self._network(name, value["config"])
                network.load_state_dict(value["state"])
                setattr(self, name, network.eval().requires_grad_(False))
            elif name == "step_scales":
                self.step_scales = value.numpy()
            elif name == "tables":
                bank, choice, transitions = (a.numpy() for a in value)
                small = np.uint8 if len(bank) <= 256 else np.uint16
                self.tables = Tables(bank, choice.astype(small), transitions)
            elif name == "vector_codebook":
                self.vector_codebook = VectorCodebook(value["codes"].numpy(), value["level"])

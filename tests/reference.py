"""The reference decoder of `spec/`, as a module."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

SOURCE = Path(__file__).parents[1] / "spec/reference_decoder.py"


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("reference_decoder", SOURCE)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look there
    spec.loader.exec_module(module)
    return module


reference = load()

"""What is installed: a wheel that carries weights and licences, layers that import downwards only."""

import ast
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LAYERS = ("format", "codec", "cli")


def test_wheel_holds_weights_and_licences(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path, ROOT]
    subprocess.run(command, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    for folder in sorted(p.name for p in (ROOT / "codec/models").iterdir() if p.is_dir()):
        for file in (
            "README.md",
            "vae/config.json",
            "vae/diffusion_pytorch_model.safetensors",
            "codec/config.json",
            "codec/tables.safetensors",
        ):
            assert f"aldm/codec/models/{folder}/{file}" in names
    assert sum(name.endswith("LICENSE") for name in names) >= 3  # the code's, and the models' twice
    assert "aldm/codec/py.typed" in names
    assert {f"aldm/codec/fit/recipes/{name}.toml" for name in ("base", "klt")} <= set(names)
    assert not any(name.startswith(("tests", "spec")) for name in names)


@pytest.mark.parametrize("layer", LAYERS)
def test_nothing_imports_upwards(layer: str) -> None:
    above = set(LAYERS[LAYERS.index(layer) + 1 :])
    for file in (ROOT / layer).rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom):
                names = {node.module or ""} if node.module else {alias.name for alias in node.names}
                assert not {name.split(".")[0] for name in names} & above or not node.level, file
            modules = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            modules += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not [m for m in modules if m.startswith(tuple(f"aldm.{up}" for up in above))], file
            assert layer != "format" or not [m for m in modules if m.split(".")[0] == "torch"], file


def test_only_diffusion_imports_diffusers() -> None:
    """It takes seconds, and most never need it."""
    script = (
        "import sys, numpy as np\n"
        "from aldm.codec import Codec\n"
        "codec = Codec.from_pretrained()\n"
        "codec.decode(codec.encode(np.sin(np.arange(8000) / 9), 16000))\n"
        "heavy = {'diffusers', 'transformers', 'matplotlib', 'pyarrow'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)

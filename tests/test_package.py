"""What is installed: a wheel that carries weights and licences, layers that import downwards only."""

import ast
import graphlib
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
LAYERS = ("format", "codec", "bench", "cli")


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


def modules() -> dict[str, ast.Module]:
    """Every module of the package by its name without `aldm.`, such as `codec.codec`."""
    files = [file for layer in LAYERS for file in sorted((ROOT / layer).rglob("*.py"))]
    return {
        ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): ast.parse(file.read_text())
        for file in files
    }


def imported(name: str, node: ast.AST, packages: set[str]) -> list[str]:
    """What an import statement of a module names: `codec.errors` of the package, else as it stands."""
    if isinstance(node, ast.Import):
        return [alias.name.removeprefix("aldm.") for alias in node.names]
    if not isinstance(node, ast.ImportFrom):
        return []
    base = (node.module or "").removeprefix("aldm.")
    if node.level:
        parts = name.split(".") if name in packages else name.split(".")[:-1]
        base = ".".join([*parts[: len(parts) - node.level + 1], *([node.module] if node.module else [])])
    return [f"{base}.{alias.name}" for alias in node.names]


def test_nothing_imports_upwards() -> None:
    """format <- codec <- bench <- cli, wherever the import stands; the command needs bench for `aldm bench` alone."""
    trees = modules()
    packages = {name.rpartition(".")[0] for name in trees}
    for name, tree in trees.items():
        layer = name.split(".")[0]
        above = LAYERS[LAYERS.index(layer) + 1 :]
        for target in (t for node in ast.walk(tree) for t in imported(name, node, packages)):
            top = target.split(".")[0]
            assert top not in above, f"{name} imports {target}"
            assert layer != "format" or top != "torch", f"{name} imports {target}"
            assert layer != "cli" or top != "bench" or name == "cli.bench", f"{name} imports {target}"


def test_no_module_imports_itself_in_a_circle() -> None:
    trees = modules()
    packages = {name.rpartition(".")[0] for name in trees}
    graph = {
        name: {
            known
            for node in tree.body
            for target in imported(name, node, packages)
            for known in (target, target.rpartition(".")[0])
            if known in trees and known != name
        }
        for name, tree in trees.items()
    }
    list(graphlib.TopologicalSorter(graph).static_order())  # raises CycleError


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

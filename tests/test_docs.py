"""The documentation agrees with the program: its examples run, and it has all options."""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
from aldm.cli.main import main
from conftest import DATA

DOCS = Path(__file__).parents[1] / "docs"
BLOCK = re.compile(r"^(<!-- not run -->\n+)?```(python|sh)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def examples(page: str) -> list[tuple[int, str, str]]:
    """Line, language and code of the blocks of a page that are to be run."""
    text = (DOCS / page).read_text()
    found = [(text.count("\n", 0, m.start(2)) + 1, m[2], m[3]) for m in BLOCK.finditer(text) if not m[1]]
    assert found
    return found


def test_the_page_of_the_command_has_every_option_and_no_other() -> None:
    options = {
        (name, option)
        for name, command in main.commands.items()
        for parameter in command.params
        if isinstance(parameter, click.Option)
        for option in parameter.opts
        if option.startswith("--")
    }
    mentioned = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", (DOCS / "cli.md").read_text()))
    assert not {f"{name} {option}" for name, option in options if option not in mentioned}
    assert mentioned <= {option for _, option in options} | {"--help"}


@pytest.mark.slow
@pytest.mark.parametrize("page", ["python.md"])
def test_examples_run(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(DATA / "speech.flac", tmp_path)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "__main__"}
    for line, language, code in examples(page):
        if language == "python":
            exec(compile("\n" * line + code, str(DOCS / page), "exec"), names)  # errors name the line of the page
        else:
            command = f'set -e; aldm() {{ "{sys.executable}" -m aldm.cli "$@"; }}\n{code}'
            subprocess.run(["bash", "-c", command], check=True, timeout=400)

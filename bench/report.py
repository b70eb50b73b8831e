"""`report.html` of a benchmark folder: curves, tables, listening and blind rating in one file without a network."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

TEMPLATE = Path(__file__).with_name("report.html")
MARK = "<!-- results -->"  # the template's one place for data


class Sounds:
    """Audio files of a results folder, numbered in the order of their first mention."""

    def __init__(self, folder: Path):
        self.folder = folder.resolve()
        self.numbers: dict[Path, int] = {}

    def number(self, name: str | None) -> int | None:
        """Number of a file named in results.json; None if there is none, or if it is not inside the folder."""
        if not name:
            return None
        path = (self.folder / name).resolve()
        if not path.is_relative_to(self.folder) or not path.is_file():
            return None
        return self.numbers.setdefault(path, len(self.numbers))


def script(kind: str, text: str) -> str:
    """An element that holds data: nothing in it can end it, or start a comment, as no `<` is left."""
    inert = text.replace("<", r"\u003c")
    return f'<script type="{kind}">{inert}</script>\n'


def write_report(folder: Path) -> Path:
    """Write `folder/report.html` from `folder/results.json` and the audio files that it names.

    Files that are missing are left out: the clip is then in the tables, and not among those to listen to.

    Returns:
        path of the report. It takes its name only once it is whole.
    Raises:
        OSError: results.json cannot be read, or the report cannot be written.
        ValueError: results.json is not JSON.
    """
    # JSON has no NaN, but Python writes it; a score that is not a number is a score that is missing.
    results: dict[str, Any] = json.loads((folder / "results.json").read_bytes(), parse_constant=lambda _: None)
    sounds = Sounds(folder)
    for row in results["rows"]:
        row["audio"] = sounds.number(row.get("audio"))
    results["originals"] = {clip: sounds.number(name) for clip, name in results["originals"].items()}
    results["embedded"] = {"files": len(sounds.numbers), "bytes": sum(p.stat().st_size for p in sounds.numbers)}

    head, tail = TEMPLATE.read_text(encoding="utf-8").split(MARK)
    path, partial = folder / "report.html", folder / ".report.html.partial"
    try:
        with partial.open("w", encoding="utf-8") as out:
            out.write(head)
            out.write(script("application/json", json.dumps(results, allow_nan=False)))
            for sound in sounds.numbers:  # an element each, which the page decodes when it is asked for
                out.write(script("text/base64", base64.b64encode(sound.read_bytes()).decode()))
            out.write(tail)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return path

"""Results as a Markdown table with its caption: what the README shows."""

from __future__ import annotations

from typing import Any

COLUMNS = {"speech": ("pesq", "stoi", "visqol", "mel"), "music": ("visqol", "mel"), "environment": ("visqol", "mel")}
LABELS = {"pesq": "PESQ", "stoi": "STOI", "visqol": "ViSQOL", "mel": "mel"}


def markdown_table(results: dict[str, Any]) -> str:
    """One line per codec and setting, mean values by domain; below it date, machine, versions and command.

    Args:
        results: content of results.json.
    """
    cells = {(row["codec"], row["setting"], row["domain"]): row for row in results["summary"]}
    domains = [domain for domain in COLUMNS if any(key[2] == domain for key in cells)]
    head = ["codec"]
    for domain in domains:
        head += [f"{domain} kbit/s", *(LABELS[name] for name in COLUMNS[domain])]
    lines = [head, ["---"] * len(head)]
    for codec, setting in dict.fromkeys((codec, setting) for codec, setting, _ in cells):
        line = [codec]
        for domain in domains:
            row = cells.get((codec, setting, domain), dict(kbps=None, metrics={}))
            line.append("" if row["kbps"] is None else f"{row['kbps']:.2f}")
            for name in COLUMNS[domain]:
                value = row["metrics"].get(name)
                line.append("" if value is None else f"{value['mean']:.{2 if name in ('pesq', 'visqol') else 3}f}")
        lines.append(line)
    made = results["made"]
    counts = ", ".join(
        f"{n} {domain}" for domain in domains if (n := max(row["n"] for key, row in cells.items() if key[2] == domain))
    )
    versions = ", ".join(f"{name} {number}" for name, number in made["versions"].items())
    caption = f"{counts} clips. {made['date']}, {made['machine']}; {versions}.\n\n    {made['command']}\n"
    return "".join(f"| {' | '.join(line)} |\n" for line in lines) + "\n" + caption

"""Results as Markdown tables with their caption: what docs/benchmarks.md shows."""

from __future__ import annotations

from typing import Any

DOMAINS = ("all", "speech", "music", "environment")
# Labels that fit a table, and decimals. Waveform errors and ESTOI are in results.tsv alone.
COLUMNS = {
    "pesq": ("PESQ", 2), "stoi": ("STOI", 3), "visqol": ("ViSQOL", 2), "mel": ("mel", 3),
    "speaker_similarity": ("speaker", 3), "f0_error": ("F0 cents", 1), "f0_gross": ("F0 gross %", 1),
    "voicing_error": ("voicing %", 1), "distillmos": ("DistillMOS", 2), "dnsmos_ovrl": ("OVRL", 2),
    "dnsmos_sig": ("SIG", 2), "dnsmos_bak": ("BAK", 2), "dnsmos_p808": ("P.808", 2),
    "texture_low": ("texture low", 2), "texture_mid": ("mid", 2), "texture_high": ("high", 2),
    "kad_speech": ("KAD speech", 2), "kad_yamnet": ("KAD YAMNet", 2),
    "visqol_48k": ("ViSQOL 48k", 2), "visqol_channels": ("ViSQOL L, R", 2), "lsd_high": ("LSD > 8k", 1),
    "level_high": ("level > 8k", 1), "convergence": ("convergence", 2), "ild_error": ("ILD dB", 2),
    "coherence_error": ("coherence", 2), "correlation_error": ("correlation", 2), "mono_level": ("mono level dB", 1),
    "mono_loss": ("mono loss dB", 2),
}  # fmt: skip


def markdown_table(results: dict[str, Any]) -> str:
    """For each kind of sound a line per codec and setting with mean values; below, date, machine, versions, command.

    Distances between sets have their 95 % interval in brackets.

    Args:
        results: content of results.json.
    """
    parts = []
    for domain in DOMAINS:
        rows = [row for row in results["summary"] if row["domain"] == domain and row["metrics"]]
        names = [name for name in COLUMNS if any(name in row["metrics"] for row in rows)]
        if not rows:
            continue
        table = [["codec", "kbit/s", *(COLUMNS[name][0] for name in names)]]
        table.append(["---"] * len(table[0]))
        for row in rows:
            line = [row["codec"], "" if row["kbps"] is None else f"{row['kbps']:.2f}"]
            table.append(line + [_cell(row["metrics"].get(name), COLUMNS[name][1]) for name in names])
        windows = {name: max(row["metrics"].get(name, {}).get("windows", 0) for row in rows) for name in names}
        counted = [f"{COLUMNS[name][0]}: {count} windows a set" for name, count in windows.items() if count]
        title = "; ".join([f"{domain}, {max(row['n'] for row in rows)} clips", *counted])
        parts.append(f"**{title}**\n\n" + "".join(f"| {' | '.join(line)} |\n" for line in table))
    made = results["made"]
    versions = ", ".join(f"{name} {number}" for name, number in made["versions"].items())
    parts.append(f"{made['date']}, {made['machine']}; {versions}.\n\n    {made['command']}\n")
    return "\n".join(parts)


def _cell(value: dict[str, Any] | None, decimals: int) -> str:
    if value is None:
        return ""
    text = f"{value['mean']:.{decimals}f}"
    return f"{text} [{value['low']:.{decimals}f}, {value['high']:.{decimals}f}]" if "windows" in value else text

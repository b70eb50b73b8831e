"""`aldm info`: what a file holds and where its bytes go. Reads the container only."""

from __future__ import annotations

import json
import sys
from typing import Any

import click

from ..format import container
from ..format.stream import read_stream
from .files import read_input
from .messages import PARTIAL, naming, printable
from .options import Command


def describe(data: bytes) -> dict[str, Any]:
    """Facts of a file, and the split of its bytes.

    Raises:
        FormatError: no readable header.
    """
    stream = read_stream(data)
    header, samples = stream.header, stream.samples
    payload = sum(len(packet.payload) for packet in stream.packets.values())
    layers = sum(map(len, stream.layers.values()))
    parameters = [sum(len(p.get(kind, b"")) for p in stream.parameters.values()) for kind in container.PARAMETRIC]
    from ..codec.audioldm2.checkpoint import licence_of
    from ..codec.model_folder import model_by_fingerprint
    from ..codec.tags import MODEL_TAG, comment_value

    qualities = sorted({p.quality for p in stream.packets.values() if p.quality is not None})
    seconds = None if samples is None else samples / header.sample_rate
    return {
        "format": f"{header.version[0]}.{header.version[1]}",
        "model": header.model.hex(),
        "model_name": model_by_fingerprint(header.model) or comment_value(stream.comments, MODEL_TAG),
        "sample_rate": header.sample_rate,
        "channels": header.channels,
        "samples": samples,
        "seconds": seconds,
        "quality": None if header.quality >= container.OWN_QUALITY else header.quality,
        "qualities": qualities,  # of packets that have their own
        "packet_seconds": header.packet_hops / container.HOPS_PER_SECOND,
        "packets": len(stream.packets),
        "bytes": {
            "file": len(data),
            "header": container.HEADER_SIZE,
            "framing": len(data) - container.HEADER_SIZE - payload - layers - sum(parameters),
            "payload": payload,
            "layers": layers,
            "high_band": parameters[0],
            "stereo": parameters[1],
        },
        "layers": ["base"] * (header.quality != container.NO_BASE) + ["ddcm"] * bool(stream.layers),
        "kbps": len(data) * 8 / seconds / 1000 if seconds else None,
        "comments": stream.comments,
        "weights_licence": licence_of(stream.comments),
        "damage": stream.damage,
    }


@click.command(cls=Command, examples="aldm info talk.aldm\naldm info talk.aldm --json | jq .kbps")
@click.argument("source", metavar="FILE")
@click.option("--json", "as_json", is_flag=True, help="Write JSON, for programs.")
def info(source: str, as_json: bool) -> None:
    """Show what an .aldm file holds, without decoding it. Exit code 3 if it is damaged."""
    with naming(source):
        facts = describe(read_input(source))
    if as_json:
        click.echo(json.dumps(facts, indent=2))
    else:
        size = facts["bytes"]
        length = f"{facts['seconds']:.2f} s" if facts["seconds"] is not None else "unknown length"
        rate = f"{facts['kbps']:.3f} kbit/s" if facts["kbps"] else "unknown bitrate"
        name = printable(facts["model_name"] or "unknown")
        click.echo(f"format     .aldm {facts['format']}, model {name} ({facts['model']})")
        click.echo(f"audio      {length}, {facts['channels']} x {facts['sample_rate']} Hz")
        quality = f"quality {facts['quality']}"
        if facts["quality"] is None:
            own = facts["qualities"]
            quality = f"packets of quality {own[0]} to {own[-1]}" if own else "no base layer"
        click.echo(f"rate       {rate}, {quality}")
        if "ddcm" in facts["layers"]:
            click.echo(f"ddcm       {size['layers']} bytes of enhancement layer")
        for name, text in (("high_band", "high band"), ("stereo", "stereo")):
            if size[name]:
                click.echo(f"{text:<10} {size[name]} bytes of parameters")
        click.echo(f"packets    {facts['packets']} of up to {facts['packet_seconds']:g} s")
        click.echo(
            f"bytes      {size['file']}: header {size['header']}, framing {size['framing']}, payload {size['payload']}"
        )
        for comment in facts["comments"]:
            click.echo(f"comment    {printable(comment)}")
        if facts["weights_licence"]:
            click.echo(f"licence    of the model's weights: {facts['weights_licence']}")
        for line in facts["damage"]:
            click.echo(f"damage     {line}")
    if facts["damage"]:
        sys.exit(PARTIAL)

"""The programs that measure the worst files and the concealment of lost packets."""

import re

import pytest
from aldm.bench import concealment, worst
from aldm.codec.model_folder import find_model
from aldm.format.layer import Layer
from aldm.format.stream import StreamReader
from click.testing import CliRunner
from conftest import DATA


@pytest.fixture(scope="module")
def maker() -> worst.FileMaker:
    return worst.FileMaker(find_model(None), 0.05)


def test_files_are_what_they_claim(maker: worst.FileMaker) -> None:
    for file in maker.of_sound():
        reader = StreamReader(file.data)
        coded = [sum(g > -32767 for g in item.packet.gains) for item in reader.packets() if item.packet]
        assert reader.hops * max(1, *coded) / 100 == pytest.approx(file.seconds)
        assert bool(reader.damage) == ("missing" in file.name)
    for file in maker.of_output():
        reader = StreamReader(file.data)
        (item,) = reader.packets()
        assert item.packet
        assert not reader.damage
        assert f"{len(item.packet.gains)} " in file.name
        assert ("silent" in file.name) == all(gain == -32768 for gain in item.packet.gains)
        assert reader.hops / 100 == file.seconds
    for file in maker.of_bytes():
        reader = StreamReader(file.data)
        assert reader.samples in (2560, None)
        assert [item.packet is not None for item in reader.packets()] == [True]
        assert bool(reader.damage) == ("comments" not in file.name)
        assert reader.hops == 16
    for file in maker.of_layers():
        (item,) = StreamReader(file.data).packets()
        assert item.packet
        assert item.layer
        layer, picks = Layer.parse(item.layer, 1, item.packet.hops // 16)
        assert (layer.steps, picks.size) == (255, -(-item.packet.hops // 16 // layer.span) * 254 * layer.atoms)


@pytest.mark.slow
def test_the_table_of_the_worst() -> None:
    result = CliRunner().invoke(worst.main, ["--scale", "0.02", "--only", "packets of nothing"])
    assert result.exit_code == 0, result.output
    row = re.search(
        r"^\| packets of nothing.* \| (\d+) \| 0 \| ([\d.]+) \| ([\d.]+) \|  \| (\d+) \|$", result.output, re.M
    )
    assert row
    assert float(row[3]) == pytest.approx(float(row[2]) / int(row[1]) * 1e6, abs=5000 / int(row[1]) + 0.01)
    assert "packets of 0.16 s" not in result.output


def test_concealment_beside_silence() -> None:
    result = CliRunner().invoke(concealment.main, [str(DATA / "speech.flac"), "--packet", "0.64"])
    assert result.exit_code == 0, result.output
    rows = {m[1]: float(m[2]) for m in re.finditer(r"^\| speech, ([^|]+) \| 1 \|.* ([\d.]+) \|$", result.output, re.M)}
    assert rows["nothing lost"] < rows["concealed"] < rows["silence"]
    assert rows["the packet before"] > rows["nothing lost"]

"""The table of what bytes are for."""

from aldm.bench.budget import main
from click.testing import CliRunner
from conftest import DATA


def test_the_bytes_add_up_and_the_coder_wastes_none() -> None:
    clips = [str(DATA / f"{name}.flac") for name in ("speech", "environment")]
    result = CliRunner().invoke(main, [*clips, "--seconds", "3", "--bitrate", "1.5", "--bitrate", "6"])
    assert result.exit_code == 0, result.output
    rows = [[float(cell) for cell in line.split("|")[2:-1]] for line in result.output.splitlines()[2:]]
    assert len(rows) == 2
    for rate, total, header, framing, payload, entropy in rows:
        assert header == 24
        assert abs(header + framing + payload - total) <= 1
        assert total <= rate * 375 + 1
        assert framing < 15
        assert entropy - 1 <= payload < 1.01 * entropy + 4

"""The program that measures memory over time, in small."""

import pytest
from aldm.bench import endurance
from click.testing import CliRunner
from conftest import DATA


@pytest.mark.parametrize(
    ("arguments", "last"),
    [
        (("codec", "--count", "2"), "| 2 | "),
        (("live", "--hours", "0.004", "--vocoder", "griffin-lim"), "224000 of 224000 samples"),
    ],
)
def test_the_table_of_memory(arguments: tuple[str, ...], last: str) -> None:
    done = CliRunner().invoke(endurance.main, [arguments[0], str(DATA / "speech.flac"), *arguments[1:]])
    assert done.exit_code == 0, done.output
    assert last in done.output

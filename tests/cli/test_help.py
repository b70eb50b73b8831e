"""Help: what everybody needs first, in groups, with examples."""

import pytest
from aldm.cli.main import main
from click.testing import CliRunner


@pytest.mark.parametrize("command", ["encode", "decode", "play", "convert", "batch"])
def test_help_begins_with_few_options_and_ends_with_examples(command: str) -> None:
    result = CliRunner().invoke(main, [command, "--help"])
    assert result.exit_code == 0
    sections = [line for line in result.output.splitlines() if line.endswith(":") and not line.startswith(" ")]
    assert sections[0] == "Options:"
    assert sections[-1] == "Examples:"
    assert "Other options:" not in sections or command in ("play", "convert")  # those of rare use
    first = result.output.split("Options:\n")[1].split("\n\n")[0]
    assert sum(line.lstrip().startswith("-") for line in first.splitlines()) <= 7
    if command != "decode" and command != "play":
        assert "1.2 kbit/s" in result.output
    assert not any(
        line.strip().startswith(("IN ", "[OUT]")) for line in result.output.split("Options:")[1].splitlines()
    )


def test_commands_are_listed_in_the_order_of_their_use() -> None:
    output = CliRunner().invoke(main, ["--help"]).output
    names = [line.split()[0] for line in output.split("Commands:\n")[1].splitlines()]
    assert names[:4] == ["encode", "decode", "play", "convert"]

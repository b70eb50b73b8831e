"""A short run of tests/fuzz.py; a long one is for a release."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("atheris", reason="the fuzzer has no wheel for this machine")
HERE = Path(__file__).parent


def test_the_fuzzer_finds_nothing_soon(tmp_path: Path) -> None:
    seeds = [HERE / "golden" / group for group in ("valid", "damaged", "invalid")]
    # the peak memory of the process that starts it counts too
    options = ["-runs=4000", "-seed=1", "-max_len=4096", "-timeout=120", "-rss_limit_mb=4000"]
    result = subprocess.run(
        [sys.executable, HERE / "fuzz.py", *options, tmp_path, *seeds], cwd=tmp_path, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr[-3000:]
    done = re.search(r"Done (\d+) runs", result.stderr)  # libFuzzer may stop one run late
    assert done
    assert int(done[1]) >= 4000

"""Short runs of tests/fuzz.py and tests/fuzz_differential.py; long ones are for a release."""

import importlib.util
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest
from fuzz_differential import fuzz, seed_files
from mutate import join, mutate, split

HERE = Path(__file__).parent
pytestmark = pytest.mark.filterwarnings("ignore::aldm.codec.errors.AldmWarning")


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="the fuzzer has no wheel for this machine")
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


def test_product_and_reference_decoder_read_mutated_files_alike(tmp_path: Path) -> None:
    result = fuzz(seed=1, mutations=1500, keep=tmp_path)
    assert result["findings"] == {}
    assert result["mutations"] == 1500
    assert result["readable"] > 1000  # or the comparison would be of nothing


def test_mutations_repeat_and_differ() -> None:
    seeds = [data for data in seed_files()["tiny"] if join(*split(data)) == data]
    assert len(seeds) > 20  # whole files are written again as they were
    first, second = ([mutate(rng, seeds) for _ in range(200)] for rng in (random.Random(1), random.Random(1)))
    assert first == second
    assert len(set(first)) > 150

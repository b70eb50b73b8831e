"""The short form of batch_faults.py."""

from pathlib import Path

import pytest
from aldm.codec import Codec
from batch_faults import Library, faults


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs /proc, to find the processes of a run")
def test_a_killed_batch_goes_on_to_the_same_bytes(tmp_path: Path, codec: Codec) -> None:
    library = Library(tmp_path, clips=5, jobs=1, encode=lambda path: codec.encode(path, bitrate=1.5))
    assert faults(library, ("worker", "parent"), 1, seed=1) == {"worker": 1, "parent": 1}

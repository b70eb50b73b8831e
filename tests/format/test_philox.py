"""Noise of DDCM: the published generator, and the map to normals."""

from pathlib import Path

import numpy as np
import pytest
from aldm.format.philox import NORMALS, UNIT, normals, philox, words

ONES = 0xFFFFFFFF


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [  # known answers of the authors' Random123, kat_vectors
        ([0, 0, 0, 0], (0, 0), "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ([ONES] * 4, (ONES, ONES), "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        (
            [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
            (0xA4093822, 0x299F31D0),
            "d16cfe09 94fdcceb 5001e420 24126ea1",
        ),
    ],
)
def test_known_answers(counter: list[int], key: tuple[int, int], expected: str) -> None:
    assert " ".join(f"{word:08x}" for word in philox(np.array(counter, np.uint32), key)) == expected


def test_vectors_of_the_specification() -> None:
    text = (Path(__file__).parents[2] / "spec/aldm-format.md").read_text()
    table = text.split("<!-- normals:", 1)[1].split("```")[1]
    assert [int(v) for v in table.split()] == NORMALS[128:].tolist()
    rows = text.split("<!-- noise:", 1)[1].split("```")[1].strip().splitlines()
    assert len(rows) >= 3
    for row in rows:
        left, right = row.split("->")
        seed, stream, step, number = map(int, left.split())
        assert normals(seed, stream, step, np.array([number]), 20)[0].tolist() == [int(v) for v in right.split()]


def test_a_sequence_does_not_depend_on_what_else_is_asked_for() -> None:
    many = normals(3, 0, 5, np.arange(40), 100)
    assert np.array_equal(normals(3, 0, 5, np.array([17]), 33)[0], many[17, :33])
    assert np.array_equal(words(3, 0, 5, np.array([17]), 7)[0], words(3, 0, 5, np.arange(40), 9)[17, :7])


def test_noise_is_normal_and_white() -> None:
    noise = normals(0, 0, 1, np.arange(500), 1000) / UNIT
    assert abs(noise.mean()) < 0.005
    assert abs(noise.std() - 1) < 0.005
    assert abs((np.abs(noise) < 1).mean() - 0.6827) < 0.02  # steps of 1 / 32
    for other in (noise[1:], normals(1, 0, 1, np.arange(499), 1000), normals(0, 0, 2, np.arange(499), 1000)):
        assert abs(np.corrcoef(noise[:-1].ravel(), other.ravel())[0, 1]) < 0.005
    assert abs((noise[:, :-1] * noise[:, 1:]).mean()) < 0.005

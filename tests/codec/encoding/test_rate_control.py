"""The rate controller meets budgets, and always comes to an end."""

import pytest
from aldm.codec import Codec
from aldm.codec.encoding.rate_control import OperatingPoint, RateController
from hypothesis import given
from hypothesis import strategies as st

LEVELS = 48


@pytest.fixture(scope="module")
def controller(codec: Codec) -> RateController:
    return RateController(codec.model.codebook.encoder(), LEVELS)


@given(
    stubborn=st.floats(0, 1),
    least=st.integers(1, 400),
    budget=st.floats(1, 5000),
    rate=st.floats(0.1, LEVELS - 1),
    steer=st.booleans(),
)
def test_re_encoding_ends(
    controller: RateController, stubborn: float, least: int, budget: float, rate: float, steer: bool
) -> None:
    """Even where a quantiser hardly follows what is asked of it, as for sound at the finest levels."""
    points: list[OperatingPoint] = []

    def encode(point: OperatingPoint) -> bytes:
        points.append(point)
        assert len(points) < 200
        return bytes(int(least + 60 * 2 ** (point.rate / 8) * point.bits_ratio ** (1 - stubborn)))

    data = controller.encode_within(OperatingPoint.at(rate), budget, encode, steer)
    assert (
        len(data) <= budget or len(data) == int(least + 60) or data == encode(OperatingPoint.at(0.0, 1.0))[: len(data)]
    )


def test_a_fixed_level_is_written_once(controller: RateController) -> None:
    written: list[OperatingPoint] = []

    def encode(point: OperatingPoint) -> bytes:
        written.append(point)
        return bytes(1000)

    assert len(controller.encode_within(OperatingPoint.fixed(20), 10, encode)) == 1000
    assert written == [OperatingPoint(0.0, 20)]

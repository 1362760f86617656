"""The longest context up to which 85 % of the score at the trained length is kept."""

import math

import pytest

from lightning_metatok.analysis.effective_length import effective_length

NAN = math.nan


@pytest.mark.parametrize(
    ("values", "is_loss", "expected"),
    [
        ({1: 3.10, 2: 3.12, 4: 3.20, 8: 3.60}, True, 4),
        ({1: 3.0, 2: 3.0 - math.log(0.85) - 1e-9}, True, 2),
        ({1: 3.0, 2: 3.0 - math.log(0.85) + 1e-9}, True, 1),
        ({1: 3.0, 2: 4.0, 4: 3.0}, True, 1),  # what lies behind a gap does not count
        ({0.5: 9.0, 1: 3.0, 2: 3.1}, True, 2),  # the base is the trained length
        ({2: 3.0, 4: 3.1}, True, 4),  # or the shortest one
        ({1: 3.0, 2: NAN, 4: 3.0}, True, 1),
        ({1: NAN, 2: 3.0}, True, None),
        ({}, True, None),
        ({1: 0.8, 1.5: 0.68, 2: 0.67}, False, 1.5),
        ({1: 0.0, 2: 0.0}, False, None),
    ],
)
def test_effective_length(values: dict[float, float], is_loss: bool, expected: float | None) -> None:
    assert effective_length(values, is_loss=is_loss) == expected

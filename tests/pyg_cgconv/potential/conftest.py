"""What the tests of the calculator and of its neighbour lists share."""

import pytest


@pytest.fixture(scope="module")
def potential():
    from .for_calculators import make  # needs ASE

    return make()


@pytest.fixture
def calculator(potential):
    from pyg_cgconv import ASECalculator

    from .for_calculators import SKIN

    return ASECalculator(potential, skin=SKIN)


@pytest.fixture
def fresh(potential):
    """Looks for neighbours in every step."""
    from pyg_cgconv import ASECalculator

    return ASECalculator(potential, skin=0.0)

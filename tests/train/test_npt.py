"""Constant pressure: averages of a Lennard-Jones-like crystal, of which two laws are known exactly."""

import io
import warnings

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk, molecule
from ase.calculators.calculator import Calculator, all_changes
from ase.constraints import FixAtoms
from ase.md.langevinbaoab import LangevinBAOAB

from train.dynamics import CrystalLogRow, EnergyLog, degrees_of_freedom, draw_momenta, npt, pressure
from train.md_options import DynamicsOptions

TEMPERATURE = 300.0


class IdealGas(Calculator):
    """No forces: p V = n k T."""

    implemented_properties: list[str] = ["energy", "forces", "stress"]  # noqa: RUF012

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        self.results = {"energy": 0.0, "forces": np.zeros((len(atoms), 3)), "stress": np.zeros(6)}


def gas(count: int = 20) -> Atoms:
    rng = np.random.default_rng(0)
    atoms = Atoms(
        "Ar" * count, positions=12.0 * rng.random((count, 3)), cell=[12.0] * 3, pbc=True, calculator=IdealGas()
    )
    draw_momenta(atoms, TEMPERATURE, rng)
    return atoms


def options(**given) -> DynamicsOptions:
    return DynamicsOptions(
        "x", ensemble="npt", **{"temperature": TEMPERATURE, "timestep": 4.0, "friction": 5.0, **given}
    )


def recorded(atoms: Atoms, chosen: DynamicsOptions, steps: int, seed: int = 1) -> EnergyLog:
    dynamics = npt(atoms, chosen, np.random.default_rng(seed))
    log = EnergyLog(io.StringIO(), dynamics, degrees_of_freedom(atoms, thermostat=True))
    dynamics.attach(log, interval=10)
    dynamics.run(steps)
    return log


def mean_and_error(values: np.ndarray) -> tuple[float, float]:
    """With the error of means over tenths, which are long enough to be independent."""
    tenths = np.array([part.mean() for part in np.array_split(values[len(values) // 10 :], 10)])
    return float(tenths.mean()), float(tenths.std(ddof=1) / np.sqrt(10))


@pytest.mark.thorough
@pytest.mark.parametrize("barostat", ["isotropic", "anisotropic"])
def test_an_ideal_gas_has_the_volume_of_its_law(barostat):
    """At constant pressure <V> = (n + 1) k T / p, with the temperature of the thermostat and the pressure of the
    barostat; k T / p in place of one more particle is the volume's own share."""
    wanted = 0.05
    log = recorded(gas(), options(pressure=wanted, barostat=barostat, barostat_time=0.3), 12_000)
    temperature, error = mean_and_error(log.column("temperature_K"))
    assert temperature == pytest.approx(TEMPERATURE, abs=4 * error)
    assert error < 6
    volume, error = mean_and_error(log.column("volume_A3"))
    ideal = units.kB * TEMPERATURE / (wanted * units.GPa)
    assert 20 * ideal - 4 * error < volume < 21 * ideal + 4 * error
    assert error < 0.06 * volume
    found, error = mean_and_error(log.column("pressure_GPa"))
    assert found == pytest.approx(wanted, abs=4 * error + 0.1 * wanted)


@pytest.mark.slow
@pytest.mark.parametrize("barostat", ["isotropic", "anisotropic"])
def test_a_crystal_shrinks_under_pressure(barostat):
    from ase.calculators.emt import EMT

    atoms = bulk("Cu", cubic=True)
    atoms.calc = EMT()
    draw_momenta(atoms, TEMPERATURE, np.random.default_rng(0))
    before = atoms.get_volume()
    log = recorded(atoms, options(pressure=30.0, barostat=barostat, barostat_time=0.1, friction=20.0), 400)
    assert isinstance(log.rows[0], CrystalLogRow)
    volume = log.column("volume_A3")
    assert volume[0] == before
    assert 0.75 * before < volume[-20:].mean() < 0.92 * before  # 30 GPa over about 150 GPa
    angles = atoms.cell.angles()
    assert (abs(angles - 90).max() < 1e-9) == (barostat == "isotropic")
    lengths = atoms.cell.lengths()
    assert (np.ptp(lengths) < 1e-9) == (barostat == "isotropic")


def test_pressure_is_that_of_the_gas_law_and_of_forces():
    atoms = gas()
    kinetic = 2 * atoms.get_kinetic_energy() / 3 / atoms.get_volume() / units.GPa
    assert pressure(atoms) == pytest.approx(kinetic)
    atoms.calc.results["stress"] = np.array([-0.1, -0.2, -0.3, 9.0, 9.0, 9.0])
    assert pressure(atoms) == pytest.approx(kinetic + 0.2 / units.GPa)


def test_drag_of_the_trace_is_on_each_direction():
    """Quigley and Probert, equation 5b: the cell's momentum plus its trace over the degrees of freedom, times one."""
    dynamics = npt(gas(), options(barostat="anisotropic"), np.random.default_rng(0))
    dynamics.p_eps = np.diag([1.0, 2.0, 4.0]) + 0.5 * (1 - np.eye(3))
    expected = dynamics.p_eps + 7.0 / 60 * np.eye(3)
    np.testing.assert_allclose(dynamics._barostat_BAOAB_OU_gamma_mod() * dynamics.barostat_mass, expected)


def test_an_isotropic_barostat_is_that_of_ase():
    atoms, other = gas(), gas()
    npt(atoms, options(pressure=0.1), np.random.default_rng(3)).run(30)
    time = units.fs * 1000
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        chosen = dict(temperature_K=TEMPERATURE, externalstress=-0.1 * units.GPa, hydrostatic=True)
        rng = np.random.default_rng(3)
        LangevinBAOAB(other, 4 * units.fs, **chosen, T_tau=time / 5.0, P_tau=1.0 * time, rng=rng).run(30)
    np.testing.assert_array_equal(atoms.positions, other.positions)
    np.testing.assert_array_equal(atoms.cell.array, other.cell.array)


def clamped() -> Atoms:
    atoms = bulk("Cu", cubic=True)
    atoms.set_constraint(FixAtoms([0]))
    return atoms


@pytest.mark.parametrize(
    ("atoms", "message"),
    [
        (molecule("H2O"), r"ensemble='npt': the structure has pbc=\[False, False, False\].*take nvt"),
        (bulk("Cu", cubic=True) * (1, 1, 1), None),
        (clamped(), "ensemble='npt': the structure has constraints"),
    ],
)
def test_structures_that_cannot_be_are_named(atoms, message):
    if message is None:
        atoms.pbc = (True, True, False)
        message = r"pbc=\[True, True, False\]"
    with pytest.raises(ValueError, match=message):
        npt(atoms, options(), np.random.default_rng(0))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"ensemble": "nvt", "pressure": 1.0}, "pressure=1.0, barostat='isotropic' with ensemble='nvt': only npt"),
        ({"ensemble": "npt", "replicas": 2}, "replicas=2 with ensemble='npt'"),
        ({"ensemble": "npt", "temperature": 0.0}, "temperature=0 with ensemble='npt'"),
        ({"ensemble": "npt", "barostat_time": 0.0}, "barostat_time=0.0: expected a number above 0"),
        ({"replicas": 0}, "replicas=0: expected a number above 0"),
    ],
)
def test_mistakes_are_named(given, message):
    with pytest.raises(ValueError, match=message):
        DynamicsOptions("x", **given)

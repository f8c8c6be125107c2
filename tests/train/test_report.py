from train.report import error_rows

ENERGY = {"energy_mae_meV": 1.25, "energy_mae_meV_per_atom": 0.5}
FORCES = {"forces_mae_meV_per_A": 20.0}


def cells(table: str, label: str) -> list[str]:
    """The columns of the line that begins with ``label``."""
    (line,) = [line for line in table.splitlines() if line.startswith(label)]
    return line.removeprefix(label).split()


def test_each_element_has_a_line_below_the_whole():
    species = {"H": {"forces_mae_meV_per_A": 5.0}, "O": {"forces_mae_meV_per_A": 40.0}}
    table = error_rows({"test": ENERGY | FORCES | {"species": species}}, mean_force=80.0)
    assert cells(table, "test") == ["1.25", "meV", "0.50", "meV", "20.00", "meV/Å", "25.0", "%"]
    assert cells(table, "  on H") == ["5.00", "meV/Å", "6.2", "%"]
    assert cells(table, "  on O") == ["40.00", "meV/Å", "50.0", "%"]


def test_nothing_is_relative_to_forces_of_zero():
    assert cells(error_rows({"test": ENERGY | FORCES}, mean_force=0.0), "test")[-2:] == ["20.00", "meV/Å"]


def test_columns_are_the_quantities_that_there_are():
    table = error_rows({"test": ENERGY | {"stress_mae_meV_per_A3": 3.5}, "other": ENERGY})
    assert table.splitlines()[0].split() == ["mean", "absolute", "error", "energy", "energy/atom", "stress"]
    assert cells(table, "test") == ["1.25", "meV", "0.50", "meV", "3.50", "meV/Å³"]
    assert cells(table, "other") == ["1.25", "meV", "0.50", "meV"]


def test_each_config_type_has_a_line_with_what_it_has_labels_of():
    types = {"slab": {"frames": 3} | ENERGY, "bulk": {"frames": 2} | FORCES}
    table = error_rows({"test": ENERGY | FORCES | {"config_types": types}}, mean_force=80.0)
    assert cells(table, "  of slab") == ["1.25", "meV", "0.50", "meV"]
    assert cells(table, "  of bulk") == ["20.00", "meV/Å", "25.0", "%"]


def test_a_config_type_without_a_label_that_counts_says_so():
    types = {"slab": {"frames": 3} | ENERGY, "bulk": {"frames": 2}}
    table = error_rows({"test": ENERGY | {"config_types": types}})
    assert "  of bulk                     no labels, or all of weight 0" in table.splitlines()

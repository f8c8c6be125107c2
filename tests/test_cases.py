"""The table of cases in the documentation: each row is shown by tests that exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CALLS, SUMMANDS, MAPS = "test_calls.py", "tensor_product/test_summands.py", "ops/test_maps.py"
MODES, RANDOM = f"{SUMMANDS}::test_each_mode", "ops/test_derivatives.py::test_random_problems"
MIXING = f"{SUMMANDS}::test_a_path_without_weights_beside_mixing_weights_of_each_row"
TRANSFORMS = "ops/test_transforms.py"
TESTS = {
    "mode uvu": [MODES, RANDOM],
    "mode uvw": [MODES, MIXING, "nn/test_stored.py::test_on_graphs"],
    "mode uvv": [MODES, f"{SUMMANDS}::test_mode_uvv_has_no_kernel_on_graphs"],
    "mode uuu": [MODES],
    "mode uvuv": [MODES],
    "mode uuw": [MODES, MIXING],
    "mode uvu<v": [MODES],
    "mode u<vw": [MODES, MIXING],
    "several modes in one list": [RANDOM, f"{SUMMANDS}::test_weights_in_turns_are_those_of_their_paths"],
    "weights of each edge or row": [RANDOM, MIXING],
    "shared weights": [RANDOM, MODES],
    "paths without weights": [
        RANDOM,
        "tensor_product/test_instructions.py::test_paths_that_all_have_no_weights",
    ],
    "on a graph": [MODES, RANDOM],
    "on a bipartite graph": ["nn/test_conv.py::test_bipartite", f"{CALLS}::test_graphs_of_several_types"],
    "of rows, without a graph": [MODES, RANDOM],
    "edge features of multiplicity above 1": [RANDOM, MODES],
    "symmetric contraction, MACE's": [
        "nn/test_symmetric.py::test_each_coefficient_is_that_of_its_monomial",
        "nn/test_symmetric.py::test_derivatives",
    ],
    "storage in bfloat16 or float16, sums in float32": [
        "nn/test_stored.py::test_on_graphs",
        "nn/test_stored.py::test_on_rows_with_shared_weights",
    ],
    "first derivatives": [MODES, RANDOM],
    "second derivatives": [MODES, RANDOM],
    "third derivatives": [
        "ops/test_derivatives.py::test_second_and_third_derivatives_are_slopes",
        f"{MAPS}::test_derivatives_to_third_order",
    ],
    "forward mode": [
        f"{TRANSFORMS}::test_every_transform",
        f"{MAPS}::test_every_transform",
        "nn/test_tensor_products.py::test_forward_mode_and_vmap",
    ],
    "torch.vmap": [
        f"{TRANSFORMS}::test_every_transform",
        f"{MAPS}::test_every_transform",
        "nn/test_tensor_products.py::test_weights_under_vmap_and_hessians",
    ],
    "torch.compile": [
        "test_compile.py::test_two_programs_serve_all_sizes",
        f"{CALLS}::test_two_programs_serve_all_sizes",
        f"{CALLS}::test_inductor_compiles_gradients",
    ],
    "torch.export": [
        "test_export.py::test_programs_work_in_a_fresh_process",
        "nn/test_tensor_products.py::test_every_mode_is_exported",
    ],
    "CPU": [MODES],
    "sums that repeat bit for bit on a GPU": [
        "nn/test_conv.py::test_results_repeat_bit_for_bit",
        "ops/test_cuda.py::test_the_forward_repeats_bit_for_bit_where_nodes_are_cut",
        "ops/test_cuda.py::test_torchs_switch_makes_derivatives_repeat_bit_for_bit",
    ],
}
"""Tests by row, in tests/pyg_cgconv."""


def rows() -> list[list[str]]:
    lines = (line for line in (ROOT / "docs/cases.md").read_text().splitlines() if line.startswith("| "))
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_each_row_has_tests():
    head, *cases = rows()
    assert [case[0] for case in cases] == list(TESTS)
    assert {len(case) for case in cases} == {len(head)}
    assert all(cell for case in cases for cell in case)


@pytest.mark.parametrize("case", TESTS)
def test_its_tests_exist(case):
    for test in TESTS[case]:
        file, name = test.split("::")
        assert re.search(rf"^def {name}\(", (ROOT / "tests/pyg_cgconv" / file).read_text(), re.MULTILINE), test

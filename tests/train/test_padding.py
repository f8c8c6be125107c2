import numpy as np
import pytest

from train.padding import GROWTH, MIN_PADDING_ATOMS, PaddedSizes


@pytest.fixture
def mixed() -> PaddedSizes:
    atoms = np.random.default_rng(0).integers(3, 60, size=300)
    return PaddedSizes(atoms, 4 * atoms + np.random.default_rng(1).integers(0, 90, size=300))


def random_batches(sizes: PaddedSizes, batch_size: int, count: int = 300) -> list[np.ndarray]:
    random = np.random.default_rng(2)
    return [random.permutation(len(sizes.num_atoms))[:batch_size] for _ in range(count)]


def test_size_holds_the_frames_and_two_atoms_more(mixed):
    for frames in random_batches(mixed, 5):
        size = mixed.size_of(frames)
        assert size.frames == 5
        assert size.atoms >= mixed.num_atoms[frames].sum() + MIN_PADDING_ATOMS
        assert size.edges >= mixed.num_edges[frames].sum()


def test_largest_batch_fits():
    sizes = PaddedSizes([3, 9, 5, 8], [10, 70, 20, 80])
    size = sizes.size_of(np.array([1, 3]))
    assert size.edges == 150
    assert size.atoms >= 17 + MIN_PADDING_ATOMS


def test_a_batch_nearly_fills_its_atoms_or_its_edges(mixed):
    for frames in random_batches(mixed, 5):
        size = mixed.size_of(frames)
        edges_per_atom = mixed.num_edges.sum() / mixed.num_atoms.sum()
        padding_atoms = MIN_PADDING_ATOMS + 1 + size.edges / 9 / edges_per_atom
        filled = max(
            (mixed.num_atoms[frames].sum() + 1) / (size.atoms - padding_atoms),
            (mixed.num_edges[frames].sum() + 1) / size.edges,
        )
        assert filled >= 1 / GROWTH


def test_few_sizes_serve_all_batches(mixed):
    assert len({mixed.size_of(frames) for frames in random_batches(mixed, 5)}) <= 12
    assert len({mixed.size_of(frames) for frames in random_batches(mixed, 64)}) <= 3


def test_molecules_of_one_kind_have_one_size():
    edges = np.random.default_rng(0).integers(300, 331, size=200)
    sizes = PaddedSizes(np.full(200, 21), edges)
    assert len({sizes.size_of(frames) for frames in random_batches(sizes, 5)}) == 1


def test_constant_molecules_have_no_padding_edges():
    sizes = PaddedSizes(np.full(20, 9), np.full(20, 72))
    size = sizes.size_of(np.arange(5))
    assert (size.atoms, size.edges) == (45 + MIN_PADDING_ATOMS, 360)
    assert sizes.waste(5) == 0


def test_padding_atoms_suffice_for_the_degree_of_other_atoms():
    """Edges of aspirin: in the mean a padding atom gets no more of them than an atom of the molecule has."""
    edges = np.random.default_rng(0).integers(270, 331, size=500)
    sizes = PaddedSizes(np.full(500, 21), edges)
    degrees = []
    for frames in random_batches(sizes, 5):
        size = sizes.size_of(frames)
        degrees.append((size.edges - edges[frames].sum()) / (size.atoms - 105))
    assert np.mean(degrees) <= edges.mean() / 21


def test_waste_is_the_padding_edges_of_an_epoch(mixed):
    assert 0 < mixed.waste(5) < 0.25
    assert mixed.waste(len(mixed.num_atoms)) == pytest.approx(0, abs=1e-12)


def test_frames_without_edges_have_a_size():
    assert PaddedSizes([1, 1, 1], [0, 0, 0]).size_of(np.arange(2)).edges == 0
    assert PaddedSizes([1, 1, 2], [0, 0, 2]).size_of(np.arange(2)).edges <= 2


@pytest.mark.parametrize("counts", [([], []), ([3, 4], [3]), ([[3]], [[2]])], ids=str)
def test_counts_that_do_not_belong_together_are_refused(counts):
    with pytest.raises(ValueError, match="num_atoms and num_edges"):
        PaddedSizes(*counts)

"""Memory is used again, and never too early."""

import os
import signal
import threading

import pytest
import torch

from pyg_cgconv import TensorProductConv
from pyg_cgconv.ops._memory import POOL, SMALLEST, Pool, _rounded

SHAPE = (1000, 300)


def test_memory_is_used_again_when_its_last_tensor_is_gone():
    pool = Pool()
    first = pool.empty(SHAPE, torch.float32)
    place = first.data_ptr()
    view = first[5:]
    del first
    assert pool.empty(SHAPE, torch.float32).data_ptr() != place, "a view is still there"
    del view
    again = [pool.empty(SHAPE, torch.float32) for _ in range(2)]
    assert place in [t.data_ptr() for t in again]
    assert again[0].data_ptr() != again[1].data_ptr()


def test_a_tensor_from_the_pool_is_like_any_other():
    tensor = Pool().empty(SHAPE, torch.float64)
    assert tensor.shape == SHAPE
    assert tensor.dtype == torch.float64
    assert tensor.is_contiguous()
    assert tensor.data_ptr() % 64 == 0
    tensor.fill_(2.0)
    assert tensor.clone().sum() == 2 * 300_000


def test_about_as_many_edges_share_memory():
    pool = Pool()
    place = pool.empty((20_000, 100), torch.float32).data_ptr()
    assert pool.empty((19_900, 100), torch.float32).data_ptr() == place
    for size in (SMALLEST, SMALLEST + 1, 82_124_800, 3**15):
        assert size <= _rounded(size) <= 1.125 * size


def test_memory_shared_with_other_processes_is_let_go():
    pool = Pool()
    shared = pool.empty(SHAPE, torch.float32).share_memory_()
    place = shared.data_ptr()
    del shared
    assert pool.empty(SHAPE, torch.float32).data_ptr() != place


def test_little_is_kept():
    pool = Pool(kept=4 * SMALLEST)
    for rows in range(1, 30):
        pool.empty((rows, SMALLEST), torch.float32)
        assert sum(s.nbytes() for s in pool._storages) <= 4 * SMALLEST


def test_threads_get_memory_of_their_own():
    pool, results = Pool(), []

    def work(number):
        for _ in range(50):
            tensor = pool.empty(SHAPE, torch.float32)
            tensor.fill_(number)
            results.append(bool((tensor == number).all()))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(results)
    assert len(results) == 200


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_process_does_not_wait_for_a_thread_of_its_parent():
    with POOL._lock:
        child = os.fork()
        if not child:
            signal.alarm(20)  # ends a child that waits
            POOL.empty(SHAPE, torch.float32)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0


def test_results_survive_later_calls():
    """A training loop's gradients, kept while the next step computes its own."""
    layer = TensorProductConv("32x0e+32x1o", "0e+1o", "32x0e+32x1o")
    index = torch.randint(0, 50, (2, 3_000), generator=torch.Generator().manual_seed(0))
    y, w = torch.randn(3_000, 4), torch.randn(3_000, layer.weight_numel, requires_grad=True)
    kept = []
    for step in range(3):
        x = torch.full((50, 128), float(step + 1))
        (gradient,) = torch.autograd.grad(layer(x, index, y, w).sum(), w)
        kept.append((gradient, gradient.clone()))
    assert len({g.data_ptr() for g, _ in kept}) == 3
    assert all(torch.equal(a, b) for a, b in kept)

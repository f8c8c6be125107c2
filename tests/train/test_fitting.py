from dataclasses import replace

import pytest
import torch

from train.fitting import session


@pytest.fixture
def asked(monkeypatch) -> dict:
    """What torch was asked for, instead of doing it."""
    found = {}
    for name in ("set_num_threads", "set_float32_matmul_precision"):
        monkeypatch.setattr(torch, name, lambda value, name=name: found.update({name: value}))
    return found


def test_threads_are_those_asked_for(run, asked):
    with session(replace(run, threads=3)):
        assert asked["set_num_threads"] == 3


def test_the_number_of_threads_is_left_to_torch(run, asked):
    with session(run):
        assert "set_num_threads" not in asked


@pytest.mark.parametrize("precision", ["highest", "high"])
def test_matrix_products_are_as_precise_as_asked_for(run, asked, precision):
    with session(replace(run, matmul_precision=precision)):
        assert asked["set_float32_matmul_precision"] == precision


def test_random_numbers_follow_the_seed(run, asked):
    drawn = []
    for seed in (1, 1, 2):
        with session(replace(run, seed=seed)):
            drawn.append(torch.rand(3))
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])

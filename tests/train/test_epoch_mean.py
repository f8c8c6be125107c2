import numpy as np
import torch

from train.epoch_mean import EpochMean, EpochMeans


def test_mean_over_all_that_was_counted():
    random = np.random.default_rng(0)
    parts = [random.normal(size=size) for size in (3, 50, 7)]
    mean = EpochMean()
    for part in parts:
        mean.update(torch.tensor(part.sum()), torch.tensor(len(part)))
    np.testing.assert_allclose(mean.compute().item(), np.concatenate(parts).mean(), rtol=1e-14)


def test_reset_begins_again():
    mean = EpochMean()
    mean.update(torch.tensor(30.0), torch.tensor(2.0))
    mean.compute()
    mean.reset()
    mean.update(torch.tensor(8.0), torch.tensor(4.0))
    assert mean.compute() == 2.0


def test_memory_stays_where_it_is():
    mean = EpochMean()
    addresses = mean.total.data_ptr(), mean.count.data_ptr()
    mean.update(torch.tensor(1.0), torch.tensor(1.0))
    mean.compute()
    mean.reset()
    mean.update(torch.tensor(1.0), torch.tensor(1.0))
    assert (mean.total.data_ptr(), mean.count.data_ptr()) == addresses


def test_what_was_added_without_python_is_read(recwarn):
    """As a replayed graph does."""
    mean = EpochMean()
    mean.total.fill_(6.0)
    mean.count.fill_(4.0)
    assert mean.compute() == 1.5
    assert not recwarn.list


def test_nothing_counted_has_no_mean():
    assert EpochMean().compute().isnan()


def test_means_of_several_names_are_kept_apart_and_reset_together():
    means = EpochMeans(["val/energy", "val/forces"])
    means["val/energy"].update(torch.tensor(6.0), torch.tensor(2.0))
    means["val/forces"].update(torch.tensor(8.0), torch.tensor(2.0))
    assert means.compute() == {"val/energy": 3.0, "val/forces": 4.0}
    means.reset()
    assert all(mean.isnan() for mean in means.compute().values())

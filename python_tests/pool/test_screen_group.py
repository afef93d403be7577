"""The screen where several processes score one pool."""

import pytest
import torch.distributed as dist
from same_scores import assert_same
from screened_pool import EPS, Network, deceiving, telling
from test_distributed import failure, in_processes
from test_screen import scores_of
from torch.utils.data import DataLoader, TensorDataset

from vaal_ext import LDRScorer, PoolScores


def scored(pool, above=90.0):
    return LDRScorer(Network(), eps=EPS, batch_size=100).score(pool, above=above, progress=False)


def three(rank):
    scored(telling()).save(f"tensor{rank}.npz")
    scored(DataLoader(TensorDataset(telling()), batch_size=70, shuffle=True)).save(
        f"loader{rank}.npz"
    )
    scored(deceiving()).save(f"deceiving{rank}.npz")
    scored(telling(), above=None).save(f"whole{rank}.npz")
    other, _ = failure(lambda: scored(telling(), above=90.0 + rank))
    dist.destroy_process_group()
    return other


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_three_processes_give_what_one_gives(tmp_path):
    codes, found = in_processes(3, three, tmp_path)
    assert codes == [0, 0, 0]
    for name, pool in (("tensor", telling()), ("loader", telling()), ("deceiving", deceiving())):
        alone = scores_of(pool, 90.0)
        assert alone.left_out.any() == (name != "deceiving")
        for rank in range(3):
            assert_same(PoolScores.load(tmp_path / f"{name}{rank}.npz"), alone)
    for rank in range(3):
        assert_same(PoolScores.load(tmp_path / f"whole{rank}.npz"), scores_of(telling()))
    assert all("above is 90.0 there and 91.0 here" in text for text in found)

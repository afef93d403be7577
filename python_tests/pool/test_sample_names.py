"""What a pool calls its samples, from the data set to the CSV of a query."""

from __future__ import annotations

import csv
import os

import numpy as np
import pytest
import torch
from small_pool import Network, samples
from test_pool import some_scores
from torch.utils.data import ConcatDataset, DataLoader, Dataset, Subset

import vaal_ext
from vaal_ext.cli.app import main
from vaal_ext.pool.names import pool_names
from vaal_ext.pool.scores import PoolScores, joined

UNDECODABLE = os.fsdecode(b"caf\xe9.png")  # Latin-1; its byte is a surrogate in Python


class Named(Dataset):
    """Samples [4] with names of many lengths."""

    def __init__(self, n: int = 12) -> None:
        self.x = torch.from_numpy(samples(n))
        self.names = [f"{'ab' * i}/{i:02}.png" for i in range(n)]

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, position: int) -> torch.Tensor:
        return self.x[position]


def scorer(**settings: object) -> vaal_ext.LDRScorer:
    return vaal_ext.LDRScorer(
        Network(), eps=0.5, num_iters=1, backend="reference", batch_size=5, **settings
    )


def test_names_stand_beside_their_scores_whatever_the_order():
    pool = Named()
    assert scorer().score(pool, progress=False).name.tolist() == pool.names
    shuffled = DataLoader(pool, batch_size=4, shuffle=True)
    assert scorer().score(shuffled, progress=False).name.tolist() == pool.names
    keys = torch.arange(12) * 7
    keyed = scorer().score(pool, sample_index=keys, progress=False)
    assert dict(zip(keyed.index.tolist(), keyed.name.tolist(), strict=True)) == dict(
        zip(keys.tolist(), pool.names, strict=True)
    )
    some = scorer().score(DataLoader(pool, batch_size=2, sampler=[7, 2, 11]), progress=False)
    assert (some.index.tolist(), some.name.tolist()) == (
        [2, 7, 11],
        [pool.names[i] for i in (2, 7, 11)],
    )
    assert vaal_ext.posterior_scores(Network(), pool, progress=False).name.tolist() == pool.names


def test_parts_of_a_data_set_keep_its_names():
    pool, other = Named(), Named(3)
    subset = Subset(pool, [9, 1, 4])
    assert pool_names(subset, 0, 3).tolist() == [pool.names[i] for i in (9, 1, 4)]
    both = ConcatDataset([subset, Subset(pool, []), other])
    assert pool_names(both, 1, 5).tolist() == [pool.names[1], pool.names[4], *other.names[:2]]
    assert pool_names(ConcatDataset([pool, samples(3)]), 0, 2) is None


@pytest.mark.parametrize("names", [None, ["cat", "dog"], "abcdefghijkl", list(range(12)), len])
def test_what_is_no_name_of_a_sample_is_left_alone(names):
    """The attribute may be there for something else: the names of the classes, a method."""
    pool = Named()
    pool.names = names
    assert scorer().score(pool, progress=False).name is None
    assert pool_names(pool.x, 0, 12) is None  # a tensor's are those of its dimensions


def test_shards_have_them_and_old_shards_none(tmp_path):
    pool = Named()
    scorer().score_shards(pool, tmp_path, shard_size=5, progress=False)
    assert vaal_ext.read_shards(tmp_path).name.tolist() == pool.names
    first = tmp_path / "shard_00000.npz"
    arrays = dict(np.load(first))
    del arrays["name"]  # as an older version wrote it
    np.savez(first, **arrays)
    assert vaal_ext.read_shards(tmp_path).name.tolist() == [""] * 5 + pool.names[5:]
    last_without = [some_scores(2), some_scores(3)]
    object.__setattr__(last_without[0], "name", np.array(["a", "bc"]))
    assert joined(last_without, 5).name.tolist() == ["a", "bc", "", "", ""]
    assert joined([some_scores(2), some_scores(3)], 5).name is None


def test_the_file_keeps_them_without_pickles(tmp_path):
    arrays = vars(some_scores(3)) | {"name": np.array(["a", UNDECODABLE, "dir/ü 名.png"])}
    PoolScores(**arrays).save(tmp_path / "scores.npz")
    loaded = PoolScores.load(tmp_path / "scores.npz")
    assert loaded.name.tolist() == arrays["name"].tolist()
    assert "with name" in repr(loaded)
    for wrong, error in ((np.array(["a"]), ValueError), (np.zeros(3, object), TypeError)):
        with pytest.raises(error, match="name"):
            PoolScores(**(arrays | {"name": wrong}))


def test_a_query_says_which_files(tmp_path):
    names = [UNDECODABLE, 'a,"b".png', "sub/ü.png"]
    PoolScores(**(vars(some_scores(3)) | {"name": np.array(names)})).save(tmp_path / "scores.npz")
    query = ["select", "--scores", str(tmp_path / "scores.npz"), "--n", "3"]
    assert main([*query, "--out", str(tmp_path / "query.csv")]) == 0
    # Python's own way with names of files gives the names back, and the bytes on the disk.
    with open(tmp_path / "query.csv", newline="", encoding="utf-8", errors="surrogateescape") as f:
        rows = list(csv.DictReader(f))
    assert list(rows[0])[-1] == "name"
    assert {int(row["index"]) // 7: row["name"] for row in rows} == dict(enumerate(names))
    assert b"caf\xe9.png" in (tmp_path / "query.csv").read_bytes()
    odd = np.array(["\ud800", UNDECODABLE, ""])  # half a character, which is no file's name
    PoolScores(**(vars(some_scores(3)) | {"name": odd})).save(tmp_path / "scores.npz")
    assert main([*query, "--out", str(tmp_path / "query.csv")]) == 0
    text = (tmp_path / "query.csv").read_bytes().decode("utf-8", "surrogatepass")
    assert text.count("\n") == 4
    assert all(name in text for name in odd)

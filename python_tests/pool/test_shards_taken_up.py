"""A folder of shards in a later sitting: what is looked at, what is compared, what is told."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import refuse, score_arguments
from damaged_images import FLAT, damage, write_images
from filelock import FileLock
from small_network import normal, one_sided
from test_sample_names import Named
from torch import nn

import vaal_ext
from vaal_ext.cli.app import main
from vaal_ext.pool.scores import PoolScores
from vaal_ext.pool.shard_folder import ShardFolder
from vaal_ext.pool.shards import read_shards
from vaal_ext.progress import announced

NOISE, PROBABILITIES = "mostly noise", "gives probabilities"


def score(model: object, x: object, folder: Path, **options: object) -> list[str]:
    """Scores shards of eight; the warnings."""
    given = {"shard_size": 8, "progress": False} | options
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        scorer = vaal_ext.LDRScorer(
            model, method="finite-difference", xi=0.1, eps=1.0, num_iters=2, backend="reference"
        )
        scorer.score_shards(x, folder, **given)
    return [str(warning.message) for warning in caught]


# --- the looks --------------------------------------------------------------------------------


def test_every_sitting_looks_and_one_process_of_all(tmp_path: Path) -> None:
    model, x = nn.Softmax(1), normal(24, 4, dtype=torch.float32)
    assert [PROBABILITIES in text for text in score(model, x, tmp_path)] == [True]
    assert score(model, x, tmp_path) == []  # nothing is done
    for number in (1, 2):
        (tmp_path / f"shard_{number:05d}.npz").unlink()
    with FileLock(tmp_path / ".shard_00001.lock"):  # by another process, which looks
        assert score(model, x, tmp_path) == []
    assert [PROBABILITIES in text for text in score(model, x, tmp_path)] == [True]


def test_noise_is_found_in_shards_of_any_size(tmp_path: Path) -> None:
    x = 0.3 * normal(200, 4, dtype=torch.float32)
    assert [NOISE in text for text in score(one_sided, x, tmp_path)] == [True]


# --- names ------------------------------------------------------------------------------------


def test_samples_that_have_other_names_are_others(tmp_path: Path) -> None:
    pool, model = Named(), nn.Linear(4, 3)
    score(model, pool, tmp_path)
    (tmp_path / "shard_00001.npz").unlink()
    renamed = Named()
    renamed.names[5] += "b"  # in the shard that is there, and in the same order
    with pytest.raises(ValueError, match=r"holds scores of something else: names is '[0-9a-f]+"):
        score(model, renamed, tmp_path)
    score(model, pool, tmp_path)
    assert vaal_ext.read_shards(tmp_path).name.tolist() == pool.names


def test_a_folder_of_an_older_version_knows_no_names(tmp_path: Path) -> None:
    pool, model = Named(), nn.Linear(4, 3)
    score(model, pool, tmp_path)
    manifest = tmp_path / "manifest.json"
    found = json.loads(manifest.read_text())
    del found["identity"]["names"]
    manifest.write_text(json.dumps(found))
    (tmp_path / ".checksums.json").unlink()
    (tmp_path / "shard_00001.npz").unlink()
    score(model, pool, tmp_path)
    assert (tmp_path / "shard_00001.npz").exists()
    (tmp_path / "shard_00001.npz").unlink()
    score(model, pool.x, tmp_path)  # nor has this pool
    assert (tmp_path / "shard_00001.npz").exists()


def test_names_take_four_bytes_a_letter_of_the_longest(tmp_path: Path) -> None:
    """As the docstrings say, beside 28 bytes a sample."""
    pool = Named(20)
    pool.names[17] = "a" * 63
    score(nn.Linear(4, 3), pool, tmp_path)
    scores = vaal_ext.read_shards(tmp_path)
    columns = [value for key, value in vars(scores).items() if key != "posterior_mean"]
    assert sum(c.nbytes for c in columns if c is not None) == 20 * (28 + 4 * 63)


# --- what is told -----------------------------------------------------------------------------


def test_it_is_told_before_the_shards_are_read_back(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, x = nn.Linear(4, 3), normal(24, 4, dtype=torch.float32)
    score(model, x, tmp_path)
    said = []

    def load(self: ShardFolder, number: int, index: object) -> None:
        said.append(capsys.readouterr().err)

    monkeypatch.setattr(ShardFolder, "load", load)
    with announced("what will be done"):
        score(model, x, tmp_path, progress=True)
    assert said == ["what will be done\n", "", ""]


def test_a_finished_folder_says_so(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = score_arguments(out="shards")
    assert main(given) == 0
    capsys.readouterr()
    assert main(given) == 0
    told = capsys.readouterr()
    assert told.err.endswith("; all shards are there\n")
    assert told.out == "shards: nothing was left to score here; complete\n"


def test_the_size_of_shards_is_the_folders(place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    given = score_arguments(out="shards")
    assert main([*given, "--shard-size", "8"]) == 0
    Path("shards/shard_00002.npz").unlink()
    assert main(given) == 0
    assert PoolScores.load("shards/shard_00002.npz").num_samples == 8
    refuse(place, capfd, [*given, "--shard-size", "9"], "shard_size is 8 there and 9 here")


# --- images that cannot be read ---------------------------------------------------------------


@pytest.mark.parametrize("rank", [0, 1])
def test_whichever_process_ends_last_lists_them(
    place: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    rank: int,
) -> None:
    pytest.importorskip("torchvision")
    write_images("photos", FLAT)
    damage("photos/4.png", "photos/7.png")
    monkeypatch.setattr("vaal_ext.cli.work.score.rank", lambda: rank)
    given = score_arguments(data="folder:photos", out="shards")
    given += ["--on-unreadable", "skip", "--shard-size", "3"]
    Path("shards").mkdir()
    with FileLock("shards/.shard_00001.lock"):  # another process is at it
        assert main(given) == 0
    line, *listed = capsys.readouterr().out.splitlines()
    assert line.endswith("; 1 shards of the pool are still to be done")
    assert listed == []
    assert main(given) == 0  # and this one ends last
    line, *listed = capsys.readouterr().out.splitlines()
    assert line.endswith("; complete; 2 images could not be read:")
    assert [text.split(" is no")[0] for text in listed] == ["photos/4.png", "photos/7.png"]
    assert np.flatnonzero(read_shards("shards").pseudo_label < 0).tolist() == [4, 7]

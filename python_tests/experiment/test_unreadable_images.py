"""An image that cannot be read stops a command with its name, or is left out and listed."""

from __future__ import annotations

import os
from pathlib import Path

import labelling_project
import numpy as np
import pytest
import torch
from command_line import refuse, run_arguments, score_arguments
from damaged_images import FLAT, damage, write_images
from rounding import direct_scores_apart
from torch import nn
from torch.utils.data import DataLoader, Dataset

from vaal_ext.cli.app import main
from vaal_ext.pool.batches import first_samples
from vaal_ext.pool.scores import PoolScores, joined
from vaal_ext.pool.shards import read_shards
from vaal_ext.scorer import LDRScorer

pytest.importorskip("torchvision")


@pytest.fixture
def project(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    return labelling_project.go_to_images(tmp_path, monkeypatch)


# --- score ------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", ["0", "2"])
@pytest.mark.parametrize("broken", ["0.png", "7.png"])
def test_score_stops_at_it_by_name(place, capfd, workers, broken):
    write_images("photos", FLAT)
    damage(f"photos/{broken}")
    arguments = score_arguments(data="folder:photos", workers=workers)
    wanted = f"vaal-ext: photos/{broken} is no readable image: "
    # The first image tells the command the size of all; the others are read while it scores.
    told = refuse(place, capfd, arguments, wanted, begun=broken != FLAT[0])
    assert "Truncated IHDR" in told or "cannot identify" in told


@pytest.mark.parametrize("workers", ["0", "2"])
def test_score_leaves_it_out_and_lists_it(place, capfd, workers):
    pixels = torch.from_numpy(write_images("photos", FLAT))
    options = {"data": "folder:photos", "workers": workers, "batch-size": "2"}
    assert main(score_arguments(**options)) == 0
    whole = PoolScores.load("scores.npz")
    broken = [0, 4, 5, 8]  # with 4 and 5 a whole batch
    damage(*(f"photos/{i}.png" for i in broken))
    capfd.readouterr()
    assert main(score_arguments(**options, **{"on-unreadable": "skip"})) == 0
    line, *listed = capfd.readouterr().out.splitlines()
    assert line.endswith("direct, eps 0.5); 4 images could not be read:")
    assert [text.split(" is no readable image: ")[0] for text in listed] == [
        f"photos/{i}.png" for i in broken
    ]
    scores = PoolScores.load("scores.npz")
    kept = np.delete(np.arange(9), broken)
    np.testing.assert_array_equal(scores.index, np.arange(9))
    np.testing.assert_array_equal(scores.pseudo_label[kept], whole.pseudo_label[kept])
    np.testing.assert_array_equal(scores.pseudo_label[broken], -1)
    for name in ("ldr", "entropy", "margin"):
        assert np.isnan(getattr(scores, name)[broken]).all()
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.Tanh(), nn.Linear(8, 3))
    net.load_state_dict(torch.load("net.pt", weights_only=True))
    # Batches of one and of two: the same numbers to rounding.
    error = np.abs(scores.ldr / whole.ldr - 1)[kept]
    assert (error <= direct_scores_apart(net, pixels.float() / 255, eps=0.5).numpy()[kept]).all()
    np.testing.assert_allclose(scores.entropy[kept], whole.entropy[kept], rtol=1e-5)
    assert abs(scores.posterior_mean.sum() - 1) < 1e-12  # float64, over those that were read
    select = ["select", "--scores", "scores.npz", "--n", "5", "--out", "query.csv"]
    assert main(select) == 0
    chosen = [int(row["index"]) for row in labelling_project.rows("query.csv")]
    assert sorted(chosen) == kept.tolist()


def test_shards_leave_it_out_too(place, capfd):
    write_images("photos", FLAT)
    damage(*(f"photos/{i}.png" for i in (0, 1, 2, 7)))  # the first shard of three, and another
    arguments = score_arguments(data="folder:photos", out="shards")
    arguments += ["--on-unreadable", "skip", "--shard-size", "3"]
    assert main(arguments) == 0
    line, *listed = capfd.readouterr().out.splitlines()
    assert line.endswith("; complete; 4 images could not be read:")
    assert len(listed) == 4
    scores = read_shards("shards")
    assert np.flatnonzero(scores.pseudo_label < 0).tolist() == [0, 1, 2, 7]
    assert np.flatnonzero(np.isnan(scores.ldr)).tolist() == [0, 1, 2, 7]
    assert scores.num_classes == 3


def test_a_pool_without_an_image_that_can_be_read(place, capfd):
    write_images("photos", FLAT[:3])
    damage(*(f"photos/{name}" for name in FLAT[:3]))
    arguments = [*score_arguments(data="folder:photos"), "--on-unreadable", "skip"]
    refuse(place, capfd, arguments, "none of the 3 images of folder:photos can be read")


def test_skip_is_for_folders(place, capfd):
    skip = ["--on-unreadable", "skip"]
    refuse(place, capfd, [*score_arguments(), *skip], "'skip' is for folder:PATH, got 'npz:pool")
    refuse(place, capfd, [*run_arguments(), *skip], "'skip' is for folder:PATH, got 'moons'")


# --- a Dataset of the user's own --------------------------------------------------------------


class Gaps(Dataset):
    """Samples of two numbers; every third is not there."""

    def __init__(self, size: int) -> None:
        self.x = torch.randn(size, 2, generator=torch.Generator().manual_seed(0))

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, i: int) -> torch.Tensor | None:
        return self.x[i] if i % 3 else None


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("batch_size", [1, 4, "auto"])
def test_samples_that_are_none_have_no_score(shuffle, batch_size):
    data = Gaps(20)
    torch.manual_seed(0)
    linear = nn.Linear(2, 3)
    scorer = LDRScorer(linear, eps=0.5, backend="reference", batch_size=batch_size)
    pool = data if batch_size == "auto" else DataLoader(data, batch_size, shuffle=shuffle)
    scores = scorer.score(pool, progress=False)
    expected = scorer.score(data.x, progress=False)
    there = np.arange(20) % 3 > 0
    assert np.isnan(scores.ldr[~there]).all()
    np.testing.assert_array_equal(scores.pseudo_label, np.where(there, expected.pseudo_label, -1))
    error = np.abs(scores.ldr[there] / expected.ldr[there] - 1)
    assert (
        error <= direct_scores_apart(nn.Sequential(linear), data.x, eps=0.5).numpy()[there]
    ).all()
    assert torch.equal(first_samples(data, 5), data.x[[1, 2, 4, 5, 7]])


def test_parts_of_which_nothing_is_there_are_joined():
    scorer = LDRScorer(nn.Linear(2, 3), eps=0.5, backend="reference", batch_size=4)
    absent = scorer.score(torch.utils.data.Subset(Gaps(9), [0, 3, 6]), progress=False)
    there = scorer.score(torch.utils.data.Subset(Gaps(9), [1, 2]), progress=False)
    assert absent.pseudo_label.tolist() == [-1, -1, -1]
    for parts in ([absent, there], [there, absent], [absent, there, absent]):
        scores = joined(parts, sum(part.num_samples for part in parts))
        np.testing.assert_allclose(scores.posterior_mean, there.posterior_mean, rtol=1e-12)


# --- run --------------------------------------------------------------------------------------


def test_run_stops_at_it_or_goes_on_without(place, capfd):
    names = [f"{name}/{i}.png" for name in ("ant", "bee") for i in range(20)]
    labelling_project.write_images(Path("images"), names)
    damage("images/ant/3.png")
    arguments = run_arguments(dataset="folder:images", **{"initial": "4", "query-size": "3"})
    refuse(place, capfd, arguments, "images/ant/3.png is no readable image: ")
    for _ in range(2):  # and again: it is finished
        assert main([*arguments, "--on-unreadable", "skip"]) == 0
        told = capfd.readouterr().err
        assert "left out: " in told
        assert "images/ant/3.png is no readable image: " in told
    pytest.importorskip("matplotlib")
    assert main(["report", "run", "--out", "report"]) == 0  # which reads the same data


# --- query ------------------------------------------------------------------------------------


def test_query_stops_at_it_and_the_next_goes_on(project, capfd):
    """Whichever image it is: of the first query all images are asked for."""
    every = {"query_size": str(len(labelling_project.FILES))}
    broken = Path("images/shelf/03.jpg")
    whole = broken.read_bytes()
    damage(str(broken))
    assert labelling_project.begin(**every) == 2
    assert "shelf/03.jpg is no readable image: " in capfd.readouterr().err
    assert not os.path.exists("project/queries.csv")
    broken.write_bytes(whole)
    labelling_project.step("query")
    assert "query 1: 28 of 28 images" in capfd.readouterr().out


def test_answers_are_taken_while_an_image_is_damaged(project):
    assert labelling_project.begin() == 0
    damage("images/00.jpg")  # the first of all
    labelling_project.step("label", labelling_project.fill_in(1))
    assert len(labelling_project.rows("project/labels.csv")) == 5


@pytest.mark.parametrize("workers", ["0", "1"])
def test_query_leaves_it_out_and_lists_it(project, capfd, workers):
    damage("images/00.jpg", "images/shelf/03.jpg")
    every = {"query_size": str(len(labelling_project.FILES))}
    assert labelling_project.begin(**every, on_unreadable="skip") == 0
    out = capfd.readouterr().out
    assert "query 1: 26 of 28 images" in out
    assert "images that could not be read and are left out: 2\n" in out
    assert "shelf/03.jpg is no readable image: " in out
    asked = labelling_project.asked(1)
    answers = [(name, labelling_project.truth(name)) for name in asked[:9]]
    labelling_project.step("label", labelling_project.write_answers("some.csv", answers))
    labelling_project.step("train")
    damage(f"images/{asked[20]}")  # of the 17 that have no answer and could be read
    capfd.readouterr()
    labelling_project.step("query", "--workers", workers)
    out = capfd.readouterr().out
    assert "query 2: 16 of 19 images, by vaal" in out
    assert "shelf/03.jpg is no readable image: " in out
    assert set(labelling_project.asked(2)) == {*asked[9:20], *asked[21:]}


@pytest.mark.parametrize("strategy", ["vaal", "random", "entropy", "margin", "dfal"])
def test_query_where_none_can_be_read(project, capfd, strategy):
    labelling_project.begin(strategy=strategy, on_unreadable="skip", held_out="0")
    labelling_project.step("label", labelling_project.fill_in(1))
    labelling_project.step("train")
    asked = labelling_project.asked(1)
    damage(*(f"images/{name}" for name in labelling_project.FILES if name not in asked))
    query = ["query", "--project", "project"]
    message = "none of the 23 images to choose from can be read: "
    assert "is no readable image" in refuse(project, capfd, query, message, begun=True)


def test_train_where_no_labelled_image_can_be_read(project, capfd):
    labelling_project.begin(on_unreadable="skip", held_out="0")
    labelling_project.step("label", labelling_project.fill_in(1))
    asked = labelling_project.asked(1)
    damage(*(f"images/{name}" for name in asked))
    train = ["train", "--project", "project"]
    message = "none of the 5 labelled images to train on can be read: "
    assert f"{min(asked)} is no readable image" in refuse(
        project, capfd, train, message, begun=True
    )

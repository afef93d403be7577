"""Labelling with other settings: held-out labels, a test folder, strategy, network, image size."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from labelling_project import (
    CLASSES,
    asked,
    begin,
    fill_in,
    rows,
    step,
    truth,
    write_answers,
    write_images,
)

from vaal_ext.cli.app import main
from vaal_ext.labelling import learner
from vaal_ext.labelling.config import ProjectConfig
from vaal_ext.labelling.project import Project

pytest.importorskip("torchvision")
pytest.importorskip("matplotlib")


def test_the_settings_are_what_config_json_holds(place):
    begin(seed="3")
    saved = json.loads(Path("project/config.json").read_text())
    assert ProjectConfig.from_settings(saved).settings() == saved
    assert saved["seed"] == 3
    assert begin(seed="3") == 0  # the same options again are no new project


def test_of_two_that_begin_at_once_the_second_is_refused(place, monkeypatch, capfd):
    begin_it = Project.begin

    def after_another(path, config):
        begin_it(path, ProjectConfig.from_settings(config.settings() | {"seed": 9}))
        return begin_it(path, config)

    monkeypatch.setattr(Project, "begin", after_another)
    assert begin(seed="3") == 2
    assert "the project's seed is 9, the command says 3" in capfd.readouterr().err
    assert json.loads(Path("project/config.json").read_text())["seed"] == 9


def test_changed_settings_and_changed_labels_train_again(place, capsys):
    begin()
    step("label", fill_in(1))
    step("train")
    config = json.loads(Path("project/config.json").read_text())
    Path("project/config.json").write_text(json.dumps(config | {"query_size": 7, "eps": 0.2}))
    step("train")
    assert "training 1 was on these labels: nothing to do" in capsys.readouterr().out
    Path("project/config.json").write_text(json.dumps(config | {"steps": 4}))
    step("query")
    assert capsys.readouterr().out.endswith("next: vaal-ext train --project project\n")
    step("train")
    image = asked(1)[0]
    other = CLASSES[truth(image) == CLASSES[0]]
    step("label", write_answers("second.csv", [(image, other)]))
    step("train")
    assert [row["training"] for row in rows("project/trainings.csv")] == ["1", "2", "3"]
    # What was announced stays, for those who put it to use.
    weights = sorted(path.name for path in Path("project").glob("weights_*"))
    assert weights == ["weights_1.pt", "weights_2.pt", "weights_3.pt"]


def test_held_out_labels_stay_held_out(place, monkeypatch):
    """Whatever else comes to be labelled: no training has ever seen what evaluates another."""
    parts = []
    real = learner.parts

    def watched(config, labels):
        parts.append(real(config, labels))
        return parts[-1]

    monkeypatch.setattr(learner, "parts", watched)
    begin(query_size="9", held_out="0.4")
    for number in (1, 2, 3):
        step("label", fill_in(number))
        step("train")
        step("query")
    trained, held_out = map(set, parts[0])
    for later_trained, later_held_out in parts[1:]:
        assert trained <= set(later_trained)
        assert held_out <= set(later_held_out)
    # 27 names at 0.4 each: 10.8, with a standard deviation of 2.5; four of them either way.
    assert 1 <= len(parts[-1][1]) <= 20


def test_a_test_folder(place, capsys):
    for name in CLASSES:
        files = [f"{i:02}.jpg" for i in range(4) if truth(f"{i:02}.jpg") == name]
        write_images(place / "test" / name, files)
    begin(test="folder:test")
    step("label", fill_in(1))
    step("train")
    assert "training 1: 5 labels" in (out := capsys.readouterr().out)
    assert "of 4 labels in the test folder are right, too few to tell" in out
    (place / "test" / "dark").rename(place / "test" / "dim")
    Path("project/trainings.csv").unlink()
    assert main(["train", "--project", "project"]) == 2
    assert "must be named as the project's classes, got dim" in capsys.readouterr().err


@pytest.mark.parametrize("test", [False, True])
def test_a_threshold_from_the_accuracy_on_held_out_labels(test, place, capsys):
    """Never from that on a test folder."""
    write_images(place / "test", ["dark/00.jpg", "light/01.jpg"])
    begin(query_size="9", **({"test": "folder:test"} if test else {}))
    config = Path("project/config.json")
    config.write_text(config.read_text().replace("90.0", '"accuracy"'))
    step("label", fill_in(1))
    step("train")
    assert rows("project/trainings.csv")[0]["evaluated"] == ("2" if test else "1")
    assert main(["query", "--project", "project"]) == (2 if test else 0)
    assert ("needs the accuracy on a validation set" in capsys.readouterr().err) == test


@pytest.mark.parametrize("strategy", ["random+vat", "entropy", "margin", "dfal"])
def test_other_strategies(strategy, place):
    begin(strategy=strategy)
    step("label", fill_in(1))
    step("train")
    step("query")
    assert len(asked(2)) == 5
    row = rows("project/queries.csv")[5]
    assert (row["entropy"] == "") == strategy.startswith("random")
    assert row["ldr"] == ""


def test_a_network_of_ones_own(place, monkeypatch, capsys):
    Path("mine.py").write_text(
        "from torch import nn\n"
        "def net(): return nn.Sequential(nn.Flatten(), nn.Linear(192, 2))\n"
        "def wide(): return nn.Sequential(nn.Flatten(), nn.Linear(192, 3))\n"
        "def tall(): return nn.Sequential(nn.Flatten(), nn.Linear(200, 2))\n"
        "class Two(nn.Flatten):\n"
        "    def forward(self, x): return x, x\n"
    )
    monkeypatch.syspath_prepend(str(place))
    begin(model="mine:net")
    step("label", fill_in(1))
    step("train")
    step("query")
    assert torch.load("project/weights_1.pt")["1.weight"].shape == (2, 192)
    for factory, message in [
        ("wide", "must have an output for each of the 2"),
        ("tall", "does not take images of shape [3, 8, 8]"),
        ("Two", "must have an output for each of the 2 classes, its output is tuple"),
    ]:
        assert begin("other", model=f"mine:{factory}") == 2
        assert message in capsys.readouterr().err
        assert not Path("other").exists()


def test_images_of_all_sizes(place, capsys):
    write_images(Path("images"), ["98.jpg"], size=(20, 12))
    assert begin(query_size="29") == 2
    assert "98.jpg is 12 x 20 where the first image is 8 x 8: give an" in capsys.readouterr().err
    assert begin("scaled", image_size="9", query_size="29") == 0
    main(["label", "--project", "scaled", fill_in(1, "scaled")])
    assert main(["train", "--project", "scaled"]) == 0
    assert "network_for((3, 9, 9), 2" in Path("scaled/network.py").read_text()


def test_a_class_that_is_gone_is_named(place, capsys):
    begin()
    step("label", fill_in(1))
    config = Path("project/config.json")
    config.write_text(config.read_text().replace('"light"', '"bright"'))
    assert main(["train", "--project", "project"]) == 2
    number = sum(truth(image) == "light" for image in asked(1))
    assert f"{number} images have the label 'light', which is none of" in capsys.readouterr().err


def test_few_labels_take_fewer_steps_unless_the_project_says_how_many():
    given = {"images": "images", "classes": ["a", "b"]}
    config = ProjectConfig.from_settings(given)
    most = config.run.resolved().training.steps
    steps = [learner.steps_for(config, labels) for labels in (1, 20, 100, 10_000)]
    assert steps == sorted(steps)
    assert steps[0] < steps[1] < most / 2
    assert steps[-1] == most
    # config.json leaves the number open, and is read as it was written.
    assert config.settings()["steps"] is None
    assert ProjectConfig.from_settings(config.settings()) == config
    # Every project that has begun before says a number.
    for steps in (3, 500, 900):
        said = ProjectConfig.from_settings(given | {"steps": steps})
        assert learner.steps_for(said, 20) == steps
    regularised = ProjectConfig.from_settings(given | {"strategy": "vaal+vat"})
    assert learner.steps_for(regularised, 20) == regularised.run.resolved().training.steps == most


def test_a_training_takes_those_steps(place, monkeypatch):
    taken = []
    real = learner.train

    def watched(*arguments, steps, **settings):
        taken.append(steps)
        return real(*arguments, **settings | {"steps": 1})

    monkeypatch.setattr(learner, "train", watched)
    options = ["--data", "folder:images", "--classes", ",".join(CLASSES), "--query-size", "9"]
    assert main(["query", "--project", "project", *options, "--device", "cpu"]) == 0
    step("label", fill_in(1))
    step("train")
    row = rows("project/trainings.csv")[0]
    config = Project(Path("project")).config
    assert taken == [learner.steps_for(config, int(row["labels"]))]


def test_settings_of_a_wrong_kind():
    good = {"images": "x", "classes": ["a", "b"]}
    for change, message in [
        ({"classes": "a,b"}, "classes must be a list of names"),
        ({"classes": ["a", 1]}, "classes must be names, got 1"),
        ({"images": 3}, "images must be the path of a folder"),
        ({"model": 3}, "model must be package.module:factory"),
        ({"held_out": "x"}, "held_out must be a number"),
        ({"image_size": 9.5}, "image_size must be an int"),
        ({"class_prior": [1.0]}, "class_prior must have one weight for each of the 2 classes"),
        ({"predictions": "yes"}, "predictions must be True or False, got 'yes'"),
        ({"dataset": "digits"}, "a project has no setting 'dataset'"),
    ]:
        with pytest.raises((TypeError, ValueError), match=message):
            ProjectConfig.from_settings(good | change)
    assert ProjectConfig.from_settings(good | {"class_prior": None}).run.class_prior is None


def test_the_radius_is_the_images_unless_the_project_says_one():
    given = {"images": "photos", "classes": ["a", "b"]}
    images = torch.full((300, 3, 4, 5), 0.5)  # of length 0.5 * sqrt(60)
    eps = float(f"{0.02 * 0.5 * 60**0.5:.3g}")
    config = ProjectConfig.from_settings(given)
    assert config.search_lengths(images) == {"eps": eps}
    assert ProjectConfig.from_settings(config.settings()) == config  # it stays open
    assert config.run.resolved().settings.eps > 0  # what a run on such a folder would take
    steps = {"method": "finite-difference"}
    for strategy, more, wanted in (
        ("vaal+vat", {"eps": 0.3}, {"eps": 0.3}),
        ("vaal", {**steps, "eps": 0.3}, {"eps": 0.3, "xi": 0.03}),
        ("vaal", {**steps, "eps": 0.3, "xi": 0.01}, {"eps": 0.3, "xi": 0.01}),
        ("vaal", {"method": "fisher"}, {"eps": eps}),
        ("entropy", {}, {}),
    ):
        said = ProjectConfig.from_settings(given | {"strategy": strategy} | more)
        assert said.search_lengths(images) == wanted

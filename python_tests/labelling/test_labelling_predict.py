"""The network put to use: the table of predictions, and guesses among Label Studio's tasks."""

from __future__ import annotations

import csv
import json
import math
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
import torch
from command_line import NOT_A_FOLDER, refuse
from labelling_project import (
    CLASSES,
    FILES,
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
from vaal_ext.labelling.images import ImageFiles
from vaal_ext.models import network_for

pytest.importorskip("torchvision")
pytest.importorskip("matplotlib")
pytest.importorskip("scipy")

HEADER = ["image", "predicted", "confidence", "p(dark)", "p(light)"]


def trained(**options: str) -> None:
    begin(**options)
    step("label", fill_in(1))
    step("train")


def table(path: str) -> list[list[str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def test_every_image_has_its_class_and_probabilities(place, capsys):
    write_images(Path("images"), [" 00.jpg", 'e\u0301, "1"/01.jpg'])
    trained()
    capsys.readouterr()
    step("predict", "--out", "predictions.csv")
    out = capsys.readouterr().out
    header, *body = table("predictions.csv")
    assert header == HEADER
    images = ImageFiles(Path("images"), None)
    assert [row[0] for row in body] == images.names
    # The same by hand: the weights, the images, softmax.
    model = network_for(images.shape, 2, seed=0).eval()
    model.load_state_dict(torch.load("project/weights_1.pt", weights_only=True))
    with torch.no_grad():
        x, _ = images.read(range(len(images)), progress=False)
        expected = model(x).double().softmax(dim=1)
    for row, posterior in zip(body, expected, strict=True):
        got = [float(cell) for cell in row[3:]]
        # Six digits are printed; float32 sums of some thousand terms in another order, in batches
        # of the same size, move logits of order 1 by less than 1e-5.
        assert got == pytest.approx(posterior.tolist(), abs=2e-5)
        assert row[1] == CLASSES[max(range(2), key=got.__getitem__)]
        assert row[2] == max(row[3:], key=float)
        assert sum(got) == pytest.approx(1, abs=2e-6)
    counts = [sum(row[1] == name for row in body) for name in CLASSES]
    assert f"{len(body)} images, by the network of training 1: dark {counts[0]}, light" in out
    # Nothing of the project has changed, and a guess is never taken for an answer.
    assert main(["label", "--project", "project", "predictions.csv"]) == 2


def test_other_images_and_the_newest_network(place, capsys):
    trained()
    step("query")
    step("label", fill_in(2))
    capsys.readouterr()
    step("predict", "--out", "old.csv")
    assert "have changed since training 1, which knows the old" in capsys.readouterr().out
    step("train")
    write_images(Path("others"), ["b/01.jpg", "a.jpg".replace("a", "00")])
    step("predict", "--data", "folder:others", "--out", "new.csv")
    out = capsys.readouterr().out
    assert "new.csv: 2 images, by the network of training 2" in out
    assert "have changed" not in out
    assert [row[0] for row in table("new.csv")[1:]] == ["00.jpg", "b/01.jpg"]


def test_what_the_network_has_learnt(place):
    """Dark and light are far apart: enough steps, and every image has its class."""
    trained(query_size="12", steps="60", held_out="0")
    step("predict", "--out", "predictions.csv")
    body = table("predictions.csv")[1:]
    assert [(row[0], row[1]) for row in body] == [(name, truth(name)) for name in sorted(FILES)]
    assert all(float(row[2]) > 0.5 for row in body)


def test_a_network_of_ones_own_predicts(place, monkeypatch, capfd):
    Path("own_network.py").write_text(
        "import torch\n"
        "from torch import nn\n"
        "def net(): return nn.Sequential(nn.Flatten(), nn.Dropout(0.9), nn.Linear(192, 2))\n"
        "class Broken(nn.Linear):\n"
        "    def forward(self, x):\n"
        "        return super().forward(x) / (x.mean(1, keepdim=True) < 0.5)\n"
        "def broken(): return nn.Sequential(nn.Flatten(), Broken(192, 2))\n"
    )
    monkeypatch.syspath_prepend(str(place))
    trained(model="own_network:net")
    for name in ("one.csv", "two.csv"):
        step("predict", "--out", name)
    assert table("one.csv") == table("two.csv")  # in eval mode: no dropout
    assert begin("other", model="own_network:broken", held_out="0") == 0
    dark = [(image, "dark") for image in FILES if truth(image) == "dark"]
    assert main(["label", "--project", "other", write_answers("dark.csv", dark)]) == 0
    assert main(["train", "--project", "other"]) == 0
    arguments = ["predict", "--project", "other", "--out", "three.csv"]
    refuse(place, capfd, arguments, "the network's output for", begun=True)


def test_predictions_that_are_refused(place, capfd):
    begin()
    predict = ["predict", "--project", "project", "--out"]
    message = "no network is trained yet; next: vaal-ext label --project project project/query_1"
    refuse(place, capfd, [*predict, "x.csv"], message)
    step("label", fill_in(1))
    step("train")
    write_images(Path("large"), ["00.jpg"], size=(9, 8))
    for arguments, message in [
        ([*predict, str(NOT_A_FOLDER)], "cannot write"),
        ([*predict, "images"], "cannot write images: it is a folder"),
        ([*predict, "x.csv", "--data", "large"], "data must be folder:PATH, got 'large'"),
        ([*predict, "x.csv", "--data", "folder:none"], "there is no folder none"),
        (["predict", "--project", "nothing", "--out", "x.csv"], "nothing holds no project"),
    ]:
        refuse(place, capfd, arguments, message)
    large = [*predict, "x.csv", "--data", "folder:large"]
    refuse(place, capfd, large, "must have the shape of the project's", begun=True)


def tasks(number: int) -> list[dict]:
    return json.loads(Path(f"project/query_{number}.json").read_text())


def test_label_studio_has_the_guesses_where_they_are_asked_for(place):
    assert main([*query_options(), "--predictions"]) == 0
    assert json.loads(Path("project/config.json").read_text())["predictions"] is True
    assert all("predictions" not in task for task in tasks(1))  # random: there is no guess
    for number in (1, 2):
        step("label", fill_in(number))
        step("train")
        step("query")
    interface = ElementTree.fromstring(Path("project/label_studio.xml").read_text())
    image, choices = interface
    for number in (2, 3):
        guesses = {row["image"]: row for row in rows("project/queries.csv")}
        assert [task["data"]["vaal_ext_image"] for task in tasks(number)] == asked(number)
        for task in tasks(number):
            row = guesses[task["data"]["vaal_ext_image"]]
            (prediction,) = task["predictions"]
            assert prediction["model_version"] == f"training {number - 1}"
            assert prediction["result"] == [
                {
                    "from_name": choices.get("name"),
                    "to_name": image.get("name"),
                    "type": "choices",
                    "value": {"choices": [row["guess"]]},
                }
            ]
            certainty = 1 - float(row["entropy"]) / math.log(2)
            assert prediction["score"] == pytest.approx(certainty, abs=1e-4)
            assert 0 <= prediction["score"] <= 1


def query_options() -> list[str]:
    options = {"data": "folder:images", "classes": ",".join(CLASSES), "query-size": "5"}
    options |= {"steps": "3", "device": "cpu"}
    flags = (part for key, value in options.items() for part in (f"--{key}", value))
    return ["query", "--project", "project", *flags]


def test_there_are_no_guesses_otherwise_and_a_project_of_before_stays_trained(place, capsys):
    trained()
    step("query")
    assert all("predictions" not in task for task in tasks(2))
    config = json.loads(Path("project/config.json").read_text())
    assert config.pop("predictions") is False
    Path("project/config.json").write_text(json.dumps(config))  # as before there was the setting
    capsys.readouterr()
    step("train")
    assert "training 1 was on these labels: nothing to do" in capsys.readouterr().out
    Path("project/config.json").write_text(json.dumps(config | {"predictions": True}))
    step("query")  # the same query, handed out again
    assert all(len(task["predictions"]) == 1 for task in tasks(2))
    Path("project/config.json").write_text(json.dumps(config | {"predictions": "yes"}))
    assert main(["query", "--project", "project"]) == 2
    assert "predictions must be True or False, got 'yes'" in capsys.readouterr().err

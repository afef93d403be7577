"""A figure says what it was made of, and one made of less does not take its place."""

from __future__ import annotations

import copy
import csv
import json
from pathlib import Path

import pytest
from made_runs import run_of

from vaal_ext.paper import show as show_module
from vaal_ext.paper.made_of import caption, destination, of_results, write_made_of
from vaal_ext.paper.plan import EXHIBITS
from vaal_ext.paper.show import show
from vaal_ext.paper.tables import table_cells

pytest.importorskip("matplotlib")
pytest.importorskip("scipy")

SETTINGS = {"initial": 20, "pool_size": None, "steps": 100}


def results(seeds: int, rounds: int, **settings: object) -> dict:
    labels = [20 + 10 * i for i in range(rounds + 1)]
    return {
        "digits": {
            name: [
                run_of([0.5 + 0.1 * i for i in range(rounds + 1)], labels, seed=seed,
                       **SETTINGS | {"strategy": name} | settings)
                for seed in range(seeds)
            ]
            for name in ("random", "vaal")
        }
    }  # fmt: skip


def shown(found: dict, out: Path, **settings: bool) -> list[str]:
    return list(show("digits", EXHIBITS["digits"], found, out, **settings))


def seeds_in(path: Path) -> set[str]:
    with path.open(newline="") as file:
        return {row["seeds"] for row in csv.DictReader(file)}


def test_a_rehearsal_leaves_the_full_picture_alone(tmp_path):
    out = tmp_path / "digits"
    shown(results(3, 4), out)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    lines = shown(results(1, 2, steps=20), out)
    assert lines[0] == (
        f"{out} is left as it is: it has 100 steps a training, not 20. This goes to {out}-smaller; "
        "with --replace it takes the place of the other"
    )
    assert before == {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    assert seeds_in(tmp_path / "digits-smaller" / "digits.csv") == {"1"}
    assert (tmp_path / "digits-smaller" / "digits.png").is_file()
    shown(results(1, 2, steps=20), out, replace=True)
    assert seeds_in(out / "digits.csv") == {"1"}


def test_a_rehearsal_leaves_a_larger_rehearsal_alone(tmp_path):
    """Each goes to the first folder that holds nothing, or what is made of no more."""
    out = tmp_path / "digits"
    for seeds, steps in ((4, 100), (3, 20), (1, 20), (2, 20), (3, 30)):
        shown(results(seeds, 1, steps=steps), out)
    found = {path.name: seeds_in(path / "digits.csv") for path in tmp_path.iterdir()}
    assert found == {"digits": {"4"}, "digits-smaller": {"3"}, "digits-smaller-2": {"2"}}
    steps = json.loads((tmp_path / "digits-smaller" / "made_of.json").read_text())
    assert steps["digits"]["vaal"]["steps"] == 30
    (tmp_path / "digits-smaller" / "made_of.json").unlink()
    (line, *_) = shown(results(2, 1, steps=20), out)
    assert "This goes to" in line
    assert f"{out}-smaller-2; with --replace" in line


def test_what_grows_takes_its_own_place(tmp_path):
    out = tmp_path / "digits"
    for seeds, rounds in ((1, 2), (1, 4), (3, 4), (3, 4)):
        shown(results(seeds, rounds), out)
        assert seeds_in(out / "digits.csv") == {str(seeds)}
    assert [path.name for path in tmp_path.iterdir()] == ["digits"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda made: made.pop("vaal"), "it has 'vaal' of digits too"),
        (lambda made: made["vaal"].update(data="folder:cats"), "made from digits, not folder:cats"),
        (lambda made: made["vaal"].update(steps=99), "it has 100 steps a training, not 99"),
        (lambda made: made["vaal"].update(pool_size=50), "from the whole pool, not 50 samples"),
        (lambda made: made["vaal"]["queries"].pop("1"), "'vaal' with seed 1, not any"),
        (lambda made: made["vaal"]["queries"].update({"1": 1}), "2 queries of 'vaal' .* 1, not 1"),
        (lambda made: made["vaal"].update(steps=101), None),
        (lambda made: made["vaal"]["queries"].update({"2": 1}), None),
        (lambda made: made.update(margin=made["vaal"]), None),
    ],
)
def test_what_is_less(change, message, tmp_path):
    out = tmp_path / "digits"
    out.mkdir()
    made = of_results(results(2, 2))
    write_made_of(out, made)
    (out / "digits.png").touch()
    other = copy.deepcopy(made)
    change(other["digits"])
    folder, why = destination(out, other)
    if message is None:
        assert (folder, why) == (out, None)
    else:
        assert folder == tmp_path / "digits-smaller"
        with pytest.raises(ValueError, match=message):
            raise ValueError(why)
    assert destination(out, other, replace=True) == (out, None)


@pytest.mark.parametrize("content", [None, "", "[]", '{"digits": {"vaal": 3}}', "[" * 100_000])
def test_a_picture_that_does_not_say_is_left_alone(content, tmp_path):
    """One of an earlier version, or a damaged record."""
    out = tmp_path / "digits"
    out.mkdir()
    if content is not None:
        (out / "made_of.json").write_text(content)
    made = of_results(results(1, 1))
    assert destination(out, made) == (out, None)  # there is no picture yet
    (out / "digits.png").touch()
    folder, why = destination(out, made)
    assert folder == tmp_path / "digits-smaller"
    assert "does not say what it was made of (made_of.json)" in why


def test_no_absolute_path_is_handed_on(tmp_path):
    made = of_results(results(1, 1, dataset="folder:/home/somebody/cats"))
    assert "somebody" not in json.dumps(made)
    assert made["digits"]["vaal"]["data"] == "folder:cats"


def test_captions():
    made = of_results(results(3, 4))["digits"]
    text = "3 seeds, 4 queries of 10 from the whole pool, 100 steps a training"
    assert caption(list(made.values())) == text
    made["vaal"] |= {"queries": {"0": 1}, "pool_size": 2000, "steps": 1000}
    assert caption(list(made.values())) == (
        "1 to 3 seeds, 1 to 4 queries of 10 from 2,000 to all samples of the pool, 100 to 1,000 "
        "steps a training"
    )
    assert caption([made["vaal"]]) == (
        "1 seed, 1 query of 10 from 2,000 samples of the pool, 1,000 steps a training"
    )


def test_the_picture_and_the_table_say_the_same(monkeypatch, tmp_path):
    captions = []
    monkeypatch.setattr(
        show_module,
        "draw_learning_curves",
        lambda path, curves, dataset, made_of: captions.append((made_of, curves)),
    )
    shown(results(3, 2), tmp_path / "digits")
    ((text, curves),) = captions
    assert text == "3 seeds, 2 queries of 10 from the whole pool, 100 steps a training"
    table = (tmp_path / "digits" / "digits.md").read_text()
    assert "2 queries of 10 from the whole pool; 100 steps a training" in table
    # The curve has its points at 20, 30 and 40 labels; the table leaves the first one out.
    assert curves[0].labels.tolist() == [20, 30, 40]
    assert "| labelled samples (queried) | 30 (10) | 40 (20) |" in table
    assert "how many labelled samples the network was trained on, as the picture's axis" in table
    assert "paper" not in table
    cells = table_cells(results(1, 2)["digits"], "digits")
    assert {(cell.labels, cell.annotations) for cell in cells} == {(30, 10), (40, 20)}

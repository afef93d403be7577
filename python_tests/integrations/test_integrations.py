"""What the adapters share, and their examples."""

import logging
import re
import runpy
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from small_pool import SETTINGS, Network, expected_choice, expected_scores, samples

from vaal_ext.integrations.query import LDRQuery

EXAMPLES = Path(__file__).parents[2] / "examples"
LIBRARIES = {
    "baal": ["baal"],
    "deepal": [],
    "modal": ["modAL", "skorch"],
    "ray": ["ray"],
    "skactiveml": ["skactiveml", "skorch"],
    "small_text": ["small_text", "transformers"],
    "transformers": ["transformers"],
}


def test_every_adapter_has_an_example():
    root = EXAMPLES.parent
    adapters = {path.stem for path in (root / "vaal_ext/integrations").glob("[!_]*.py")}
    assert adapters - {"query"} == set(LIBRARIES)
    assert {path.stem for path in EXAMPLES.glob("with_*.py")} == {f"with_{n}" for n in LIBRARIES}


@pytest.mark.filterwarnings("ignore:getName:DeprecationWarning")  # baal's logger
@pytest.mark.parametrize("name", LIBRARIES)
def test_examples_run(name, tmp_path, monkeypatch, capsys):
    for library in LIBRARIES[name]:
        pytest.importorskip(library)
    if name == "ray" and " " in sys.executable:
        pytest.skip("Ray starts no actors from a Python in a path with a blank")
    path = EXAMPLES / f"with_{name}.py"
    assert len(path.read_text().splitlines()) < 40
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    state, disabled = np.random.get_state(), logging.root.manager.disable
    with torch.random.fork_rng(devices=[]):
        try:
            runpy.run_path(str(path))
        finally:
            np.random.set_state(state)
            logging.disable(disabled)
    printed = capsys.readouterr().out
    if name == "transformers":
        assert len(set(re.findall(r"text \d+", printed))) == 5
    else:
        labels = [int(n) for n in re.findall(r"(\d+) labels", printed)]
        assert labels == list(range(labels[0], labels[-1] + 1, labels[1] - labels[0]))
        assert float(re.findall(r"accuracy (\S+)", printed)[-1]) > 0.7  # by chance 0.1 or 0.5


def test_a_query_is_scores_and_choice():
    X, index = samples(), np.arange(60) + 100
    query = LDRQuery(**SETTINGS, seed=2)
    scores = query.score(Network(), X, index)
    expected = expected_scores(Network(), X, index, seed=2)
    assert np.array_equal(scores.ldr, expected.ldr)
    assert np.array_equal(scores.index, index)
    assert np.array_equal(query.choose(scores, 8), expected_choice(expected, 8))


def test_settings_and_defaults_reach_scorer_and_selection():
    X = samples()

    def swapped(output):
        return output[:, [1, 0, 2]]

    scores = LDRQuery(**SETTINGS).score(Network(), X, None, logits_fn=swapped)
    plain = LDRQuery(**SETTINGS).score(Network(), X, None)
    assert np.array_equal(scores.pseudo_label, np.array([1, 0, 2])[plain.pseudo_label])
    # What the user sets goes before what an adapter sets.
    own = LDRQuery(**SETTINGS, logits_fn=lambda output: output)
    assert np.array_equal(
        own.score(Network(), X, None, logits_fn=swapped).pseudo_label, plain.pseudo_label
    )
    prior = [0.0, 0.0, 1.0]
    (chosen,) = LDRQuery(**(SETTINGS | {"class_prior": prior})).choose(plain, 1)
    assert plain.pseudo_label[chosen] == 2
    mean = LDRQuery(**(SETTINGS | {"class_prior": "predicted"})).choose(plain, 10)
    assert len(set(mean)) == 10
    random = [LDRQuery(**(SETTINGS | {"order": "random"}), seed=s) for s in (1, 1, 2)]
    first, again, other = (query.choose(plain, 8) for query in random)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"xi": 0.0}, ValueError),
        ({"eps": "1"}, TypeError),
        ({"seed": -1}, ValueError),
        ({"percentile": 101}, ValueError),
        ({"class_prior": "even"}, ValueError),
        ({"order": "up"}, ValueError),
        ({"batch_size": 0}, ValueError),
        ({"color": "red"}, TypeError),
    ],
)
def test_bad_settings_are_refused_at_once(settings, error):
    (name,) = settings
    with pytest.raises(error, match=name):
        LDRQuery(**(SETTINGS | settings))

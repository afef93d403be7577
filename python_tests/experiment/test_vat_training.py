"""Training with the regulariser, and runs whose strategy ends in +vat."""

from __future__ import annotations

import csv
import json
from dataclasses import replace

import pytest
import torch
from fake_recorder import FakeRecorder
from torch import nn

from vaal_ext import ldr_scores
from vaal_ext.cuda.graphs import Replayed
from vaal_ext.experiment import each_round, training
from vaal_ext.experiment.datasets.load import load_dataset
from vaal_ext.experiment.defaults import SETTINGS
from vaal_ext.experiment.loop import RunConfig, run
from vaal_ext.experiment.seeds import Stream, seeded, stream_seed
from vaal_ext.experiment.training import train
from vaal_ext.models import MLP
from vaal_ext.perturbation.search import SearchSettings
from vaal_ext.vat import VatSettings, VatTerm, vat_loss

VAT = VatSettings(weight=1.0, search=SearchSettings(eps=0.3))
STEPS = {"vat_method": "finite-difference"}
SMALL = RunConfig(
    "moons", "random", rounds=1, initial=6, query_size=5, steps=5, device="cpu",
)  # fmt: skip


@pytest.fixture(scope="module")
def moons():
    return load_dataset("moons")


def network(dropout=0.0, seed=0):
    with seeded(seed, torch.device("cpu")):
        return MLP(2, 2, hidden=16, dropout=dropout)


def trained(data, vat, *, dropout=0.5, steps=30):
    model = network(dropout)
    x, y = data.train_x[:20], data.train_y[:20]
    loss = train(
        model, x, y, steps=steps, learning_rate=0.01, batch_size=8, seed=3, vat=vat
    )  # fmt: skip
    return loss, model


def assert_same_weights(one, other):
    for name, weight in one.state_dict().items():
        assert torch.equal(weight, other.state_dict()[name]), name


def test_the_term_draws_new_directions_every_time(moons):
    model, batch = network(), torch.tensor([5, 0, 7])
    settings = {"eps": VAT.search.eps, "seed": 9}
    term = VatTerm(replace(VAT, weight=0.5), moons.train_x, 9)
    for drawn in (0, 3, 6):
        index = torch.arange(drawn, drawn + 3)
        expected = vat_loss(model, moons.train_x[batch], sample_index=index, **settings)
        assert torch.equal(term(model, batch), 0.5 * expected)


def test_the_term_has_dropout_off_and_puts_it_back(moons):
    model, batch = network(dropout=0.5).train(), torch.arange(4)
    model[3].eval()
    flags = [module.training for module in model.modules()]
    value = VatTerm(VAT, moons.train_x, 9)(model, batch)
    assert [module.training for module in model.modules()] == flags
    assert torch.equal(value, VatTerm(VAT, moons.train_x, 9)(model.eval(), batch))
    broken = VatTerm(VAT, moons.train_x[:, :1], 9)
    with pytest.raises(RuntimeError):
        broken(model.train(), batch)
    assert all(module.training for module in model.modules())


def test_training_minimises_equation_3(moons):
    term = VatTerm(replace(VAT, weight=2.0), moons.train_x, 11)
    _, model = trained(moons, term, dropout=0.0, steps=4)
    by_hand = network()
    optimiser = torch.optim.Adam(by_hand.parameters(), lr=0.01)
    everything = torch.randperm(800, generator=torch.Generator().manual_seed(11))
    with seeded(3, torch.device("cpu")):
        labelled = torch.cat([torch.randperm(20), torch.randperm(20)])
    for step in range(4):
        one, other = labelled[8 * step :][:8], everything[8 * step :][:8]
        loss = nn.functional.cross_entropy(by_hand(moons.train_x[one]), moons.train_y[one])
        loss = loss + 2.0 * vat_loss(
            by_hand,
            moons.train_x[other],
            eps=VAT.search.eps,
            seed=11,
            sample_index=torch.arange(8 * step, 8 * step + 8),
        )
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert_same_weights(model, by_hand)


@pytest.mark.parametrize(
    ("decay", "expected"),
    [
        (0.0, [1.0] * 10),
        (0.5, [1.0] * 5 + [1.0, 0.8, 0.6, 0.4, 0.2]),
        (0.25, [1.0] * 8 + [0.8, 0.4]),  # two steps and a half
        (1.0, [1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1]),
    ],
)
def test_the_learning_rate_falls_in_the_last_part_of_a_training(
    decay, expected, moons, monkeypatch
):
    rates = []

    class Watched(torch.optim.Adam):
        def step(self, *arguments):
            rates.append(self.param_groups[0]["lr"])
            return super().step(*arguments)

    monkeypatch.setattr(torch.optim, "Adam", Watched)
    trained(moons, VatTerm(replace(VAT, decay=decay), moons.train_x, 11), steps=10)
    assert rates == pytest.approx([0.01 * share for share in expected], rel=1e-12)
    rates.clear()
    trained(moons, None, steps=10)
    assert rates == [0.01] * 10


def test_a_vanishing_weight_is_plain_training(moons):
    # The term is lost in the rounding of the loss and of every gradient; what is drawn for it must
    # disturb neither the labelled batches nor dropout.
    loss, model = trained(moons, VatTerm(replace(VAT, weight=1e-42), moons.train_x, 11))
    plain_loss, plain = trained(moons, None)
    assert loss == plain_loss
    assert_same_weights(model, plain)


def test_it_is_reproducible_and_smooths(moons):
    def roughness(model):
        return ldr_scores(model, moons.train_x, eps=VAT.search.eps).mean().item()

    runs = [
        trained(moons, VatTerm(VAT, moons.train_x, 11), dropout=0.1, steps=200) for _ in range(2)
    ]
    assert runs[0][0] == runs[1][0]
    assert_same_weights(runs[0][1], runs[1][1])
    plain = trained(moons, None, dropout=0.1, steps=200)
    assert roughness(runs[0][1]) < 0.5 * roughness(plain[1])


def test_a_recorded_step_trains_as_the_plain_one_does(moons, monkeypatch):
    def regularised():
        return trained(moons, VatTerm(VAT, moons.train_x, 11))

    plain_loss, plain = regularised()
    recorder = FakeRecorder()
    monkeypatch.setattr(
        training, "replayed", lambda step, *_: Replayed(step, recorder, required=True)
    )
    loss, recorded = regularised()
    assert loss == plain_loss
    assert_same_weights(recorded, plain)
    assert recorder.log.count(("replay", 16)) == 29


# --- runs -------------------------------------------------------------------------------------


def rounds(path):
    with open(path / "rounds.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_random_with_and_without_begin_from_the_same_labels_and_weights(tmp_path, monkeypatch):
    begun = []

    def watched(model, x, y, **settings):
        begun.append(({k: v.clone() for k, v in model.state_dict().items()}, x, y, settings))
        return train(model, x, y, **settings)

    monkeypatch.setattr(each_round, "train", watched)
    monkeypatch.setattr(each_round, "model_for", lambda data, seed: network(0.5, seed))
    for strategy in ("random", "random+vat"):
        run(replace(SMALL, strategy=strategy), tmp_path / strategy, progress=False)
    plain, other = tmp_path / "random", tmp_path / "random+vat"
    # Random queries do not look at the network: all the labels are the same, round after round.
    for name in ("query_000.csv", "query_001.csv"):
        assert (plain / name).read_bytes() == (other / name).read_bytes()
    assert len(begun) == 4
    for (weights, x, y, settings), (its_weights, its_x, its_y, its_settings) in zip(
        begun[:2], begun[2:], strict=True
    ):
        assert all(torch.equal(weights[name], its_weights[name]) for name in weights)
        assert torch.equal(x, its_x)
        assert torch.equal(y, its_y)
        assert settings.pop("vat") is None
        assert len(its_settings.pop("vat").x) == 800  # labelled and unlabelled
        assert settings == its_settings
    assert rounds(plain)[0]["train_loss"] != rounds(other)[0]["train_loss"]


def test_the_regulariser_has_a_seed_of_its_own_in_every_round(tmp_path, monkeypatch):
    seeds = []

    def watched(*arguments, vat, **settings):
        seeds.append(vat.seed)
        return train(*arguments, vat=vat, **settings)

    monkeypatch.setattr(each_round, "train", watched)
    run(replace(SMALL, strategy="entropy+vat"), tmp_path / "run", progress=False)
    assert seeds == [stream_seed(0, Stream.VAT, number) for number in (0, 1)]


@pytest.mark.parametrize("name", ["random", "entropy", "margin", "vaal"])
def test_the_suffix_leaves_the_query_strategy_as_it_is(name):
    plain, regularised = (
        replace(SMALL, strategy=name + suffix).resolved() for suffix in ("", "+vat")
    )
    assert plain.strategy == regularised.strategy
    assert plain.regulariser is None
    names = ("weight", "method", "xi", "eps", "num_iters", "decay")
    assert {getattr(plain.settings, f"vat_{name}") for name in names} == {None}
    row = SETTINGS["moons"]
    made = VatSettings(row.vat_weight, SearchSettings(eps=row.vat_eps), row.vat_decay)
    assert regularised.regulariser == made
    lengths = {"eps": row.vat_eps, "xi": row.vat_xi}
    steps = {"method": "finite-difference", "num_iters": row.vat_num_iters}
    made = VatSettings(row.vat_weight, SearchSettings(**lengths, **steps), row.vat_decay)
    stepped = replace(SMALL, strategy=name + "+vat", vat_method="finite-difference").resolved()
    assert stepped.regulariser == made
    own = replace(SMALL, strategy=name + "+vat", vat_eps=0.7, vat_decay=0.3).resolved().regulariser
    assert (own.search.eps, own.decay) == (0.7, 0.3)


def test_a_row_may_have_a_number_of_steps_for_the_regulariser(monkeypatch):
    plain, regularised = RunConfig("moons", "vaal"), RunConfig("moons", "vaal+vat")
    steps = SETTINGS["moons"].steps
    for config in (plain, regularised):
        assert config.resolved().training.steps == steps
    monkeypatch.setitem(SETTINGS, "moons", replace(SETTINGS["moons"], vat_steps=7))
    assert plain.resolved().training.steps == steps
    assert regularised.resolved().training.steps == 7
    assert replace(regularised, steps=3).resolved().training.steps == 3


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"strategy": "random+vap"}, ValueError, r"may have \+vat .* got 'random\+vap'"),
        ({"strategy": "random+vat+vat"}, ValueError, r"may have \+vat"),
        ({"strategy": "random+"}, ValueError, r"may have \+vat"),
        ({"strategy": "best+vat"}, ValueError, r"random, .*, typiclust, got 'best'"),
        ({"strategy": "random", "vat_eps": 1.0}, ValueError, r"vat_eps is for .* \+vat, got"),
        ({"vat_eps": -1.0}, ValueError, "of the regulariser: eps must be finite and above 0"),
        ({**STEPS, "vat_xi": "1"}, TypeError, "of the regulariser: xi must be a number"),
        ({"vat_xi": 0.1}, ValueError, "of the regulariser: xi must be None with method='direct'"),
        (
            {**STEPS, "vat_num_iters": 0},
            ValueError,
            "of the regulariser: num_iters must be at least 1",
        ),
        ({"vat_weight": 0.0}, ValueError, "of the regulariser: weight must be finite and above 0"),
        ({"vat_decay": 1.5}, ValueError, r"of the regulariser: decay must be in \[0, 1\], got 1.5"),
        ({"vat_decay": float("nan")}, ValueError, "decay must be in"),
        ({"vat_decay": "half"}, TypeError, "of the regulariser: decay must be a number"),
        ({"strategy": "random", "vat_decay": 0.5}, ValueError, r"vat_decay is for .* \+vat"),
    ],
)
def test_bad_settings_are_refused_before_anything_is_made(change, error, message, tmp_path):
    with pytest.raises(error, match=message):
        run(replace(SMALL, **{"strategy": "random+vat"} | change), tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


def test_a_run_of_before_there_was_a_decay_had_none(tmp_path):
    folder, config = tmp_path / "run", replace(SMALL, strategy="random+vat")
    run(config, folder, progress=False)
    content = json.loads((folder / "config.json").read_text())
    assert content["config"].pop("vat_decay") == 0.0
    (folder / "config.json").write_text(json.dumps(content))
    (folder / ".checksums.json").unlink()  # which there was not then either
    run(config, folder, progress=False)
    with pytest.raises(ValueError, match=r"vat_decay is 0\.0 there and 0\.5 here"):
        run(replace(config, vat_decay=0.5), folder, progress=False)

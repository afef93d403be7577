"""What a scorer says of a pool's first samples: no logits, a network that moves, noise, bytes."""

import warnings
from functools import partial

import numpy as np
import pytest
import small_network
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from vaal_ext import LDRScorer, ldr_scores
from vaal_ext.perturbation.deepfool import deepfool
from vaal_ext.perturbation.ldr import LDR
from vaal_ext.perturbation.search import SearchSettings
from vaal_ext.pool import first_batch
from vaal_ext.scorer import deepfool_scores, posterior_scores
from vaal_ext.vat import vat_loss

network = partial(small_network.network, classes=5, dtype=torch.float32)
normal = partial(small_network.normal, dtype=torch.float32)

STEP = {"method": "finite-difference", "xi": 0.1, "eps": 0.5, "num_iters": 2}
PROBABILITIES, RANDOM, NEIGHBOURS = "gives probabilities", "asked again", "other samples of its"


def score(model, x, **settings):
    return LDRScorer(model, **(STEP | settings)).score(x, progress=False)


def warned(work):
    """The texts of the warnings, all of which must name this file."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        work()
    assert {warning.filename for warning in caught} <= {__file__}
    return [str(warning.message) for warning in caught]


# --- outputs that are no logits ---------------------------------------------------------------

ENTRANCES = {
    "scorer": score,
    "posterior": lambda model, x: posterior_scores(model, x, progress=False),
    "deepfool_scores": lambda model, x: deepfool_scores(model, x, progress=False, max_iter=1),
    "deepfool": lambda model, x: deepfool(model, x, max_iter=1),
    "batch": lambda model, x: ldr_scores(model, x, **STEP),
    "vat": lambda model, x: vat_loss(model, x, **STEP),
}


@pytest.mark.filterwarnings("ignore:DeepFool reached")
@pytest.mark.parametrize("entrance", ENTRANCES)
def test_probabilities_are_named_and_their_logarithms_welcome(entrance):
    def told(*behind, **kind):
        texts = warned(lambda: ENTRANCES[entrance](network(*behind, **kind), normal(9)))
        return [text for text in texts if PROBABILITIES in text]

    (text,) = told(nn.Softmax(1))
    assert "(its module '3')" in text
    assert "logits_fn=torch.log" in text
    assert len(told(nn.Softmax(1), classes=3000)) == 1
    assert told() == told(nn.LogSoftmax(1)) == []


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_probabilities_in_other_dtypes(dtype):
    model, x = network(nn.Softmax(1), dtype=dtype), normal(70, dtype=dtype)
    assert any(PROBABILITIES in text for text in warned(lambda: posterior_scores(model, x)))


def test_the_outputs_of_a_sigmoid_are_named():
    def told(*behind):
        return warned(lambda: posterior_scores(network(*behind), normal(70), progress=False))

    (text,) = told(nn.Sigmoid())
    assert "all 320 outputs" in text  # of 64 samples and five classes
    assert "logits_fn=torch.logit" in text
    assert told(nn.ReLU()) == told(nn.Tanh()) == []


def test_one_row_that_looks_like_probabilities_is_chance():
    def model(x):
        return torch.cat([torch.softmax(x[:1], 1), x[1:]])

    assert warned(lambda: posterior_scores(model, normal(9).abs(), progress=False)) == []


@pytest.mark.parametrize("entrance", ENTRANCES)
def test_one_column_is_refused_and_the_way_shown_is_right(entrance):
    with pytest.raises(ValueError, match=r"torch\.cat\(\[0 \* z, z\], 1\)"):
        ENTRANCES[entrance](network(classes=1), normal(9))


def test_the_logit_of_two_classes_scores_as_both_do():
    single, x = network(classes=1, dtype=torch.float64), normal(9, dtype=torch.float64)

    def both(z):
        return torch.cat([0 * z, z], 1)

    expected = ldr_scores(lambda x: both(single(x)), x, **STEP)
    assert torch.equal(ldr_scores(single, x, **STEP, logits_fn=both), expected)
    assert (expected > 0).all()


@pytest.mark.parametrize("kind", ["attribute", "dict"])
def test_an_outputs_own_logits_are_taken(kind):
    inner, x = network(), normal(9)

    class Output:
        def __init__(self, logits):
            self.logits = logits

    def model(x):
        return Output(inner(x)) if kind == "attribute" else {"loss": None, "logits": inner(x)}

    for entrance in (ldr_scores, vat_loss):
        assert torch.equal(entrance(model, x, **STEP), entrance(inner, x, **STEP))
    with pytest.raises(TypeError, match="gave dict where logits"):
        ldr_scores(lambda x: {"scores": inner(x)}, x, **STEP)


# --- networks that are not still ------------------------------------------------------------------


class Dropout(nn.Module):
    """baal's: on in eval mode too."""

    def forward(self, x):
        return functional.dropout(x, 0.1, training=True)


class Forgetful(nn.Module):
    """The usual mistake: training=self.training is not passed on."""

    def __init__(self):
        super().__init__()
        self.inner = network()

    def forward(self, x):
        return self.inner(functional.dropout(x, 0.1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("entrance", ["scorer", "posterior", "deepfool_scores"])
def test_dropout_that_stays_on_is_named(entrance, dtype):
    model, x = network(between=[Dropout()], dtype=dtype), normal(20, dtype=dtype)
    texts = [text for text in warned(lambda: ENTRANCES[entrance](model, x)) if RANDOM in text]
    assert len(texts) == 1
    assert "(dropout that stays on: 1)" in texts[0]


def test_randomness_that_no_module_shows():
    (text,) = warned(lambda: score(Forgetful(), normal(20)))
    assert RANDOM in text
    assert "training=self.training" in text
    assert "stays on:" not in text


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_batch_norm_without_running_statistics_is_named(dtype):
    kind = {"dtype": dtype, "between": [nn.BatchNorm1d(16, track_running_stats=False)]}
    x = normal(20, dtype=dtype)
    texts = warned(lambda: posterior_scores(network(**kind), x, progress=False))
    assert [NEIGHBOURS in text for text in texts] == [True]
    assert "(batch norm without running statistics: 1)" in texts[0]
    for layer in (nn.BatchNorm1d(16), nn.GroupNorm(4, 16), nn.Dropout(0.5)):
        still = network(between=[layer], dtype=dtype).train()
        assert warned(lambda: posterior_scores(still, x, progress=False)) == []  # noqa: B023


@pytest.mark.parametrize(
    ("size", "round_the_end"),
    [(2, True), (3, True), (3, False), (4, True), (5, False), (64, True), (200, False)],
)
def test_samples_that_are_mixed_at_any_distance(size, round_the_end):
    inner, x = network(), normal(size)

    def told(distance):
        def model(x):
            other = torch.roll(x, distance, 0)
            if not round_the_end:
                other[:distance] = 0
            return inner(x + 0.5 * other)

        return [NEIGHBOURS in text for text in warned(lambda: posterior_scores(model, x))]

    # Without a way round the end a third of a batch is always within reach of its middle.
    most = min(size, 64) - 1 if round_the_end else min(size, 64) // 3
    for distance in range(1, most + 1):
        assert told(distance) == [True], distance


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_rounding_is_no_movement(dtype):
    """Every logit is off by up to 4 ulps (1 in the half types) at random, in every forward: more
    than the order of sums does where products are added up in float32."""
    inner, generator = network(dtype=dtype), torch.Generator().manual_seed(2)
    ulps = 4 if dtype == torch.float32 else 1

    def model(x):
        logits = inner(x)
        moved = torch.randint(-ulps, ulps + 1, logits.shape, generator=generator)
        return logits * (1 + moved * torch.finfo(dtype).eps).to(logits.dtype)

    for size in (7, 64, 200):
        x = normal(200, dtype=dtype)
        assert warned(lambda: posterior_scores(model, x, batch_size=size, progress=False)) == []  # noqa: B023


# --- what is not touched --------------------------------------------------------------------------


def test_scores_and_random_states_are_what_they_are_without_looks():
    model, x = network(nn.Dropout(0.5)).train(), normal(90)
    index = torch.arange(90) + 5
    model.eval()
    with torch.no_grad():
        found = LDR(SearchSettings(**STEP)).run(model, x, index)
    model.train()
    for pool in (x, DataLoader(TensorDataset(x), batch_size=90)):
        before = torch.get_rng_state()
        scores = LDRScorer(model, **STEP).score(pool, sample_index=index, progress=False)
        assert torch.equal(torch.get_rng_state(), before)
        assert np.array_equal(scores.ldr, found.value.float().numpy())
    assert model.training


def test_copies_of_one_sample_have_no_ranks_to_differ_in():
    x = normal(1).expand(100, -1).clone()
    assert not warned(lambda: LDRScorer(network(), eps=0.5).score(x, progress=False))


def test_a_look_that_fails_stops_nothing():
    inner, x = network(), normal(200)

    def exported(x):
        if len(x) != 100:
            raise RuntimeError("a program for 100 samples")
        return inner(x)

    found = score(exported, x, batch_size=100)
    assert np.array_equal(found.ldr, score(inner, x, batch_size=100).ldr)
    with pytest.raises(RuntimeError, match="for 100 samples"):
        score(exported, x, batch_size=50)


# --- what the network gets --------------------------------------------------------------------


def test_what_the_network_gets_is_told_where_a_bar_shows(capsys, monkeypatch):
    x = torch.zeros(80, 3, 2, 2, dtype=torch.uint8)
    x[::2] = 255
    monkeypatch.setattr(first_batch, "_told", set())
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    scorer = LDRScorer(model, **STEP, normalize=(0.5, 0.25))
    scorer.score(x, progress=False)
    assert capsys.readouterr().err == ""
    scorer.score(x)
    said = "the network gets float32 [3, 2, 2]: -2 to 2, mean 0, standard deviation 2"
    assert f"{said} (the first 64 samples)\n" in capsys.readouterr().err
    scorer.score(x[3:])  # the same kind of samples: the next round of a loop, say
    assert capsys.readouterr().err == ""
    LDRScorer(model, **STEP, normalize=(0.5, 0.5)).score(x)
    assert "[3, 2, 2]: -1 to 1, mean 0, standard deviation 1" in capsys.readouterr().err


def test_bytes_that_nobody_scaled_are_told():
    images = torch.randint(256, (40, 3, 4, 4), generator=torch.Generator().manual_seed(0))
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 3))

    def told(x, **settings):
        return [text for text in warned(lambda: score(model, x, **settings)) if "bytes" in text]

    (text,) = told(images.float())
    assert "from 0 to 255" in text
    assert "normalize=" in text
    assert told(images / 255) == told(images.float() - 128) == []
    assert told(images.byte(), normalize=(0, 1)) == []


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_weights_with_finite_differences_are_told(dtype):
    def told(model, x, **settings):
        texts = warned(lambda: score(model, x, **settings))
        return [text for text in texts if "hardly resolve" in text]

    (text,) = told(network(dtype=dtype), normal(20, dtype=dtype))
    assert f"computes in {str(dtype).removeprefix('torch.')}" in text
    assert "method='direct'" in text
    assert told(network(dtype=dtype), normal(20, dtype=dtype), xi=None, method="direct") == []
    assert told(network(), normal(20), amp="bf16") == told(network(), normal(20)) == []

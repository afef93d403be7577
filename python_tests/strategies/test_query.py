"""A query of the adapters is screened as that of the strategy `vaal` is."""

import numpy as np
import pytest
import torch
from screened_pool import EPS, Network, telling

from vaal_ext.integrations.query import LDRQuery
from vaal_ext.strategies import QueryContext, Vaal

INDEX = np.arange(6000) + 50
STEPS = {"method": "finite-difference", "xi": 0.01}


@pytest.mark.parametrize(
    ("settings", "n", "left_out"),
    [
        ({}, 100, 5400),
        ({"percentile": 95.0, "order": "descending", "class_prior": None}, 100, 5700),
        ({"percentile": 95.0, "order": "random"}, 100, 5700),
        ({}, 900, 5100),  # 300 of them are from below the percentile
        ({}, None, 0),
        ({}, 6000, 0),
        (STEPS, 100, 0),
    ],
)
def test_what_is_left_out_and_what_is_chosen(settings, n, left_out):
    query = LDRQuery(eps=EPS, seed=4, **settings)
    scores = query.score(Network(), telling(), torch.from_numpy(INDEX), n)
    whole = query.score(Network(), telling(), torch.from_numpy(INDEX))
    assert (scores.left_out.sum(), whole.left_out.sum()) == (left_out, 0)
    chosen = query.choose(scores, n or 100).tolist()
    assert chosen == query.choose(whole, n or 100).tolist()
    strategy = Vaal(eps=EPS, **settings)
    context = QueryContext(INDEX, num_classes=3, seed=4, n=n)
    scores = strategy.score(Network(), telling(), context)
    assert scores.left_out.sum() == left_out
    assert strategy.pick(scores, n or 100, context).tolist() == chosen


def test_more_than_there_is_is_refused_by_the_choice():
    query = LDRQuery(eps=EPS)
    scores = query.score(Network(), telling()[:500], None, 501)
    with pytest.raises(ValueError, match="at most the 500 samples"):
        query.choose(scores, 501)

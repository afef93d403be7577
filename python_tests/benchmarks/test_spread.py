"""spread.py: its vectors are those of the search, and its k-means++ is that of the products."""

import numpy as np
import pytest
import torch
from spread import EPS, QUERIES, above, clustered, spread, vectors
from strategy_tables import ahead
from strategy_tables import spread as table

from vaal_ext import ldr_scores
from vaal_ext.models import MLP


@pytest.fixture(scope="module")
def found():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model, pool = MLP(6, 4, hidden=12), torch.randn(40, 6)
    return model, pool, vectors(model, pool, batch=16)


def test_the_vectors_are_unit_and_as_long_as_the_roughness(found):
    model, pool, of = found
    expected = ldr_scores(model, pool, eps=EPS)
    np.testing.assert_allclose(of["ldr"], expected.numpy(), rtol=1e-3)
    for name, width in (("u", 6), ("e", 12), ("w", 4)):
        assert of[name].shape == (40, width)
        np.testing.assert_allclose(np.linalg.norm(of[name], axis=1), 1, rtol=1e-5)


def test_products_need_not_be_formed(found):
    """The same picks as of √LDR·(u⊗e) written out, drawn with the same numbers."""
    _, _, of = found
    outer = np.einsum("na,nb->nab", of["u"], of["e"]).reshape(40, -1)
    written_out = of | {"u⊗e": outer}
    picked = spread("u", "e")(of, 12, np.random.default_rng(3))
    assert picked.tolist() == spread("u⊗e")(written_out, 12, np.random.default_rng(3)).tolist()
    assert len(set(picked.tolist())) == 12
    assert picked[0] == of["ldr"].argmax()


def test_clusters_give_as_many_samples_near_their_centres(found):
    """Two far groups, weights in one alone: all centres, and so all picks, lie there."""
    rng = np.random.default_rng(0)
    embedding = np.concatenate([rng.normal(0, 1, (10, 3)), rng.normal(1000, 1, (10, 3))])
    of = {"embedding": embedding, "ldr": np.repeat([1.0, 0.0], 10)}
    picked = clustered("ldr")(of, 4, rng)
    assert len(set(picked.tolist())) == 4
    assert picked.max() < 10


def test_candidates_rank_above_the_percentile(found):
    _, _, of = found
    picked = above(70, spread("u"))(of, 12, np.random.default_rng(0))
    assert set(picked.tolist()) == set(np.argsort(of["ldr"])[-12:].tolist())
    for pick in QUERIES.values():
        if callable(pick):
            assert len(set(pick(of, 4, np.random.default_rng(0)).tolist())) == 4


def test_the_table_ranks_by_the_lead_over_margin(tmp_path):
    path = tmp_path / "spread.csv"
    areas = {"margin": (80.0, 82.0), "badge": (81.0, 83.5), "vaal": (79.0, 81.0)}
    path.write_text(
        "data,query,seed,val_area,test_area\n"
        + "".join(
            f"digits,{q},{s},{v},0\n" for q, values in areas.items() for s, v in enumerate(values)
        )
    )
    lines = table(path).splitlines()[2:]
    assert [line.split("|")[1].strip() for line in lines] == ["`badge`", "`margin`", "`vaal`"]
    assert "+1.2 ± 0.5" in lines[0]
    assert "-1.0 ± 0.0" in lines[2]


def test_who_is_ahead(tmp_path):
    folder = tmp_path / "digits" / "statistics_digits"
    folder.mkdir(parents=True)
    accuracy = {"vaal": 0.90, "margin": 0.92, "random": 0.8, "vaal+vat": 0.95, "random+vat": 0.94}
    rows = [
        f"{name},{seed},{labels},{value + 0.001 * seed + labels / 1e5},0.1"
        for name, value in accuracy.items()
        for seed in range(6)
        for labels in (20, 30, 40)
    ]
    (folder / "runs.csv").write_text(
        "strategy,seed,labels,accuracy,train_seconds\n" + "\n".join(rows) + "\n"
    )
    first, last = ahead(tmp_path).splitlines()[2:]
    assert "| digits | 30 | `margin` 92.3 % | +2.0 [+2.0, +2.0], p = 0.12, 6 seeds |" in first
    assert "`vaal+vat` 95.3 % | +1.0 [+1.0, +1.0] of `random+vat`, p = 0.12, 6 seeds |" in last

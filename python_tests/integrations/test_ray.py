"""Ray Data, on a local Ray."""

import sys

import numpy as np
import pytest
import small_pool
from small_pool import SEARCH, Network, allowed, expected_scores, samples

pytest.importorskip("ray")
if " " in sys.executable:
    pytest.skip(
        "Ray starts no actors from a Python in a path with a blank", allow_module_level=True
    )

import ray
from ray.data import from_items

from vaal_ext.integrations.ray import LDRBatches, select_rows
from vaal_ext.selection import select

SCORER = SEARCH
INDEX = np.random.default_rng(1).permutation(60) + 100


@pytest.fixture(scope="module", autouse=True)
def local_ray():
    ray.cloudpickle.register_pickle_by_value(small_pool)
    ray.init(
        num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=100_000_000
    )
    ray.data.DataContext.get_current().enable_progress_bars = False
    yield
    ray.shutdown()


def rows(**columns):
    return from_items(
        [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)],
        override_num_blocks=3,
    )


@pytest.mark.rounding
def test_actors_score_as_one_process_does():
    pool = rows(sample_index=INDEX.tolist(), x=list(samples()), name=[f"{i}" for i in INDEX])
    arguments = {"model": Network, "seed": 4, **SCORER}
    scored = pool.map_batches(
        LDRBatches, batch_size=7, concurrency=2, fn_constructor_kwargs=arguments
    )
    batches = list(scored.iter_batches(batch_size=None))
    found = {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}
    in_order = np.argsort(found["sample_index"])
    found = {name: column[in_order] for name, column in found.items()}
    expected = expected_scores(Network(), samples(), INDEX, seed=4)
    order = np.argsort(INDEX)
    assert set(found) == {"sample_index", "name", "ldr", "pseudo_label", "entropy", "margin"}
    assert found["name"].tolist() == [str(index) for index in found["sample_index"]]
    assert np.array_equal(found["pseudo_label"], expected.pseudo_label[order])
    assert all(found[name].dtype == np.float32 for name in ("ldr", "entropy", "margin"))
    # Other batches, so other orders of the networks' sums.
    error = np.abs(found["ldr"] / expected.ldr[order] - 1)
    assert (error <= allowed(expected, seed=4)[order]).all()
    for name in ("entropy", "margin"):  # logits of at most 10 to 1e-6
        np.testing.assert_allclose(found[name], getattr(expected, name)[order], atol=1e-5)


@pytest.mark.parametrize(
    ("n", "options"),
    [
        (5, {"percentile": 60.0}),
        (30, {"order": "descending", "class_prior": [0.5, 0.2, 0.3]}),  # more than candidates
        (4, {"percentile": 0.0, "order": "random", "seed": 3, "class_prior": None}),
    ],
)
def test_the_query_is_that_of_select(n, options):
    rng = np.random.default_rng(n)
    ldr = rng.integers(0, 12, 60).astype(np.float32) / 7  # with ties
    ldr[[3, 50]] = np.nan
    label = rng.integers(0, 3, 60)
    scored = rows(sample_index=INDEX.tolist(), ldr=list(ldr), pseudo_label=label.tolist())
    order = np.argsort(INDEX)
    expected = INDEX[order][select(ldr[order], label[order], n, **options)]
    assert np.array_equal(select_rows(scored.materialize(), n, **options), expected)


def test_bad_input():
    scored = rows(sample_index=[1, 1, 2], ldr=[0.5, 0.5, 0.1], pseudo_label=[0, 0, 0])
    with pytest.raises(ValueError, match="percentile"):
        select_rows(scored, 1, percentile=100.0)
    with pytest.raises(ValueError, match="posterior_mean"):
        select_rows(scored, 1, class_prior="predicted")
    with pytest.raises(ValueError, match="at most the 3 samples"):
        select_rows(scored, 4)
    with pytest.raises(ValueError, match="has repetitions"):
        select_rows(scored, 2)
    with pytest.raises(ValueError, match="eps"):
        LDRBatches(Network, eps=0.0)
    with pytest.raises(ValueError, match=r"no column 'sample_index', it has \['x'\]"):
        LDRBatches(Network, **SCORER)({"x": samples()})

"""What a batch launches beside the network, counted by the ops that torch dispatches on the CPU."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from watched_ops import Launches

from vaal_ext.perturbation.ldr import LDR
from vaal_ext.perturbation.measure import Posterior
from vaal_ext.perturbation.search import SearchSettings
from vaal_ext.pool.batch_run import BatchRun

CPU = torch.device("cpu")
STEP = ["mm", "symmetric_kl_direction", "mm", "perturb"]
# What becomes of the norms, the divergences and the roughness: NaN, 0, or as it is.
JUDGED = ["stack", "eq", "any", "sum", "masked_fill_", "sub", "add_"]
# The label, and where the measure failed, in the type of the other columns; and the table.
TABLE = ["_to_copy", "_to_copy", "stack"]


def launched(measure, **settings):
    """The ops of a batch of 8. The network is a product: `mm` forward, and `mm` backward."""
    model = nn.Linear(6, 4, bias=False).requires_grad_(False)
    run = BatchRun(model, None, CPU, measure, "fused", None, **settings)
    x, index = torch.randn(8, 6), torch.arange(8)
    run(x, index)
    with Launches() as launches:
        run(x, index)
    return launches.ops


def test_a_batch_of_the_direct_search():
    """Two copies: of the batch, for a network that works in place, and of the clean logits."""
    clean = ["clone", "mm", "clone", "fisher_direction", "mm", "perturb"]
    expected = [*clean, "mm", "symmetric_kl", *JUDGED, "posterior_summary", *TABLE]
    assert launched(LDR(SearchSettings(eps=1.0))) == expected


@pytest.mark.parametrize(
    ("settings", "first", "before"),
    [
        # clone, network, clone, fisher_direction, network, perturb
        ({"method": "direct"}, 0, 6),
        # random_perturb, clone, network, clone, a step
        ({"method": "finite-difference", "xi": 0.1}, 1, 4 + len(STEP)),
    ],
    ids=["direct", "finite-difference"],
)
def test_a_step_launches_two_ops_beside_the_network(settings, first, before):
    few, more = (
        launched(LDR(SearchSettings(eps=1.0, num_iters=first + steps, **settings)))
        for steps in (0, 2)
    )
    assert more == [*few[:before], *STEP, *STEP, *few[before:]]


def test_a_batch_of_the_posterior_alone():
    assert launched(Posterior()) == ["clone", "mm", "posterior_summary", "_to_copy", "stack"]
    with_curvature = launched(Posterior(), curvature=True)
    assert [op for op in with_curvature if op != "fisher_direction"] == launched(Posterior())

"""Training by CUDA graphs, without waits, on a CUDA device."""

from __future__ import annotations

import warnings
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from vaal_ext.cuda.graphs import Replayed
from vaal_ext.cuda.recorder import CudaRecorder
from vaal_ext.experiment import training
from vaal_ext.experiment.seeds import seeded
from vaal_ext.experiment.training import evaluate, train
from vaal_ext.perturbation.search import SearchSettings
from vaal_ext.vat import VatSettings, VatTerm

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
]
DEVICE = torch.device("cuda")
STEPS, LEARNING_RATE = 40, 1e-3


def data(count):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(count, 6, generator=generator, dtype=torch.float64)
    return x, torch.arange(count) % 4


def network():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        # No bias below the BatchNorm: its gradient would be mere rounding, which Adam enlarges.
        model = nn.Sequential(
            nn.Linear(6, 32, bias=False),
            nn.BatchNorm1d(32),
            nn.Tanh(),
            nn.Dropout(0.5),
            nn.Linear(32, 4),
        )
    return model.double().to(DEVICE)


def trained(cuda_graph, vat=None):
    model, (x, y) = network(), data(70)
    x, y = x.to(DEVICE), y.to(DEVICE)
    settings = {"steps": STEPS, "learning_rate": LEARNING_RATE, "batch_size": 32, "seed": 3}
    if vat is not None:
        settings["vat"] = VatTerm(vat, x, 5)
    loss = train(model, x, y, cuda_graph=cuda_graph, **settings)
    return loss, model.state_dict()


VAT = VatSettings(weight=1.0, search=SearchSettings(eps=0.5, num_iters=2))


@pytest.mark.parametrize("vat", [None, VAT, replace(VAT, decay=0.5)])
def test_graphed_steps_train_as_eager_ones(vat):
    # The same random numbers, dropout's too. In float64 a gradient is off by 1e-15 of the largest.
    # Adam divides by the gradient's own size, so an element 1e-6 of the largest is moved too far by
    # 1e-9 of the learning rate.
    loss, weights = trained(True, vat)
    eager_loss, eager = trained(False, vat)
    assert loss == pytest.approx(eager_loss, rel=1e-9)
    for name, weight in weights.items():
        torch.testing.assert_close(
            weight, eager[name], rtol=1e-9, atol=STEPS * LEARNING_RATE * 1e-9
        )


def test_graphed_training_is_reproducible_and_leaves_the_generators():
    cudnn = torch.backends.cudnn
    before = cudnn.deterministic
    cudnn.deterministic = True
    states = torch.get_rng_state(), torch.cuda.get_rng_state(DEVICE)
    try:
        first, second = trained(True), trained(True)
    finally:
        cudnn.deterministic = before
    assert first[0] == second[0]
    assert all(torch.equal(first[1][name], second[1][name]) for name in first[1])
    assert torch.equal(torch.get_rng_state(), states[0])
    assert torch.equal(torch.cuda.get_rng_state(DEVICE), states[1])


@pytest.mark.parametrize("graphed", [True, False])
def test_no_wait_within_an_epoch(graphed):
    weight = torch.ones(5, device=DEVICE, requires_grad=True)
    rate = torch.tensor(LEARNING_RATE, device=DEVICE)
    optimiser = torch.optim.Adam([weight], lr=rate, capturable=True)
    schedule = LambdaLR(optimiser, lambda taken: 1.0 - taken / 20)

    def step(batch):
        loss = (weight[batch] ** 2).sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        return (loss.detach(),)

    class Bar(list):
        total = 20

    call = Replayed(step, CudaRecorder(DEVICE), required=True) if graphed else step
    with seeded(0, DEVICE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*constructed with capturable=True")
        batches = training._batches(5, 3, DEVICE)
        torch.cuda.set_sync_debug_mode("error")
        try:
            loss = training._last_tenth(call, batches, Bar(range(20)), lambda _: schedule.step())
        finally:
            torch.cuda.set_sync_debug_mode("default")
    assert 0 < loss.item() < 3
    assert rate.item() == 0


def test_evaluation_agrees_with_the_cpu():
    model, (x, y) = network(), data(1100)
    accuracy, loss = evaluate(model, x.to(DEVICE), y.to(DEVICE))
    expected = evaluate(model.cpu(), x, y)
    assert accuracy == expected[0]
    assert loss == pytest.approx(expected[1], rel=1e-9)

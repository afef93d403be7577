"""What a CUDA graph captures, on meta tensors and with torch's real autograd engine.

A meta tensor has a device and no memory, so that it stands in for one on a GPU: whoever asks for a
value (.item(), a branch) gets an error. Nothing in these regions may touch a tensor on the host.
"""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.fx.experimental import _config as fx_config
from torch.optim import adam
from torch.optim.lr_scheduler import LRScheduler
from watched_ops import HostTensors

from vaal_ext.experiment import training
from vaal_ext.network.pixels import PixelScale
from vaal_ext.ops import _checks
from vaal_ext.perturbation.deepfool import DeepFool
from vaal_ext.perturbation.ldr import LDR
from vaal_ext.perturbation.measure import Posterior
from vaal_ext.perturbation.search import SearchSettings
from vaal_ext.pool.batch_run import BatchRun, Mode
from vaal_ext.vat import VatSettings, VatTerm, vat_loss

META = torch.device("meta")
BATCH = 8


@pytest.fixture(autouse=True)
def meta_is_cuda(monkeypatch):
    """Tensors on meta say that they are on CUDA, and the ops take them as such."""
    is_cuda = property(lambda tensor: tensor.device == META)
    monkeypatch.setattr(torch.Tensor, "is_cuda", is_cuda, raising=False)
    monkeypatch.setattr(_checks, "HAS_CUDA", True)


def network(classes=3):
    """It begins with an in-place layer."""
    with META:
        return nn.Sequential(
            nn.ReLU(inplace=True),
            nn.Conv2d(2, 4, 3, padding=1),
            nn.BatchNorm2d(4),
            nn.Tanh(),
            nn.Dropout(0.5),
            nn.Flatten(),
            nn.Linear(4 * 36, classes),
        )


def images(dtype=torch.float32):
    return torch.empty(BATCH, 2, 6, 6, dtype=dtype, device=META)


def frozen(model):
    return model.eval().requires_grad_(False)


SEARCHES = [
    {},
    {"num_iters": 2},
    {"num_iters": 1, "sign": "max", "divergence": "forward"},
    {"method": "finite-difference", "xi": 0.1, "num_iters": 2},
    {"method": "finite-difference", "xi": 0.1, "num_iters": 1, "smoothing": 0.1},
    {"method": "fisher", "num_iters": 2},
]


def scored(run, x):
    """A batch as it is replayed: what its first run made and kept (tables of pixels) is there."""
    index = torch.empty(BATCH, dtype=torch.int64, device=META)
    run(x, index)
    with HostTensors() as host:
        scores = run(x, index)
    assert host.ops == []
    assert scores.table.device == META
    assert scores.table.shape == (BATCH, len(run.columns))
    return scores


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("search", SEARCHES, ids=str)
def test_a_scored_batch(backend, search, classes):
    measure = LDR(SearchSettings(eps=1.0, backend=backend, **search))
    scored(BatchRun(frozen(network(classes)), None, META, measure, backend, None), images())


@pytest.mark.parametrize("measure", [LDR(SearchSettings(eps=1.0)), Posterior()], ids=repr)
def test_a_batch_of_bytes_in_channels_last_with_its_curvature(measure):
    pixels = PixelScale((0.5, (0.2, 0.3)))
    settings = {"mode": Mode(channels_last=True), "curvature": True}
    run = BatchRun(frozen(network()), None, META, measure, "fused", pixels, **settings)
    scored(run, images(torch.uint8))


class Texts(nn.Module):
    """Token ids [B, 5]; perturbed are their embeddings, but not where the id is 0."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(9, 4, device=META)
        self.head = nn.Linear(20, 3, device=META)

    def encode(self, ids):
        return self.embedding(ids), ids != 0, ids * 2

    def forward(self, point, mask, ids):
        assert ids.shape[:1] == point.shape[:1]
        return self.head((point * mask.unsqueeze(-1)).flatten(1))


@pytest.mark.parametrize("search", SEARCHES, ids=str)
def test_a_batch_perturbed_at_an_inner_point_with_a_mask(search):
    model = frozen(Texts())
    measure = LDR(SearchSettings(eps=1.0, **search))
    run = BatchRun(model, None, META, measure, "fused", None, model.encode)
    scored(run, torch.empty(BATCH, 5, dtype=torch.int64, device=META))


@pytest.mark.parametrize("search", SEARCHES, ids=str)
def test_the_regulariser_and_its_gradient(search):
    model, x = network().train(), images()
    index = torch.empty(BATCH, dtype=torch.int64, device=META)
    with HostTensors() as host:
        loss = vat_loss(model, x, eps=1.0, sample_index=index, entropy_weight=0.5, **search)
        loss.backward()
    assert host.ops == []
    assert all(parameter.grad.device == META for parameter in model.parameters())


class Adam(adam.Adam):
    """As it is on a GPU, where it takes all tensors at once. It does not look whether the rate, a
    tensor, is one: that happens once, when it is made."""

    def __init__(self, parameters, lr, **settings):
        assert lr.device == META
        super().__init__(parameters, lr=1e-3, foreach=True, **settings)
        for group in self.param_groups:
            group["lr"] = lr


@pytest.mark.parametrize("search", [None, *SEARCHES], ids=str)
def test_a_training_step_with_adam(monkeypatch, search):
    monkeypatch.setattr(torch.optim, "Adam", Adam)
    monkeypatch.setattr(adam, "_get_capturable_supported_devices", lambda *_, **__: ["meta"])
    # What the device keeps besides: the schedule between the steps, and the mean loss at the end.
    monkeypatch.setattr(training, "LambdaLR", lambda *_: LRScheduler.__new__(LRScheduler))
    last_tenth = training._last_tenth
    monkeypatch.setattr(
        training, "_last_tenth", lambda *a: torch.zeros_like(last_tenth(*a), device="cpu")
    )
    host = HostTensors()

    def watched(step, device, cuda_graph, read):
        def call(batch):
            with host:
                return step(batch)

        assert {tensor.device for tensor in read} == {META}
        return call

    monkeypatch.setattr(training, "replayed", watched)
    x, y = images(), torch.empty(BATCH, dtype=torch.int64, device=META)
    vat = None
    if search is not None:
        vat = VatTerm(VatSettings(weight=1.0, search=SearchSettings(eps=1.0, **search)), x, 5)
    training.train(network(), x, y, steps=3, learning_rate=1e-3, batch_size=4, seed=0, vat=vat)
    assert host.ops == []


def test_deepfool(backend):
    """No graph captures it, for samples leave the batch; on meta all are taken to stay in it."""
    model = frozen(network())
    with fx_config.patch(meta_nonzero_assume_all_nonzero=True), HostTensors() as host:
        found = DeepFool(max_iter=2, backend=backend).search(model, images())
    assert host.ops == []
    assert {tensor.device for tensor in found} == {META}

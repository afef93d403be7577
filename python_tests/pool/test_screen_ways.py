"""The screen in the ways that a pool can be run and described: the query of full scoring."""

import numpy as np
import pytest
import torch
from screened_pool import EPS, Network, telling
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from vaal_ext import LDRScorer, select
from vaal_ext.pool import plan as execution
from vaal_ext.pool.batch_run import Mode


class Through(Network):
    """The network behind a layer that autocast runs in half, and that may be in channels_last.

    Each of its sums has one term that is not 0, so that its order has no say: the numbers of a
    sample do not depend on its batch, in any format. Images hold them in their first pixel.
    """

    def __init__(self, image=False):
        super().__init__()
        self.layer = nn.Conv2d(4, 4, 1, bias=False) if image else nn.Linear(4, 4, bias=False)
        nn.init.eye_(self.layer.weight.data.view(4, 4))
        self.seen = set()

    def forward(self, x):
        x = self.layer(x)
        self.seen.add(x.dtype)
        if x.ndim == 4:
            self.seen.add(x.is_contiguous(memory_format=torch.channels_last))
            x = x[:, :, 0, 0]
        return super().forward(x)


class Uncounted(nn.Module):
    """The same function, without what torch.compile would have to compile anew: the counting."""

    def forward(self, x):
        z = x[:, 0] + x[:, 1] * x[:, 2]
        return z[:, None] * (x[:, 3:].detach().round() == torch.arange(3))


class Named(Dataset):
    """Samples (x, y) with names."""

    def __init__(self, x):
        self.x, self.names = x, [f"{i:04}.png" for i in range(len(x))]

    def __len__(self):
        return len(self.x)

    def __getitem__(self, i):
        return self.x[i], 0


def both(network, pool, **settings):
    """The scores of a pool with the screen and without, whose queries are held to be the same."""
    found = [
        LDRScorer(network, eps=EPS, **settings).score(pool, above=above, progress=False)
        for above in (90.0, None)
    ]
    screened, full = found
    # A tenth of what has a score ranks above, and more only where scores are equal.
    ranked = np.count_nonzero(~np.isnan(full.ldr))
    assert 0.85 * ranked <= screened.left_out.sum() <= 0.9 * ranked
    assert not full.left_out.any()
    for n, percentile, order in (
        (10, 90.0, "ascending"),
        (200, 95.0, "descending"),
        (ranked // 10, 90.0, "random"),
    ):
        queries = [
            select(
                scores.ldr, scores.pseudo_label, n, percentile=percentile, order=order,
                class_prior="predicted", posterior_mean=scores.posterior_mean,
            ).tolist()
            for scores in found
        ]  # fmt: skip
        assert queries[0] == queries[1]
    for name in ("index", "pseudo_label", "entropy", "margin", "name"):
        np.testing.assert_array_equal(getattr(screened, name), getattr(full, name))
    return screened, full


def images(x):
    """Two by two pixels, of which the first is the sample."""
    return torch.nn.functional.pad(x[:, :, None, None], (0, 1, 0, 1))


@pytest.mark.parametrize(("amp", "dtype"), [("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_under_autocast(amp, dtype):
    network = Through()
    both(network, telling().float(), amp=amp)
    assert network.seen == {dtype}


@pytest.mark.parametrize("amp", [None, "bf16"])
def test_in_channels_last(amp, monkeypatch):
    found = Mode(amp, channels_last=True), {}
    monkeypatch.setattr(execution, "choose_mode", lambda run_mode, others: found)
    network = Through(image=True)
    both(network, images(telling()).float(), amp="auto")
    assert network.seen == {torch.float32 if amp is None else torch.bfloat16, True}
    pool = images(telling()).float().contiguous(memory_format=torch.channels_last)
    both(Through(image=True), pool)


def test_compiled():
    torch._dynamo.utils.counters.clear()
    # Batches of any size from the first on: so fewer graphs are compiled.
    with torch._dynamo.config.patch(assume_static_by_default=False):
        both(Uncounted(), telling(), compile_model=True)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0


def test_of_bytes():
    """z in 256 steps to 12.1, the slope in 256 to 3."""
    x = telling()
    scale = torch.tensor([12.1, 1.0, 3.0, 255.0], dtype=torch.float64) / 255
    pixels = (x / scale).round().to(torch.uint8)
    both(Network(), pixels, normalize=([0.0] * 4, (1 / (255 * scale)).tolist()))


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("loader", [False, True])
def test_with_names(loader, workers):
    pool, settings = Named(telling()), {"num_workers": workers}
    if loader:
        pool = DataLoader(pool, batch_size=500, shuffle=True, num_workers=workers)
        settings = {}
    screened, _ = both(Network(), pool, **settings)
    assert screened.name[7] == "0007.png"


def test_at_an_inner_point_behind_a_mask():
    """What is perturbed are the first and the second number; the mask keeps one from moving."""

    class Encoder(nn.Module):
        def forward(self, x):
            self.training_seen = self.training
            move = torch.tensor([True, True, False]).expand(len(x), 3)
            return x[:, :3], move, x[:, 3:]

    class Head(Network):
        def forward(self, point, mask, label):
            return super().forward(torch.cat([point, label], dim=1))

    encoder = Encoder()
    both(Head(), telling(), encode=encoder)
    assert encoder.training
    assert not encoder.training_seen


@pytest.mark.parametrize("amp", [None, "fp16"])
def test_samples_whose_logits_are_not_finite(amp):
    """NaN in the sample, or beyond what the format holds."""
    x = telling().float()
    x[::50, 0] = torch.nan
    x[7, 0] = 1e6 if amp else torch.inf
    screened, full = both(Through(), TensorDataset(x), amp=amp, on_nonfinite="skip")
    none = np.isnan(full.ldr)
    assert none.sum() == 121
    np.testing.assert_array_equal(np.isnan(screened.ldr), none)
    with pytest.raises(ValueError, match=r"sample (7|\d*[05]0): the model's logits are not finite"):
        LDRScorer(Through(), eps=EPS, amp=amp).score(x, above=90.0, progress=False)


def test_batches_of_the_size_that_a_trial_finds():
    both(Network(), telling(), batch_size="auto")

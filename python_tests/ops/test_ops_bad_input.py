"""What the ops refuse, and in which words."""

from __future__ import annotations

from math import inf, nan

import numpy as np
import pytest
import torch

from vaal_ext import ops

X = torch.zeros(2, 3)
INDEX = torch.arange(2)
BAD_CALLS = [
    (lambda: ops.symmetric_kl([1.0], X), TypeError, "p_logits must be a tensor"),
    (lambda: ops.symmetric_kl(X.long(), X), TypeError, "float32, float64, bfloat16 or float16"),
    (lambda: ops.symmetric_kl(X, X.double()), TypeError, "same dtype"),
    (lambda: ops.symmetric_kl(X[0], X[0]), ValueError, r"\[B, C\]"),
    (lambda: ops.symmetric_kl(X[:, :0], X[:, :0]), ValueError, "C >= 1"),
    (lambda: ops.symmetric_kl(X, X[:1]), ValueError, "same shape"),
    (lambda: ops.symmetric_kl(X, X.to("meta")), ValueError, "meta"),
    (lambda: ops.symmetric_kl(X, X, smoothing=1.0), ValueError, "smoothing"),
    (lambda: ops.symmetric_kl(X, X, smoothing=nan), ValueError, "smoothing"),
    (lambda: ops.symmetric_kl(X, X, smoothing="0.1"), TypeError, "smoothing must be a number"),
    (lambda: ops.symmetric_kl(X, X, divergence="js"), ValueError, "divergence"),
    (lambda: ops.symmetric_kl_direction(X, X.clone().requires_grad_()), RuntimeError, "no_grad"),
    (lambda: ops.perturb(X, X[:, :2], 1.0), ValueError, "same shape"),
    (lambda: ops.perturb(X, X.double(), 1.0), TypeError, "same dtype"),
    (lambda: ops.perturb(X, X, -1.0), ValueError, "radius"),
    (lambda: ops.perturb(X, X, inf), ValueError, "radius"),
    (lambda: ops.perturb(X, X, "1"), TypeError, "radius must be a number"),
    (lambda: ops.perturb(torch.tensor(1.0), torch.tensor(1.0), 1.0), ValueError, r"\[B, ...\]"),
    (lambda: ops.random_perturb(X, 1.0, seed=1.5, sample_index=INDEX), TypeError, "seed"),
    (lambda: ops.random_perturb(X, 1.0, seed=True, sample_index=INDEX), TypeError, "seed"),
    (lambda: ops.random_perturb(X, 1.0, seed=2**63, sample_index=INDEX), ValueError, "seed"),
    (lambda: ops.random_perturb(X, 1.0, seed=1, sample_index=INDEX.int()), TypeError, "int64"),
    (
        lambda: ops.random_perturb(X, 1.0, seed=1, sample_index=INDEX[:1]),
        ValueError,
        "sample_index",
    ),
    (lambda: ops.posterior_summary(X[0]), ValueError, r"\[B, C\]"),
    (lambda: ops.fisher_direction(X[0]), ValueError, r"\[B, C\]"),
    (lambda: ops.fisher_direction([1.0]), TypeError, "logits must be a tensor"),
    (lambda: ops.fisher_direction(X.clone().requires_grad_()), RuntimeError, "no_grad"),
    (lambda: ops.fisher_product(X[0], X[0]), ValueError, r"\[B, C\]"),
    (lambda: ops.fisher_product(X, X[:, :2]), ValueError, "same shape"),
    (lambda: ops.fisher_product(X, X.double()), TypeError, "same dtype"),
    (lambda: ops.fisher_product(X, X.clone().requires_grad_()), RuntimeError, "no_grad"),
]


@pytest.mark.parametrize(("call", "error", "message"), BAD_CALLS)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_numbers_of_numpy_are_numbers():
    mine = ops.random_perturb(X, 1.0, seed=7, sample_index=INDEX)
    theirs = ops.random_perturb(X, np.float32(1.0), seed=np.int64(7), sample_index=INDEX)
    assert torch.equal(mine, theirs)


RAW = torch.ops.vaal
ONE, LABELS, OTHERS = torch.ones(2), torch.zeros(2).long(), torch.ones(2, 1).long()
GRADIENTS = torch.zeros(2, 1, 4)
KL = {"symmetric_kl": (0.0, True), "symmetric_kl_direction": (0.1, True), "fisher_product": ()}
PAST_PYTHON = {
    **{f"{op}, no class": (op, (X[:, :0], X[:, :0], *more)) for op, more in KL.items()},
    **{f"{op}, other shape": (op, (X, X[:, :2], *more)) for op, more in KL.items()},
    **{f"{op}, other rows": (op, (X, X[:1], *more)) for op, more in KL.items()},
    **{f"{op}, other type": (op, (X, X.double(), *more)) for op, more in KL.items()},
    **{f"{op}, one row": (op, (X[0], X[0], *more)) for op, more in KL.items()},
    **{f"{op}, integers": (op, (X.long(), X.long(), *more)) for op, more in KL.items()},
    **{
        f"backward, grad_value {name}": (
            "symmetric_kl_backward",
            (grad, X, X, 0.0, True, True, True),
        )
        for name, grad in {
            "too short": ONE[:1],
            "a matrix": X[:, :1],
            "of another type": ONE.double(),
        }.items()
    },
    "summary, no class": ("posterior_summary", (X[:, :0],)),
    "summary, one row": ("posterior_summary", (X[0],)),
    "fisher_direction, no class": ("fisher_direction", (X[:, :0],)),
    "perturb, other shape": ("perturb", (X, X[:, :2], 0.5)),
    "perturb, other dimensions": ("perturb", (X, X.unsqueeze(2), 0.5)),
    "perturb, other type": ("perturb", (X, X.double(), 0.5)),
    "perturb, a number": ("perturb", (X[0, 0], X[0, 0], 0.5)),
    "random_perturb, other index": ("random_perturb", (X, 0.5, 1, INDEX[:1])),
    "random_perturb, int32 index": ("random_perturb", (X, 0.5, 1, INDEX.int())),
    "deepfool, other samples": ("deepfool_step", (X, GRADIENTS[:1], LABELS, OTHERS)),
    "deepfool, other type": ("deepfool_step", (X, GRADIENTS.double(), LABELS, OTHERS)),
    "deepfool, other reference": ("deepfool_step", (X, GRADIENTS, LABELS[:1], OTHERS)),
    "deepfool, int32 reference": ("deepfool_step", (X, GRADIENTS, LABELS.int(), OTHERS)),
    "deepfool, other candidates": ("deepfool_step", (X, GRADIENTS, LABELS, OTHERS.expand(2, 2))),
    "deepfool, int32 candidates": ("deepfool_step", (X, GRADIENTS, LABELS, OTHERS.int())),
    "deepfool, no candidate": ("deepfool_step", (X, GRADIENTS[:, :0], LABELS, OTHERS[:, :0])),
    "deepfool, no element": ("deepfool_step", (X, GRADIENTS[..., :0], LABELS, OTHERS)),
}


@pytest.mark.parametrize("name", PAST_PYTHON)
def test_the_kernels_themselves_refuse(name, kernels):
    """A compiled or exported graph calls them past the checks in Python."""
    op, given = PAST_PYTHON[name]
    message = "C >= 1" if "no class" in name else "vaal: "
    with pytest.raises(RuntimeError, match=message):
        getattr(RAW, op)(*given)

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


@pytest.mark.parametrize(
    ("op", "more"),
    [
        ("symmetric_kl", (0.0, True)),
        ("symmetric_kl", (0.1, True)),
        ("symmetric_kl_direction", (0.0, True)),
        ("fisher_product", ()),
    ],
)
def test_the_kernels_themselves_refuse_rows_without_classes(op, more):
    """A compiled or exported graph calls them past the checks in Python."""
    empty = X[:, :0]
    with pytest.raises(RuntimeError, match="C >= 1"):
        getattr(torch.ops.vaal, op)(empty, empty, *more)

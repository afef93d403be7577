"""Every route to a derivative of an op: right, or refused in words that say what to do instead."""

from __future__ import annotations

import pytest
import torch
from torch import func
from torch.autograd import forward_ad, functional

from vaal_ext import ops, reference

GENERATOR = torch.Generator().manual_seed(3)
A, B, V, W = torch.randn(4, 3, 5, dtype=torch.float64, generator=GENERATOR)
MANY_A, MANY_B = torch.randn(2, 4, 3, 5, dtype=torch.float64, generator=GENERATOR)
INDEX = torch.arange(3)


def textbook(a, b):
    """J as torch differentiates it. The logits here are of order one, where it loses no digits."""
    log_p, log_q = a.log_softmax(-1), b.log_softmax(-1)
    return ((log_q.exp() - log_p.exp()) * (log_q - log_p)).sum(-1)


def dual(call, b, tangent):
    with forward_ad.dual_level():
        return forward_ad.unpack_dual(call(forward_ad.make_dual(b, tangent)))[:2]


def tracked(x):
    return x.clone().requires_grad_()


def with_graph(kl):
    b = tracked(B)
    return torch.autograd.grad(kl(A, b).sum(), b)


def batched_grad(kl):
    b = tracked(B)
    return torch.autograd.grad(kl(A, b), b, torch.eye(3, dtype=B.dtype), is_grads_batched=True)


FIRST = {
    "reverse": with_graph,
    "reverse, batched": batched_grad,
    "forward": lambda kl: dual(lambda b: kl(A, b), B, V),
    "func.grad": lambda kl: func.grad(lambda a, b: kl(a, b).sum(), (0, 1))(A, B),
    "func.vjp": lambda kl: func.vjp(kl, A, B)[1](torch.ones(3, dtype=A.dtype)),
    "func.jvp, one side": lambda kl: func.jvp(lambda b: kl(A, b), (B,), (V,)),
    "func.jvp, both sides": lambda kl: func.jvp(kl, (A, B), (V, W)),
    "func.linearize": lambda kl: func.linearize(kl, A, B)[1](V, W),
    "func.jacrev": lambda kl: func.jacrev(kl, (0, 1))(A, B),
    "func.jacfwd": lambda kl: func.jacfwd(kl, (0, 1))(A, B),
    "func.vmap": lambda kl: func.vmap(kl)(MANY_A, MANY_B),
    "func.vmap, one side": lambda kl: func.vmap(kl, (None, 1))(A, MANY_B.transpose(0, 1)),
    "func.vmap, nested": lambda kl: func.vmap(
        func.vmap(lambda a, b: kl(a.unsqueeze(0), b.unsqueeze(0)))
    )(MANY_A, MANY_B),
    "func.vmap of grad": lambda kl: func.vmap(
        func.grad(lambda a, b: kl(a.unsqueeze(0), b.unsqueeze(0)).sum(), (0, 1))
    )(A, B),
    "func.vmap of jvp": lambda kl: func.vmap(lambda a, b: func.jvp(kl, (a, b), (b, a)))(
        MANY_A, MANY_B
    ),
    "functional.jacobian": lambda kl: functional.jacobian(lambda b: kl(A, b), B, vectorize=True),
    "functional.jacobian, forward": lambda kl: functional.jacobian(
        lambda b: kl(A, b), B, vectorize=True, strategy="forward-mode"
    ),
}


@pytest.mark.parametrize("module", [ops, reference], ids=["ops", "reference"])
@pytest.mark.parametrize("route", FIRST)
def test_first_derivatives_of_symmetric_kl(route, module, kernels):
    """Against the textbook's: both in float64, whose roundoff is far below 1e-12."""
    got, expected = FIRST[route](module.symmetric_kl), FIRST[route](textbook)
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-14)
    leaves = torch.utils._pytree.tree_leaves(got)
    assert all(bool((leaf != 0).any()) for leaf in leaves)  # what it was, silently


@pytest.mark.parametrize(
    "how", [{}, {"divergence": "forward"}, {"smoothing": 0.1}], ids=["plain", "forward", "smoothed"]
)
def test_forward_mode_agrees_with_reverse(how, kernels):
    inputs = tracked(A), tracked(B)
    assert torch.autograd.gradcheck(
        lambda p, q: ops.symmetric_kl(p, q, **how),
        inputs,
        check_forward_ad=True,
        check_batched_grad=True,
        check_batched_forward_grad=True,
    )


def test_forward_mode_of_half_types(kernels):
    """A tangent [B] in the type of the value; bfloat16 stores a gradient to 2^-9."""
    a, b, v = (x.bfloat16() for x in (A, B, V))
    value, tangent = func.jvp(lambda b: ops.symmetric_kl(a, b), (b,), (v,))
    exact = func.jvp(lambda b: textbook(a.double(), b), (b.double(),), (v.double(),))[1]
    assert value.dtype == tangent.dtype == torch.float32
    gradient = func.grad(lambda b: textbook(a.double(), b).sum())(b.double())
    bound = 2**-8 * (gradient * v.double()).abs().sum(1)
    assert ((tangent - exact).abs() <= bound).all()


def reverse_twice(kl):
    b = tracked(B)
    (gradient,) = torch.autograd.grad(kl(A, b).sum(), b, create_graph=True)
    return torch.autograd.grad(gradient.sum(), b)


def forward_over_reverse(kl):
    b = tracked(B)
    with forward_ad.dual_level():
        both = forward_ad.make_dual(b, V)
        (gradient,) = torch.autograd.grad(kl(A, both).sum(), both, create_graph=True)
        return forward_ad.unpack_dual(gradient).tangent


def reverse_over_forward(kl):
    b = tracked(B)
    with forward_ad.dual_level():
        tangent = forward_ad.unpack_dual(kl(A, forward_ad.make_dual(b, V))).tangent
        return torch.autograd.grad(tangent.sum(), b)


SECOND = {
    "reverse twice": reverse_twice,
    "forward over reverse": forward_over_reverse,
    "reverse over forward": reverse_over_forward,
    "func.hessian": lambda kl: func.hessian(lambda b: kl(A, b).sum())(B),
    "func.grad twice": lambda kl: func.grad(lambda b: func.grad(lambda c: kl(A, c).sum())(b).sum())(
        B
    ),
    "func.jvp twice": lambda kl: func.jvp(
        lambda b: func.jvp(lambda c: kl(A, c), (b,), (V,))[1], (B,), (V,)
    ),
    "functional.hessian": lambda kl: functional.hessian(lambda b: kl(A, b).sum(), B),
}


@pytest.mark.parametrize("module", [ops, reference], ids=["ops", "reference"])
@pytest.mark.parametrize("route", SECOND)
def test_second_derivatives_are_refused(route, module, kernels):
    with pytest.raises(RuntimeError, match="can be differentiated once only"):
        SECOND[route](module.symmetric_kl)


LABELS = torch.tensor([0, 1, 2])
OTHERS = torch.tensor([[1, 2], [2, 0], [0, 1]])
GRADIENTS = torch.stack([A, B], dim=1)
NOT_DIFFERENTIABLE = {
    "symmetric_kl_direction": lambda x: ops.symmetric_kl_direction(A, x)[1],
    "fisher_product": lambda x: ops.fisher_product(A, x),
    "fisher_direction": lambda x: ops.fisher_direction(x)[0],
    "perturb": lambda x: ops.perturb(A, x, 0.5),
    "random_perturb": lambda x: ops.random_perturb(x, 0.5, seed=1, sample_index=INDEX),
    "posterior_summary": lambda x: ops.posterior_summary(x)[1],
    "deepfool_step": lambda x: ops.deepfool_step(x, GRADIENTS, LABELS, OTHERS)[1],
}
ASKED = {
    "reverse": lambda f: f(tracked(B)),
    "forward": lambda f: dual(f, B, V),
    "func.grad": lambda f: func.grad(lambda x: f(x).sum())(B),
    "func.vjp": lambda f: func.vjp(f, B),
    "func.jvp": lambda f: func.jvp(f, (B,), (V,)),
    "func.linearize": lambda f: func.linearize(f, B),
    "func.jacfwd": lambda f: func.jacfwd(f)(B),
    "func.jacrev": lambda f: func.jacrev(f)(B),
    "func.hessian": lambda f: func.hessian(lambda x: f(x).sum())(B),
    "func.jvp inside func.grad": lambda f: func.grad(
        lambda y: (func.jvp(f, (B,), (V,))[1] * y.sum()).sum()
    )(B),
    "func.grad inside func.jvp": lambda f: func.jvp(
        lambda x: func.grad(lambda y: (f(x) * y.sum()).sum())(B), (B,), (V,)
    ),
}


@pytest.mark.parametrize("op", NOT_DIFFERENTIABLE)
@pytest.mark.parametrize("route", ASKED)
def test_ops_without_a_derivative_refuse(route, op, kernels):
    with pytest.raises(RuntimeError, match=f"{op} is not differentiable: .*detach"):
        ASKED[route](NOT_DIFFERENTIABLE[op])


@pytest.mark.parametrize("op", NOT_DIFFERENTIABLE)
def test_a_constant_inside_a_transform_is_one(op, kernels):
    """What is detached, or does not depend on what is differentiated by, has no derivative."""
    call = NOT_DIFFERENTIABLE[op]
    constant = call(B)
    for f in (lambda x: x.sum() * call(x.detach()), lambda x: x.sum() * call(B)):
        value, tangent = func.jvp(f, (B,), (V,))
        torch.testing.assert_close(value, B.sum() * constant)
        torch.testing.assert_close(tangent, V.sum() * constant)
        gradient = func.grad(lambda x, f=f: f(x).sum())(B)
        torch.testing.assert_close(gradient, constant.sum().expand(3, 5))
    with forward_ad.dual_level():
        torch.testing.assert_close(call(B), constant)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("op", NOT_DIFFERENTIABLE)
def test_vmap_of_the_other_ops(op, kernels):
    """The dimension that is mapped over joins the samples."""
    call = NOT_DIFFERENTIABLE[op]
    together = func.vmap(call)(MANY_B)
    torch.testing.assert_close(together, torch.stack([call(x) for x in MANY_B]))
    none = func.vmap(call)(MANY_B[:, :0]) if op == "posterior_summary" else together[:, :0]
    assert none.shape == (4, 0, *together.shape[2:])


@pytest.mark.parametrize("name", ["grad", "jvp", "vmap"])
def test_compiled_transforms_are_right_or_say_why_not(name):
    routes = {
        "grad": lambda b: func.grad(lambda x: ops.symmetric_kl(A, x).sum())(b),
        "jvp": lambda b: func.jvp(lambda x: ops.symmetric_kl(A, x), (b,), (V,))[1],
        "vmap": lambda b: func.vmap(lambda x: ops.symmetric_kl(A, x))(torch.stack([b, V])),
    }
    torch._dynamo.reset()
    torch.testing.assert_close(torch.compile(routes[name])(B), routes[name](B))
    torch._dynamo.reset()
    with pytest.raises(Exception, match="leave fullgraph out"):
        torch.compile(routes[name], fullgraph=True)(B)

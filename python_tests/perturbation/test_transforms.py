"""What the search of r says inside torch.func's transforms, which do not let it run."""

import pytest
import torch
from torch import func, nn

from vaal_ext import ldr_scores, vat_loss

X = torch.randn(2, 5, 6, generator=torch.Generator().manual_seed(1))
METHODS = {
    "direct": {},
    "finite-difference": {"method": "finite-difference", "xi": 0.05},
    "fisher": {"method": "fisher"},
}


with torch.random.fork_rng(devices=[]):
    torch.manual_seed(0)
    NETWORK = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))


def of_weights(call):
    """`call` of a network with these weights, and the weights."""
    weights = {name: weight.detach() for name, weight in NETWORK.named_parameters()}

    def value(weights):
        return call(lambda x: func.functional_call(NETWORK, weights, (x,)), X[0])

    return value, weights


def by_weights(transform):
    def route(call):
        value, weights = of_weights(call)
        return transform(value)(weights)

    return route


def jvp(value):
    return lambda weights: func.jvp(value, (weights,), (weights,))


def vmap(value):
    def mapped(weights):
        return func.vmap(value)({name: torch.stack([w, 2 * w]) for name, w in weights.items()})

    return mapped


ROUTES = {
    "grad by the weights": by_weights(func.grad),
    "jvp by the weights": by_weights(jvp),
    "vmap over networks": by_weights(vmap),
    "jacrev by the weights": by_weights(func.jacrev),
    "grad by the input": lambda call: func.grad(lambda x: call(NETWORK, x))(X[0]),
    "vmap over batches": lambda call: func.vmap(lambda x: call(NETWORK, x))(X),
    "compiled": lambda call: torch.compile(by_weights(func.grad))(call),
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("route", ROUTES)
def test_it_is_said_what_to_do_instead(route, method):
    calls = {
        "vat_loss": vat_loss,
        "ldr_scores": lambda model, x, **steps: ldr_scores(model, x, **steps).sum(),
    }
    for name, function in calls.items():
        with pytest.raises(
            RuntimeError, match=rf"{name} cannot run inside a transform .*Call it outside: torch\."
        ):
            ROUTES[route](lambda m, x, f=function: f(m, x, eps=0.5, **METHODS[method]))


def test_what_it_says_to_do_is_done():
    """The derivatives, and a loop in the place of vmap."""
    losses = [vat_loss(NETWORK, x, eps=0.5) for x in X]
    for gradient in torch.autograd.grad(sum(losses), list(NETWORK.parameters())):
        assert gradient.isfinite().all()
        assert gradient.any()

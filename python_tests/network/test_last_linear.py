"""The embedding of a network: the input of the linear layer that gives its logits."""

import pytest
import torch
from torch import nn

from vaal_ext.models import MLP, PaperCNN
from vaal_ext.network.last_linear import LastLinear


class TwoHeads(nn.Module):
    """Its logits are those of the head that is run first, and of the same shape as the other's."""

    def __init__(self):
        super().__init__()
        self.body, self.head, self.other = nn.Linear(4, 6), nn.Linear(6, 3), nn.Linear(6, 3)

    def forward(self, x):
        hidden = self.body(x).relu()
        logits = self.head(hidden)
        self.other(hidden + 1)
        return logits


@pytest.mark.parametrize(
    ("model", "shape", "width"),
    [(MLP(4, 3, hidden=8), (4,), 8), (PaperCNN(1, (8, 8), 3, hidden=16), (1, 8, 8), 16),
     (TwoHeads(), (4,), 6)],
    ids=["mlp", "cnn", "two heads"],
)  # fmt: skip
def test_the_layer_makes_the_logits_of_the_embedding(model, shape, width):
    model.eval()
    x = torch.randn(5, *shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), LastLinear(model) as last:
        logits = model(x)
        embedding, layer = last.of(logits)
    assert embedding.shape == (5, width)
    torch.testing.assert_close(layer(embedding), logits)
    assert not any(module._forward_hooks for module in model.modules())  # as it came


def test_logits_that_no_linear_layer_gave_are_refused():
    model = nn.Sequential(nn.Linear(4, 3), nn.Softmax(dim=1))
    with LastLinear(model) as last, pytest.raises(ValueError, match="none of its 1 gave them"):
        last.of(model(torch.ones(2, 4)))
    with pytest.raises(ValueError, match=r"the output of an nn\.Linear, got Conv2d without any"):
        LastLinear(nn.Conv2d(1, 1, 1))

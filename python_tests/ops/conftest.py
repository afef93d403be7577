"""What the tests of the ops are given."""

import pytest
import torch
from emulation.device_ops import emulated_ops
from emulation.harness import needs_compiler

EMULATED = pytest.param("emulated", marks=needs_compiler)
CUDA = pytest.param(
    "cuda",
    marks=[
        pytest.mark.gpu,
        pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
    ],
)


@pytest.fixture(params=["cpu", EMULATED, CUDA])
def device(request):
    """Where the tensors lie; "emulated": on the CPU, where csrc/cuda runs on them."""
    if request.param != "emulated":
        yield request.param
    else:
        with emulated_ops():
            yield "cpu"


@pytest.fixture(params=["cpu", EMULATED])
def kernels(request):
    """Those of the CPU, and csrc/cuda emulated, for tests whose tensors lie on the CPU."""
    if request.param == "emulated":
        with emulated_ops():
            yield request.param
    else:
        yield request.param


def pytest_collection_modifyitems(config, items):
    """Leaves out what takes the emulation seconds: a vocabulary, hundreds of rows of a thousand
    classes, a Jacobian of hundreds of columns. cuda/test_cuda_tensors.py has long rows, a few."""

    def too_slow(item):
        params = item.callspec.params if hasattr(item, "callspec") else {}
        cols = params.get("cols", 0)
        if params.get("kernels") == "emulated":
            return cols > 300
        gradients = item.originalname == "test_gradcheck"
        return params.get("device") == "emulated" and cols > (7 if gradients else 2000)

    config.hook.pytest_deselected(items=[item for item in items if too_slow(item)])
    items[:] = [item for item in items if not too_slow(item)]

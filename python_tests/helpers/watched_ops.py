"""What ops run in a block: those that touch the host, and those that launch something."""

from __future__ import annotations

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

# They make or change a view, or reserve memory: nothing runs on the device.
_FREE = {"alias", "detach", "empty", "empty_like", "expand", "select", "slice", "t", "transpose"}
_FREE |= {"unsqueeze", "view", "new_empty", "_unsafe_view"}


class HostTensors(TorchDispatchMode):
    """Collects the ops that touch a tensor on the host."""

    def __init__(self):
        super().__init__()
        self.ops = []

    def __torch_dispatch__(self, op, types, args=(), kwargs=None):
        result = op(*args, **(kwargs or {}))
        if any(isinstance(x, Tensor) and x.is_cpu for x in tree_leaves((args, kwargs, result))):
            self.ops.append(str(op))
        return result


class Launches(TorchDispatchMode):
    """Collects the names of the ops that launch something."""

    def __init__(self):
        super().__init__()
        self.ops = []

    def __torch_dispatch__(self, op, types, args=(), kwargs=None):
        name = op.name().partition("::")[2].partition(".")[0]
        if name not in _FREE:
            self.ops.append(name)
        return op(*args, **(kwargs or {}))

"""Loads the compiled kernels; the one place that knows where they lie."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

_HOW_TO_BUILD = (
    "in the repository, type: pip install 'torch>=2.11' && pip install --no-build-isolation -e . "
    "(a C++ compiler is needed; docs/source/when_something_fails.md lists the messages)"
)
_ENDING = ".dll" if sys.platform == "win32" else ".so"  # as in setup.py

_PACKAGE = Path(__file__).resolve().parent.parent
CPU_LIBRARY = _PACKAGE / f"_ops_cpu{_ENDING}"
CUDA_LIBRARY = _PACKAGE / f"_ops_cuda{_ENDING}"


def _load(path: Path) -> None:
    try:
        torch.ops.load_library(str(path))
    except OSError as error:
        reason = error.__cause__ or error
        raise ImportError(
            f"{path.name} does not load into torch {torch.__version__} ({reason}); build it again: "
            f"{_HOW_TO_BUILD}"
        ) from error


if not CPU_LIBRARY.exists():
    raise ImportError(
        f"vaal_ext's kernels are not built ({CPU_LIBRARY} is missing): choose backend='reference' "
        f"(in a shell --backend reference), which is plain PyTorch and slower, or build them: "
        f"{_HOW_TO_BUILD}"
    )
_load(CPU_LIBRARY)

#: Whether CUDA tensors are accepted: the library is built and this torch has CUDA.
HAS_CUDA = CUDA_LIBRARY.exists() and torch.version.cuda is not None
if HAS_CUDA:
    _load(CUDA_LIBRARY)

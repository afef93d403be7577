"""The CUDA ops as they stand in csrc/cuda, tensor code and kernels, on CPU tensors: runtime.cpp."""

from __future__ import annotations

import contextlib
import ctypes
import functools
from collections.abc import Iterator
from pathlib import Path

import torch
from emulation.build import CSRC, HERE, IN_PROCESS, SETUP, Library, build
from emulation.harness import OPS
from torch import Tensor

import vaal_ext.ops  # noqa: F401  (the schemas)

ALL_OPS = (*OPS, "deepfool_step")
# The key that runtime.cpp registers the ops under.
KEY = torch._C.DispatchKeySet(torch._C.DispatchKey.PrivateUse1)
STANDS_IN_FOR = (
    "aoti_torch_library_init_impl",
    "aoti_torch_get_device_index",
    "aoti_torch_get_current_cuda_stream",
    "aoti_torch_create_device_guard",
    "aoti_torch_delete_device_guard",
    "aoti_torch_empty_strided",
    "torch_c10_cuda_check_msg",
    "torch_c10_cuda_free_error_msg",
)


@functools.cache
def library() -> ctypes.CDLL:
    """Compiled once, loaded once a process; its ops are reached through emulated_ops()."""
    torch_folder = Path(torch.__file__).parent
    flags = ["-std=c++20", f"-I{HERE}", f"-I{CSRC}"]
    stable = [f"-DTORCH_TARGET_VERSION={SETUP['STABLE_ABI']}", "-DUSE_CUDA"]
    stable += ["-isystem", str(torch_folder / "include")]
    objects = {}
    for source in sorted((CSRC / "cuda").glob("*.cu")):
        objects[f"{source.stem}.kernels.o"] = (source, [*flags, "-xc++"])
    for source in (*sorted((CSRC / "cuda").glob("*.cpp")), HERE / "runtime.cpp"):
        objects[f"{source.stem}.tensors.o"] = (source, [*flags, *stable])
    objects["fibres.o"] = (HERE / "fibres.cpp", flags)
    link = [f"-Wl,--wrap={name}" for name in STANDS_IN_FOR]
    link += ["-Wl,-z,defs", f"-L{torch_folder / 'lib'}", "-ltorch_cpu"]
    ops = Library("device_ops.so", objects, IN_PROCESS, link)
    build("device_ops.ninja", [ops])
    torch.ops.load_library(ops.path)
    return ctypes.CDLL(str(ops.path))


@contextlib.contextmanager
def emulated_ops(device: int = 0) -> Iterator[None]:
    """CPU tensors are a device's inside of it: 0, an H100, or 1, a small one (runtime.cpp)."""
    library().vaal_use_device(device)
    library().vaal_launches(None, 0)
    here = torch.library.Library("vaal", "IMPL")
    try:
        for name in ALL_OPS:
            op = getattr(torch.ops.vaal, name).default
            here.impl(name, functools.partial(op.redispatch, KEY), "CPU")
        yield
    finally:
        here._destroy()


def launches() -> list[tuple[int, int, int, int]]:
    """(device, blocks, threads, shared bytes) of each launch since the last call."""
    most = 1000
    records = (ctypes.c_int64 * (4 * most))()
    count = library().vaal_launches(records, ctypes.c_int64(most))
    return [tuple(records[4 * i : 4 * i + 4]) for i in range(min(count, most))]


def current_device() -> int:
    """CUDA's current device of this thread."""
    return library().vaal_current_device()


@contextlib.contextmanager
def on_the_other_device(*tensors: Tensor) -> Iterator[None]:
    """The memory of these lies on the other of the two devices."""
    for tensor in tensors:
        memory = tensor.untyped_storage()
        library().vaal_put_away(ctypes.c_void_p(memory.data_ptr()), ctypes.c_int64(memory.nbytes()))
    try:
        yield
    finally:
        library().vaal_bring_home()


@contextlib.contextmanager
def launches_refused() -> Iterator[None]:
    """No kernel runs; CUDA's runtime says so where it is asked."""
    library().vaal_refuse_launches(True)
    try:
        yield
    finally:
        library().vaal_refuse_launches(False)

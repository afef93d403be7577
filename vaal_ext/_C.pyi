"""Facts about this build of vaal_ext, and how its CUDA kernels would be launched."""

from typing import TypedDict

class BuildConfig(TypedDict):
    torch: str  # the version that was built against
    stable_abi: str  # the oldest torch that the libraries load into
    cxx: str
    cpu_instruction_sets: list[str]
    nvcc: str  # empty: _ops_cuda was not built
    cuda_architectures: list[str]
    why_no_cuda: str  # empty: it was

class LaunchPlan(TypedDict):
    """The fields of LaunchPlan in csrc/cuda/launch_plan.h."""

    path: str  # "warp", "block", "stream" or "split"
    threads_per_row: int
    rows_per_block: int
    block_threads: int
    items_per_thread: int
    vector_width: int
    blocks: int
    splits: int
    cached_packs: int
    shared_bytes: int

def build_config() -> BuildConfig: ...
def launch_plan(
    op: str,
    rows: int,
    cols: int,
    dtype: str,
    smoothed: bool = False,
    multiprocessors: int = 0,
    shared_bytes: int = 0,
) -> LaunchPlan: ...

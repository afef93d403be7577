"""launch_plan: every plan must suit the kernel that will run by it (csrc/cuda/launch_plan.h)."""

import itertools

import pytest

from vaal_ext import _C

KL = ("symmetric_kl", "symmetric_kl_backward", "symmetric_kl_direction")
FISHER = ("fisher_product", "fisher_direction")
OPS = (*KL, "perturb", "random_perturb", "posterior_summary", "deepfool_step", *FISHER)
BYTES = {"float32": 4, "float64": 8, "float16": 2, "bfloat16": 2}
# lengths around every power of two up to 2^18 and some that people use
LENGTHS = sorted(
    {max(1, 2**n + d) for n in range(19) for d in (-1, 0, 1)}
    | {10, 100, 1000, 3072, 12288, 32000, 50257, 128256, 150528, 2**24 + 1, 2**30}
)
ROWS = (1, 7, 66, 67, 1000, 10**6)
SHARED_LIMIT = 227 * 1024  # an H100's, the default


def registers(op, dtype):
    """The most threads of a block, and how many packs of 16 bytes each of them may hold."""
    size = BYTES[dtype]
    if op == "perturb":
        return 512 if size == 8 else 768, (1, 2 if size == 2 else 4)
    if op == "random_perturb":
        return 512, {2: (1, 2), 4: (1, 4), 8: (2, 4)}[size]
    if op in ("posterior_summary", "deepfool_step"):
        return 512, (1, 2 if size == 2 else 4)
    return 256 if size == 8 else 384, (1 if size == 2 else 2,)


def most_that_stream(op, dtype, smoothed):
    """The most threads of a block that goes through a long row."""
    if op == "posterior_summary":
        return 512
    if smoothed and op in KL:
        return 256 if dtype == "float64" else 384
    return 512 if dtype == "float64" else 768


@pytest.mark.parametrize("dtype", BYTES)
@pytest.mark.parametrize("op", OPS)
def test_every_plan_can_be_launched(op, dtype):
    most_threads, packs = registers(op, dtype)
    pack = 16 // BYTES[dtype]
    most = {"warp": 128, "block": most_threads, "split": 256}
    for rows, cols, smoothed in itertools.product(ROWS, LENGTHS, (False, True)):
        plan = _C.launch_plan(op, rows, cols, dtype, smoothed=smoothed)
        path, threads = plan["path"], plan["threads_per_row"]
        most["stream"] = most_that_stream(op, dtype, smoothed)
        # inside the kernel's __launch_bounds__, whole warps, whole groups
        assert 32 <= plan["block_threads"] <= most[path]
        assert plan["block_threads"] % 32 == 0
        assert plan["rows_per_block"] * threads == plan["block_threads"]
        assert plan["items_per_thread"] in {n * pack for n in packs}
        assert plan["vector_width"] == (pack if cols % pack == 0 else 1)
        if threads <= 32:
            assert threads in (1, 2, 4, 8, 16, 32)
        # the register paths must hold the whole row
        if path in ("warp", "block"):
            assert threads * plan["items_per_thread"] >= cols
        assert (path == "warp") <= (threads <= 32)
        assert (path == "block") <= (threads >= 64)
        # room for the reductions of a block, and not more than there is
        assert (plan["shared_bytes"] > 0) >= (threads > 32)
        assert plan["shared_bytes"] <= SHARED_LIMIT
        kept = 1 if op == "fisher_direction" else 2  # tensors
        assert plan["shared_bytes"] >= plan["cached_packs"] * kept * 16 * threads
        # every row has its blocks; a part of a split row is short enough for 32-bit columns
        assert plan["splits"] == 1 or path == "split"
        assert plan["blocks"] * plan["rows_per_block"] >= min(rows, 2**31 - 1) * plan["splits"]
        assert plan["blocks"] < 2**31
        assert cols / plan["splits"] <= 2**24 or path != "split"


@pytest.mark.parametrize("op", OPS)
def test_paths_follow_the_length(op):
    """Short rows share a warp, longer ones have a block; only then is a row read more than once."""
    order = {"warp": 0, "block": 1, "stream": 2, "split": 2}
    for rows in ROWS:
        paths = [_C.launch_plan(op, rows, cols, "float32")["path"] for cols in LENGTHS]
        ranks = [order[path] for path in paths]
        assert ranks == sorted(ranks)
        assert paths[0] == "warp"
        if op in ("perturb", "random_perturb", "deepfool_step"):
            assert "stream" not in paths
        else:
            split = 2 * rows <= 132 and op not in FISHER
            assert paths[-1] == ("split" if split else "stream")


def test_what_people_use():
    def path(*arguments, **options):
        return _C.launch_plan(*arguments, **options)["path"]

    assert path("symmetric_kl", 256, 10, "float32") == "warp"
    assert path("symmetric_kl_direction", 1024, 1000, "float32") == "block"
    assert path("symmetric_kl_direction", 512, 32000, "float32") == "stream"
    assert path("symmetric_kl_direction", 4, 128256, "bfloat16") == "split"
    assert path("perturb", 256, 784, "float32") == "block"
    assert path("perturb", 256, 3 * 32 * 32, "float32") == "block"
    assert path("perturb", 64, 3 * 224 * 224, "float32") == "split"


def test_a_long_row_fits_into_shared_memory():
    """C = 32000: in bfloat16 both rows fit as a whole; in float32 all but a few packs of each."""
    bfloat16 = _C.launch_plan("symmetric_kl", 1000, 32000, "bfloat16")
    assert bfloat16["cached_packs"] * bfloat16["threads_per_row"] * 8 >= 32000
    float32 = _C.launch_plan("symmetric_kl", 1000, 32000, "float32")
    assert float32["cached_packs"] * float32["threads_per_row"] * 4 >= 27000


def test_two_long_rows_share_a_multiprocessor_where_they_fit():
    """228 KB of shared memory, 1 KB of it gone for every block; 24 warps either way."""
    two = _C.launch_plan("symmetric_kl_direction", 1000, 10000, "float32")
    assert two["block_threads"] == 384
    assert 2 * (two["shared_bytes"] + 1024) <= 228 * 1024
    assert two["cached_packs"] * 384 * 4 >= 10000
    one = _C.launch_plan("symmetric_kl_direction", 1000, 20000, "float32")
    assert one["block_threads"] == 768
    assert one["cached_packs"] * 768 * 4 >= 20000


def test_smoothing_streams_at_every_length():
    for op, cols in itertools.product(KL, LENGTHS):
        assert _C.launch_plan(op, 1000, cols, "float32", smoothed=True)["path"] == "stream"


@pytest.mark.parametrize(
    "arguments",
    [("perturb", -1, 3), ("perturb", 3, -1), ("symmetric_kl", 1, 2**30 + 1)],
)
def test_refuses_what_no_kernel_takes(arguments):
    with pytest.raises(ValueError, match="launch_plan: "):
        _C.launch_plan(*arguments, "float32")

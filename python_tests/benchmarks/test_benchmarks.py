"""The benchmarks measure what they say: answers judged first, wrong opponents refused, files whole.

How fast anything is is no matter of tests; the benchmarks run here on small inputs.
"""

from __future__ import annotations

from argparse import Namespace
from functools import partial

import bench_deepfool
import bench_ldr
import bench_ops
import bench_pool
import bench_scale
import cuda_timing
import numpy as np
import op_cases
import options
import pytest
import timing
import torch
import vat_loops
from csv_files import rows as read
from torch import nn

SHAPES = {"symmetric_kl": (5, 7), "forward_kl": (5, 7), "posterior_summary": (5, 7)}
SHAPES |= {"perturb": (5, 3, 4, 4), "random_perturb": (5, 3, 16, 16)}
SHAPES |= {"deepfool_step": (5, 2, 3, 4, 4), "fisher_product": (5, 7), "fisher_direction": (5, 7)}
CPU = torch.device("cpu")


@pytest.fixture
def uncompiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch.compile leaves functions as they are: to compile them takes seconds."""
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)


def run(module, monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr("sys.argv", ["benchmark", *map(str, arguments)])
    module.main()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("op", bench_ops.GRID)
def test_every_contestant_of_an_op_is_right(uncompiled, op, dtype):
    case = bench_ops.GRID[op][0](SHAPES[op], dtype, CPU)
    errors = case.judged()
    assert errors.keys() == case.contestants.keys() - {"clone"}
    # float32 rounds at 6e-8, the result's bfloat16 at 2^-9; a sum of a few hundred terms each.
    assert errors[op_cases.OURS][1] < (1e-5 if dtype == torch.float32 else 1e-2)


@pytest.mark.parametrize("op", bench_ops.GRID)
def test_a_wrong_opponent_is_refused(uncompiled, op):
    case = bench_ops.GRID[op][0](SHAPES[op], torch.float32, CPU)
    right = case.contestants[op_cases.OURS]

    def wrong(*inputs):
        answer = right(*inputs)
        if isinstance(answer, tuple):  # the values, or the entropies
            return tuple(part * 1.2 if part.is_floating_point() else part for part in answer)
        return inputs[0] + 1.2 * (answer - inputs[0])

    case.contestants["eager"] = wrong
    with pytest.raises(op_cases.WrongAnswer, match="eager is off by"):
        case.judged()


def test_a_lost_direction_and_a_wrong_label_count_as_errors():
    kl = op_cases.kl_case((5, 7), torch.float32, CPU, "symmetric")
    value, direction = kl.contestants[op_cases.OURS](*kl.inputs)
    assert (kl.errors((value, torch.zeros_like(direction))) == 1).all()
    assert kl.errors((value, torch.full_like(direction, torch.nan))).isnan().all()
    summary = op_cases.summary_case((5, 7), torch.float32, CPU)
    label, entropy, margin = summary.contestants[op_cases.OURS](*summary.inputs)
    assert (summary.errors(((label + 1) % 7, entropy, margin)) == 1).all()


def test_ops_table(uncompiled, threads, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(
        bench_ops, "GRID", {op: (make, [SHAPES[op]]) for op, (make, _) in bench_ops.GRID.items()}
    )
    table = tmp_path / "ops.csv"
    run(bench_ops, monkeypatch, "--threads", 1, 2, "--seconds", 0, "--csv", table)
    rows = read(table)
    assert {(row["op"], row["dtype"], row["threads"]) for row in rows} == {
        (op, dtype, threads)
        for op in SHAPES
        for dtype in ("float32", "bfloat16")
        for threads in ("1", "2")
    }
    out = capsys.readouterr().out
    for row in rows:
        numbers = [float(row[name]) for name in ("p20_s", "median_s", "p80_s", "ratio_to_ours")]
        assert all(number > 0 for number in numbers)
        assert int(row["turns"]) >= timing.FEWEST_TURNS
        assert row["op"] in out
        assert row["commit"]
    (ours,) = (
        row
        for row in rows
        if (row["op"], row["dtype"], row["threads"], row["opponent"])
        == ("perturb", "bfloat16", "2", op_cases.OURS)
    )
    assert float(ours["ratio_to_ours"]) == 1
    assert int(ours["bytes"]) == 3 * 2 * 5 * 3 * 4 * 4  # x and direction read, the result written


def test_turns_come_in_a_random_order_that_is_always_the_same():
    names = ["a", "b", "c"]
    orders = list(timing.turns(names, 60))
    assert orders == list(timing.turns(names, 60))
    assert all(sorted(order) == names for order in orders)
    # Each follows every other one, and begins: of 60 draws none of the six orders is missing but in
    # one of 10,000 seeds.
    assert len({tuple(order) for order in orders}) == 6


def test_a_table_is_whole_whenever_it_is_cut_short(tmp_path):
    path = tmp_path / "table.csv"
    table = timing.Table(path)
    for count in (1, 2, 3):
        table.add([{"number": count, "text": "a, b"}])
        assert [row["number"] for row in read(path)] == ["1", "2", "3"][:count]
    assert list(tmp_path.iterdir()) == [path]
    timing.Table(None).add([{"number": 1}])


def test_an_interrupted_benchmark_keeps_what_it_has_measured(uncompiled, monkeypatch, tmp_path):
    measured = iter([[{"op": "first"}], [{"op": "second"}]])
    monkeypatch.setattr(bench_ops, "measure", lambda *_: next(measured))
    table = tmp_path / "ops.csv"
    with pytest.raises((StopIteration, RuntimeError)):
        run(bench_ops, monkeypatch, "--threads", 1, "--csv", table)
    assert [row["op"] for row in read(table)] == ["first", "second"]


def test_short_calls_are_repeated():
    calls = 0

    def count():
        nonlocal calls
        calls += 1

    seconds = timing.timed({"count": count, "other": lambda: None}, 0, CPU)
    assert len(seconds["count"]) == timing.FEWEST_TURNS
    assert calls > 10 * timing.FEWEST_TURNS  # adding one takes well below a tenth of 0.2 ms


@pytest.mark.gpu
@pytest.mark.parametrize("launch", ["graph", "stream"])
def test_cuda_timing_rotates_over_more_than_the_cache(launch):
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device, and there is none")
    device = torch.device("cuda")
    seen = set()

    def double(x):
        seen.add(x.data_ptr())
        return x * 2

    x = torch.ones(1 << 20, device=device)
    seconds = cuda_timing.timed({"double": double}, (x,), 0.01, device, launch)["double"]
    assert (seconds > 0).all()
    cache = torch.cuda.get_device_properties(device).L2_cache_size
    assert len(seen) * x.nbytes >= 4 * cache


def small_network() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 16), nn.Tanh(), nn.Linear(16, 5))


def test_vat_loops_find_the_scorers_scores():
    """In float64 nothing rounds: what is left are the 1e-8 that the loops add to norms of 2e-4 and
    more, and the 1e-6 to squared sums of at least one. A step is 5e-5 too short at most, and a
    score goes with its square."""
    torch.manual_seed(0)
    x = torch.rand(6, 1, 28, 28).double()
    model = bench_ldr.confident(small_network().double(), x)
    u = torch.randn_like(x)
    u /= u.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    loop = {"xi": 0.5, "eps": 1.0, "num_iters": 2}
    forward = vat_loops.vat(model, x, u, **loop)
    assert all(parameter.grad is None for parameter in model.parameters())  # zeroed to None
    for variant in ({"input_only": True}, {"on_host": True}):
        other = vat_loops.vat(model, x, u, **loop, **variant)
        torch.testing.assert_close(other, forward, rtol=1e-4, atol=0)
    calls = bench_ldr.contestants(model, x, 0.5, batch_size=3)
    for name, expected in (("eager", "vaal_ext"), ("vat", "vaal_ext, forward")):
        np.testing.assert_allclose(torch.cat(calls[name]()), calls[expected](), rtol=1e-4)


def test_ldr_table_and_its_judge(threads, monkeypatch, tmp_path):
    monkeypatch.setattr(bench_ldr, "NETWORKS", {"small": small_network})
    monkeypatch.setattr(bench_ldr, "HAS_FOOLBOX", False)
    table = tmp_path / "ldr.csv"
    arguments = ("--threads", 1, "--batch-size", 8, "--seconds", 0, "--default-heap")
    run(bench_ldr, monkeypatch, *arguments, "--csv", table)
    rows = {row["opponent"]: row for row in read(table)}
    assert float(rows["bare"]["ratio_to_bare"]) == 1
    assert float(rows["vat"]["error_median"]) < bench_ldr.WRONG
    assert {row["heap_kept"] for row in rows.values()} == {"False"}

    monkeypatch.setattr(vat_loops, "l2_normalize", lambda d: d / d.flatten(1).norm(dim=1).max())
    with pytest.raises(SystemExit, match=r"vat.* is off by"):
        run(bench_ldr, monkeypatch, *arguments)


def test_foolbox_is_judged_where_the_answer_is_known(monkeypatch):
    """With stand-ins for Foolbox, which only the benchmarks need: one right, one that is not."""

    def step(model, x, xi, eps, num_iters, *, sideways=0.0):
        w = (model.weight[0] - model.weight[1]).detach()
        w = w + sideways * torch.randn_like(w)
        return x - eps * w / w.norm(), model(x)

    monkeypatch.setattr(vat_loops, "foolbox_step", step)
    assert vat_loops.foolbox_follows_the_gradient(CPU)
    monkeypatch.setattr(vat_loops, "foolbox_step", partial(step, sideways=0.1))
    assert not vat_loops.foolbox_follows_the_gradient(CPU)


def test_deepfool_table_and_its_judge(threads, monkeypatch, tmp_path):
    monkeypatch.setattr(bench_deepfool, "NETWORKS", {"small": small_network})
    monkeypatch.setattr(bench_deepfool, "HAS_FOOLBOX", False)
    table = tmp_path / "deepfool.csv"
    arguments = ("--threads", 1, "--batch-size", 4, "--few", 2, "--seconds", 0, "--default-heap")
    run(bench_deepfool, monkeypatch, *arguments, "--csv", table)
    rows = {row["opponent"]: row for row in read(table)}
    assert rows.keys() == {"vaal_ext", "plain", "plain, input only"}
    assert float(rows["plain"]["error_max"]) <= bench_deepfool.ALLOWED["plain"]
    assert float(rows["vaal_ext"]["iterations_mean"]) >= 1
    right = bench_deepfool.one_by_one
    monkeypatch.setattr(bench_deepfool, "one_by_one", lambda *a, **how: 1.01 * right(*a, **how))
    with pytest.raises(SystemExit, match=r"plain is off by 1\.0e-02: nothing was timed"):
        run(bench_deepfool, monkeypatch, *arguments)


def test_scale_table(threads, monkeypatch, tmp_path):
    pytest.importorskip("torchvision")
    monkeypatch.setattr(bench_scale, "SHARD_SIZE", 1500)
    table = tmp_path / "scale.csv"
    run(bench_scale, monkeypatch, "--samples", 4000, "--paths", 20, "--csv", table)
    rows = {row["what"]: row for row in read(table)}
    assert {what: int(row["count"]) for what, row in rows.items()} == {
        "write": 4000,
        "read": 4000,
        "select": 4000,
        "paths": 20,
    }
    assert all(float(row["seconds"]) > 0 for row in rows.values())


def test_pool_table(threads, monkeypatch, tmp_path):
    table = tmp_path / "pool.csv"
    sizes = ("--samples", 300, "--jpegs", 9, "--workers", 1, "--passes", 1, "--threads", 1)
    run(bench_pool, monkeypatch, *sizes, "--csv", table)
    rows = {(row["pool"], row["what"]): row for row in read(table)}
    assert {pool for pool, _ in rows} == {"map", "tensor", "jpeg", "jpeg, workers"}
    assert rows["jpeg", "scored"]["samples"] == "9"
    weights = 4 * (3072 * 32 + 32 + 32 * 10 + 10)
    bound = weights + 4 * bench_pool.BATCH * 4 * 3072 + 64 * 300
    assert int(rows["map", "memory"]["bound_bytes"]) == bound
    assert int(rows["map", "memory"]["peak_bytes"]) > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--device", "tpu9"], "device must be cpu, cuda or cuda:N, got 'tpu9'"),
        (["--device", "cuda:99"], "there is no device cuda:99"),
        (["--threads", "1", "0"], "must be a whole number above 0, got '0'"),
        (["--csv", "/nowhere/table.csv"], "there is no folder /nowhere"),
    ],
)
def test_bad_options_end_a_benchmark_before_it_starts(monkeypatch, capsys, arguments, message):
    with pytest.raises(SystemExit) as ended:
        run(bench_pool, monkeypatch, *arguments)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def test_threads_by_default(monkeypatch):
    def default(device: str, cores: int) -> list[int]:
        monkeypatch.setattr("os.cpu_count", lambda: cores)
        return options.threads_of(Namespace(threads=None, device=torch.device(device)))

    assert default("cpu", 8) == [1, 2]
    assert default("cpu", 1) == [1]
    assert default("cuda", 8) == [1]


def test_peak_memory_sees_what_is_gone_again():
    with bench_pool.peak_memory() as growth:
        block = np.ones(8 << 20)  # 64 MiB of float64
        for _ in range(20):  # long enough for a watcher that looks every 2 ms
            block += 1
        del block
    assert 60 << 20 < growth[0] < 80 << 20

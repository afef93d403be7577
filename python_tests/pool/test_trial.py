"""The trials behind "auto": what they choose, from scripted times, scores and memory."""

import time

import numpy as np
import pytest
import torch

from vaal_ext.cuda.memory import MemoryGrowth, available_memory, read_proc
from vaal_ext.pool.batch_run import Mode
from vaal_ext.pool.trials import choose_batch_size, choose_mode, rank_correlation

PLAIN, LAST, BF16 = Mode(), Mode(None, True), Mode("bf16")


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still but for what `clock.advance` adds."""

    class Clock:
        now = 0.0

        def advance(self, seconds):
            self.now += seconds

    clock = Clock()
    monkeypatch.setattr(time, "perf_counter", lambda: clock.now)
    return clock


# --- rank correlation -------------------------------------------------------------------------


def test_rank_correlation():
    a = np.array([3.0, 1.0, 2.0, 10.0])
    assert rank_correlation(a, np.exp(a)) == pytest.approx(1, abs=1e-15)
    assert rank_correlation(a, -a) == pytest.approx(-1, abs=1e-15)
    # Ranks 1 2.5 2.5 4 against 1 2 3 4: 4.5 / sqrt(4.5 * 5).
    tied = rank_correlation(np.array([1.0, 2.0, 2.0, 5.0]), np.arange(4.0))
    assert tied == pytest.approx(np.sqrt(4.5 / 5), abs=1e-15)
    # 1 - 6 sum d^2 / (n (n^2 - 1)), without ties
    b = np.array([1.0, 3.0, 2.0, 10.0])
    assert rank_correlation(a, b) == pytest.approx(1 - 6 * 8 / (4 * 15), abs=1e-15)


def test_rank_correlation_where_there_is_none():
    a = np.array([1.0, 2.0, np.nan, 3.0])
    assert rank_correlation(a, a) == pytest.approx(1, abs=1e-15)
    assert rank_correlation(a, np.array([1.0, 2.0, 3.0, 4.0])) == 0
    assert rank_correlation(np.ones(4), np.arange(4.0)) == 0
    assert rank_correlation(np.zeros(0), np.zeros(0)) == 0


# --- number format ----------------------------------------------------------------------------


def scripted_mode(clock, seconds, scores):
    def run(mode):
        clock.advance(seconds[mode])
        return scores.get(mode, np.arange(300.0))

    return run


@pytest.mark.parametrize(
    ("seconds", "scores", "expected"),
    [
        ({PLAIN: 2, LAST: 1, BF16: 1.5}, {}, LAST),
        ({PLAIN: 2, LAST: 1.5, BF16: 1}, {}, BF16),
        ({PLAIN: 2, LAST: 1.5, BF16: 1}, {BF16: np.arange(300.0) % 100}, LAST),
        ({PLAIN: 2, LAST: 1, BF16: 1}, {m: np.full(300, np.nan) for m in (LAST, BF16)}, PLAIN),
        ({PLAIN: 1, LAST: 2, BF16: 2}, {}, PLAIN),
        ({PLAIN: 1, LAST: 0.97, BF16: 2}, {}, PLAIN),  # a gain within the noise
    ],
)
def test_the_fastest_mode_of_those_that_rank_alike_is_taken(clock, seconds, scores, expected):
    mode, found = choose_mode(scripted_mode(clock, seconds, scores), [LAST, BF16])
    assert mode == expected
    assert list(found) == [PLAIN, LAST, BF16]
    for other, text in found.items():
        assert text.startswith("not taken" if other in scores else f"{seconds[other]:.3g} s")


def test_a_rank_correlation_below_the_bound_is_too_low(clock):
    ranks = np.arange(256)
    swapped = ranks.copy()
    swapped[[0, 40]] = swapped[[40, 0]]  # 1 - 6 * 2 * 40^2 / (256^3 - 256) = 0.99886
    near = ranks.copy()
    near[[0, 30]] = near[[30, 0]]  # 0.99936
    seconds = {PLAIN: 2, LAST: 1, BF16: 1.5}
    scores = {PLAIN: ranks, LAST: swapped, BF16: near}
    assert choose_mode(scripted_mode(clock, seconds, scores), [LAST, BF16])[0] == BF16


def test_a_refused_number_format_is_not_tried_again(clock):
    last = Mode("bf16", True)
    seconds = {PLAIN: 2, LAST: 1, BF16: 0.5}  # a run in `last` would be a KeyError
    run = scripted_mode(clock, seconds, {BF16: np.arange(300.0) % 100})
    mode, found = choose_mode(run, [LAST, BF16, last])
    assert mode == LAST
    assert last not in found


# --- batch size -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rate", "largest", "limit", "expected", "tried"),
    [
        # the rate doubles up to 64: two doublings more are tried
        (lambda b: min(b, 64), 8192, 10**9, 64, [8, 16, 32, 64, 128, 256]),
        (lambda b: min(b, 64), 100, 10**9, 64, [8, 16, 32, 64, 100]),
        # 1000 bytes a sample: 32 take 32000, of 64 twice as much is expected
        (lambda b: b, 8192, 63_999, 32, [8, 16, 32]),
        (lambda b: b, 8192, 64_000, 64, [8, 16, 32, 64]),
        (lambda b: b, 8192, 5000, 5, [8]),
        (lambda b: b, 8192, 10, 1, [8]),
        (lambda b: 1.0, 8192, 10**9, 8, [8, 16, 32]),
        (lambda b: b, 3, 10**9, 3, [3]),
    ],
)
def test_batch_size_by_doubling(clock, rate, largest, limit, expected, tried):
    run_sizes = []

    def run(size):
        run_sizes.append(size)
        clock.advance(size / rate(size))

    size, rates = choose_batch_size(run, largest, lambda: 1000 * max(run_sizes), limit)
    assert size == expected
    assert list(rates) == tried
    assert all(rates[b] == pytest.approx(rate(b)) for b in tried)


@pytest.mark.parametrize(("fits", "expected"), [(40, 32), (5, 4)])
def test_batch_size_where_memory_runs_out(clock, fits, expected):
    def run(size):
        clock.advance(1)
        if size > fits:
            raise torch.OutOfMemoryError("CUDA out of memory (pretended)")

    assert choose_batch_size(run, 8192, lambda: 1, 10**9)[0] == expected


# --- memory -----------------------------------------------------------------------------------


def test_memory_growth_is_the_peak_since_the_start():
    cpu, size = torch.device("cpu"), 64 * 2**20
    assert size < available_memory(cpu) < 2**50
    touched = torch.ones(2 * size, dtype=torch.uint8)  # an older peak, which does not count
    del touched
    growth = MemoryGrowth(cpu)
    assert growth.peak() < size // 4
    touched = torch.ones(size, dtype=torch.uint8)
    del touched
    # Within a quarter: pages come in pieces, and what was free before is used first.
    assert abs(growth.peak() - size) < size // 4


def test_a_system_without_proc_is_told_to_give_a_number(tmp_path):
    with pytest.raises(ValueError, match="give the batch size as a number"):
        read_proc(str(tmp_path / "status"), "VmRSS")
    (tmp_path / "status").write_text("VmSize: 10 kB\n")
    with pytest.raises(ValueError, match="entry VmRSS this system lacks"):
        read_proc(str(tmp_path / "status"), "VmRSS")

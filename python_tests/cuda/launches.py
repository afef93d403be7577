"""How the ops launch their kernels: names, shapes and parameters, from the launch code itself.

The emulation's program is built without sanitizers and told to write its launches down instead of
running them (emulation/launches.h). So nothing here knows which kernel a plan leads to, or where a
parameter lies.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import tempfile
from pathlib import Path

import torch
from emulation import runner
from emulation.build import Toolchain, build
from emulation.harness import FAMILIES, TYPES, Emulation, Plan, program
from gpus import Gpu

# libasan has the functions that tell it of fibres; nothing is checked here.
TOOLCHAIN = Toolchain("launches", "g++", ("-O0", "-rdynamic", "-Wl,--no-as-needed,-lasan"))
MANY_ROWS, FEW_ROWS = 100_000, 4  # of long ones the plans split so few, and not so many


@dataclasses.dataclass(frozen=True)
class Launch:
    """kernel: the mangled name. blocks: of the launch, for `rows` rows."""

    kernel: str
    blocks: int
    threads: int
    shared_bytes: int
    parameters: bytes


@dataclasses.dataclass(frozen=True)
class Case:
    """An op on rows of `cols` elements. few_rows: as many as make a plan split them."""

    op: str
    dtype: torch.dtype
    cols: int
    few_rows: bool = False
    smoothed: bool = False

    def plan(self, gpu: Gpu) -> Plan:
        """The plan for many rows (or few), cut down to those of one block (or a row's)."""
        plan = Plan.of(
            self.op,
            FEW_ROWS if self.few_rows else MANY_ROWS,
            self.cols,
            self.dtype,
            smoothed=self.smoothed,
            multiprocessors=gpu.multiprocessors,
            shared_bytes=gpu.shared_of_block,
        )
        plan.blocks = math.ceil(self.rows_of(plan) / plan.rows_per_block) * plan.splits
        return plan

    def rows_of(self, plan: Plan) -> int:
        return FEW_ROWS if self.few_rows else plan.rows_per_block


class Recorder(runner.Runner):
    """The process; it leaves the outputs as they are."""

    def call(self, name, integers, numbers, buffers):
        for buffer in buffers:
            if isinstance(buffer, runner.Output):
                buffer.checked = False
        return super().call(name, integers, numbers, buffers)


@functools.cache
def _record() -> tuple[Emulation, Path]:
    everything = program("launches", FAMILIES, tuple(TYPES.values()), toolchain=TOOLCHAIN)
    build("launches.ninja", [everything])
    path = Path(tempfile.mkdtemp(prefix="vaal_launches_"), "launches.txt")
    return Emulation(Recorder("env", f"VAAL_LAUNCHES={path}", everything.path)), path


@functools.cache
def launches(case: Case, gpu: Gpu) -> tuple[tuple[Launch, ...], Plan, int]:
    """The launches of one call, its plan, and its rows."""
    emulation, path = _record()
    plan = case.plan(gpu)
    rows = case.rows_of(plan)
    x = torch.zeros(rows, case.cols, dtype=case.dtype)
    path.unlink(missing_ok=True)
    _call(emulation, case, x, plan)
    found = []
    for line in path.read_text().splitlines():
        kernel, blocks, threads, shared, parameters = line.split(" ")
        found.append(
            Launch(kernel, int(blocks), int(threads), int(shared), bytes.fromhex(parameters))
        )
    return tuple(found), plan, rows


def _call(emulation: Emulation, case: Case, x: torch.Tensor, plan: Plan) -> None:
    smoothing = 0.1 if case.smoothed else 0.0
    match case.op:
        case "symmetric_kl" | "symmetric_kl_direction":
            getattr(emulation, case.op)(x, x, smoothing, plan=plan)
        case "symmetric_kl_backward":
            given = torch.zeros(len(x), dtype=torch.promote_types(x.dtype, torch.float32))
            emulation.symmetric_kl_backward(given, x, x, smoothing, plan=plan)
        case "perturb":
            emulation.perturb(x, x, 1.0, plan)
        case "random_perturb":
            emulation.random_perturb(x, 1.0, 1, torch.zeros(len(x), dtype=torch.int64), plan)
        case "fisher_product":
            emulation.fisher_product(x, x, plan)
        case "deepfool_step":  # each row a sample of one candidate
            index = torch.zeros(len(x), dtype=torch.int64)
            logits = torch.zeros(len(x), 2, dtype=x.dtype)
            emulation.deepfool_step(logits, x[:, None], index, index[:, None], plan)
        case _:
            getattr(emulation, case.op)(x, plan)

"""The table of what binds the CUDA kernels, from csrc/cuda/roofline.csv."""

from __future__ import annotations

import csv
from pathlib import Path

from vaal_ext.report.wording import markdown

DTYPES = ("float32", "bfloat16")
OPS = (
    "symmetric_kl", "symmetric_kl_direction", "symmetric_kl_backward", "fisher_direction",
    "fisher_product", "posterior_summary", "perturb", "random_perturb", "deepfool_step",
)  # fmt: skip


def roofline(file: Path, gpu: str = "sm_90") -> str:
    """Instructions an element, what binds and the share of a copy's speed, for each kernel.

    Of the rows that a warp shares only the longest are shown.
    """
    _, _, *lines = file.read_text(encoding="utf-8").splitlines()
    found: dict[tuple[str, str, str, str], dict[str, str]] = {}
    for row in csv.DictReader(lines):
        if row["dtype"] not in DTYPES:
            continue
        kernel, _, arguments = row["kernel"].partition("<")
        step = arguments.partition(",")[0] if "(KlStep)" in arguments else ""
        cols = "" if row["path"] == "warp" else row["cols"]
        key = row["op"], row["path"], cols, f"`{kernel}`{step.replace('(KlStep)', ' ')}"
        instructions, binds = row[gpu].split(" ")[0], row[gpu].rpartition(" | ")[2]
        bound, share = binds.split(" ")
        text = f"{float(instructions):.0f}, {bound} {float(share):.0%}"
        # The table ascends by the columns: the longest of a warp's comes last.
        found.setdefault(key, {})[row["dtype"]] = text
    head = ["op", "path", "elements a row", "kernel", *DTYPES]
    body = [
        [f"`{op}`", path, cols or "32 lanes full", kernel, *(cells.get(d, "–") for d in DTYPES)]
        for (op, path, cols, kernel), cells in sorted(
            found.items(), key=lambda item: (OPS.index(item[0][0]), item[0])
        )
    ]
    return markdown([head, *body])

"""Tables II to IV in the paper's form, with the paper's numbers beside ours."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vaal_ext.files.atomic import write_atomically
from vaal_ext.paper.paper import ANNOTATIONS, PRINTED
from vaal_ext.report.curves import write_csv
from vaal_ext.report.runs import Run
from vaal_ext.report.statistics import mean_and_interval
from vaal_ext.report.wording import markdown

__all__ = ["Cell", "markdown_table", "table_cells", "write_table"]


@dataclass(frozen=True)
class Cell:
    """Test accuracy in percent with `labels` labelled samples, of which `annotations` were queried:
    mean over `seeds` seeds, its 95% bootstrap interval (NaN for one seed), and what the paper
    printed (NaN where nothing)."""

    variant: str
    labels: int
    annotations: int
    mean: float
    low: float
    high: float
    seeds: int
    paper: float


def table_cells(groups: dict[str, list[Run]], dataset: str) -> list[Cell]:
    """A cell for each variant and number of annotations that all its runs have come to.

    The columns are the paper's; where the runs queried otherwise, every query is a column.
    """
    cells = []
    for variant, runs in groups.items():
        annotations = [run.labels - run.labels[0] for run in runs]
        reached = sorted(set.intersection(*(set(a.tolist()) for a in annotations)))
        printed_too = dataset in PRINTED and any(n in ANNOTATIONS for n in reached)
        columns = [n for n in reached if n in ANNOTATIONS] if printed_too else reached[1:]
        row = PRINTED.get(dataset, {}).get(variant.removesuffix(" (paper)"))
        printed = dict(zip(ANNOTATIONS, row, strict=True)) if row else {}
        for column in columns:
            values = [
                run.accuracy[a == column][0] for run, a in zip(runs, annotations, strict=True)
            ]
            mean, low, high = (100 * float(v) for v in mean_and_interval(np.array(values)))
            paper = printed.get(column, math.nan)
            labels = column + int(runs[0].labels[0])
            cells.append(Cell(variant, labels, column, mean, low, high, len(runs), paper))
    return cells


def markdown_table(cells: Sequence[Cell], title: str, notes: Sequence[str]) -> str:
    """Rows are variants; a column is a number of labels, and in parentheses how many of them were
    queried (the paper's annotations); a cell is ours, and in parentheses the paper's.

    Where the variants have not all been run with as many seeds, a column says with how many.
    """
    columns = sorted({(cell.labels, cell.annotations) for cell in cells})
    found = {(cell.variant, (cell.labels, cell.annotations)): cell for cell in cells}
    seeds = {cell.variant: cell.seeds for cell in cells}
    ragged = len(set(seeds.values())) > 1
    numbers = (f"{labels:,} ({queried:,})" for labels, queried in columns)
    header = ["labelled samples (queried)", *(["seeds"] if ragged else []), *numbers]
    lines = [header]
    for variant in seeds:
        row = [variant, *([str(seeds[variant])] if ragged else [])]
        for column in columns:
            cell = found.get((variant, column))
            row.append("" if cell is None else _text(cell))
        lines.append(row)
    return "\n\n".join([f"## {title}", markdown(lines), *notes]) + "\n"


def _text(cell: Cell) -> str:
    text = f"{cell.mean:.2f}"
    if not math.isnan(cell.low):
        text += f" [{cell.low:.2f}, {cell.high:.2f}]"
    if not math.isnan(cell.paper):
        # Bold where we are above the paper.
        text = f"**{text}**" if cell.mean > cell.paper else text
        text += f" ({cell.paper:.2f})"
    return text


def write_table(cells: Sequence[Cell], text: str, stem: Path) -> None:
    """`stem`.csv, a row for each cell, and `stem`.md, which is `text`; each whole or not at all."""
    header = ("strategy", "annotations", "mean", "low", "high", "seeds", "paper", "labels")
    rows = [
        (
            c.variant,
            c.annotations,
            *(round(v, 3) for v in (c.mean, c.low, c.high)),
            c.seeds,
            c.paper,
            c.labels,
        )
        for c in cells
    ]
    write_csv(stem.with_suffix(".csv"), header, rows)
    with write_atomically(stem.with_suffix(".md"), "w") as handle:
        handle.write(text)

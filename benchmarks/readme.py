"""Redraws the tables of README.md and of the pages from the CSV files (pictures: redraw.py).

    python benchmarks/readme.py [--results benchmarks/results] [--print]

A table stands in its page between `<!-- table: NAME -->` and `<!-- end -->`; nothing else there is
touched. With --print the tables of the benchmarks go to stdout instead, so that a machine's own
figures can be held against the committed ones, and no file is written.
"""

from __future__ import annotations

import argparse
import csv
import math
import re
from pathlib import Path

from cells import OURS, Row, by_threads, distinct, short
from kernel_tables import roofline
from rankings import direction, precision, query, search, stability
from strategy_tables import ahead, spread, strategies

from vaal_ext.cli.work.bench import NAMES
from vaal_ext.files.atomic import write_atomically
from vaal_ext.report.wording import markdown

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs" / "source"
PAGES = (
    ROOT / "README.md",
    ROOT / "benchmarks" / "RESULTS.md",
    ROOT / "benchmarks" / "SEARCHES.md",
    DOCS / "how_it_works.md",
    DOCS / "kernels.md",
    DOCS / "which_strategy.md",
    DOCS / "results" / "speed.md",
)
COPIES = ("clone", "copy")
NOT_SHOWN = (OURS, "clone")  # the copy into memory that is there already is the fairer ceiling
MARKED = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", re.S)


def read(results: Path, name: str) -> list[Row]:
    with open(results / f"{name}_cpu.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def tables(results: Path) -> dict[str, str]:
    """Every table of a benchmark by name, as Markdown lines."""
    files = {name: read(results, name) for name in NAMES}
    ops = files["ops"]
    return {
        "accuracy": accuracy(files["accuracy"]),
        "machine": machine(files),
        "logits": speed(
            ops, ["symmetric_kl", "fisher_direction", "fisher_product", "posterior_summary"]
        ),
        "images": speed(ops, ["perturb", "random_perturb"]),
        "gradients": speed(ops, ["deepfool_step"]),
        "losses": losses(ops),
        "ldr": ldr(files["ldr"]),
        "deepfool": deepfool(files["deepfool"]),
        "pool": pool(files["pool"]),
        "stability": stability(files["stability"]),
        "direction": direction(files["direction"]),
        "precision": precision(files["precision"]),
        "search": search(files["search"]),
        "query": query(files["query"]),
    }


def comparisons() -> dict[str, str]:
    """The tables of which strategy comes to what, from the committed runs of `reproduce`."""
    paper = ROOT / "benchmarks" / "results" / "paper"
    return {
        "strategies": strategies(paper),
        "strategies_vat": strategies(paper, "+vat"),
        "ahead": ahead(paper),
        "spread": spread(ROOT / "benchmarks" / "results" / "spread.csv"),
        "spread_test": spread(ROOT / "benchmarks" / "results" / "spread_test.csv", "test"),
    }


def machine_code() -> dict[str, str]:
    """The tables of the CUDA kernels, from what the build says of them."""
    return {"roofline": roofline(ROOT / "csrc" / "cuda" / "roofline.csv")}


def redrawn(texts: dict[Path, str], drawn: dict[str, str]) -> dict[Path, str]:
    """The pages with these tables in the place of the old ones.

    Raises:
        ValueError: a table without its place, or a place without its table.
    """
    places = [name for text in texts.values() for _, name, _ in MARKED.findall(text)]
    if sorted(places) != sorted(drawn):
        raise ValueError(f"the pages have places for {places}, the tables are {list(drawn)}")

    def with_table(found: re.Match[str]) -> str:
        return f"{found[1]}{drawn[found[2]]}\n{found[3]}"

    return {page: MARKED.sub(with_table, text) for page, text in texts.items()}


def shape_of(text: str) -> str:
    return f"({text.replace('x', ', ')})"


def ratio(text: str) -> str:
    """Two digits or more, cut, not rounded, below one: 23, 4.1, 0.87 (no loss becomes a draw)."""
    value = float(text)
    if value < 1:
        return f"{math.floor(value * 100) / 100:.2f}"
    return f"{value:.0f}" if value >= 9.95 else f"{value:.1f}"


def count(threads: str) -> str:
    return f"{threads} thread{'s' if threads != '1' else ''}"


def error(text: str) -> str:
    """Two digits: 2.0e-6, 0.053, 22."""
    value = float(text)
    if 0.01 <= value < 100:
        return f"{value:#.2g}".rstrip(".")
    return short(f"{value:.1e}")


def accuracy(rows: list[Row]) -> str:
    rows = [row for row in rows if row["what"] == "gradient" and row["classes"] == "all"]
    steps = distinct(rows, "step")
    body = []
    for (method,) in distinct(rows, "method"):
        cells = {row["step"]: row for row in rows if row["method"] == method}
        name = f"**{method}**" if method.startswith(OURS) else method
        found = (cells[step] for (step,) in steps)
        body.append([name, *(f"{error(r['median'])} / {error(r['worst'])}" for r in found)])
    head = ["gradient of J", *(f"s = {short(f'{float(step):g}')}" for (step,) in steps)]
    return markdown([head, *body])


def machine(files: dict[str, list[Row]]) -> str:
    """Where and with what: a line for each machine and commit, with the names of the files."""
    said: dict[str, list[str]] = {}
    for name, rows in files.items():
        for row in rows:
            # A tree that only holds new figures is "-dirty" too.
            line = (
                f"{row['device']}; torch {row['torch']}, Python {row['python']}, "
                f"commit {row['commit'][:12]}"
            )
            names = said.setdefault(line, [])
            if name not in names:
                names.append(name)
    return "\n".join(f"- {', '.join(names)}: {line}" for line, names in said.items())


def speed(rows: list[Row], ops: list[str]) -> str:
    """How many times as long as ours each opponent takes, by op, dtype and shape."""
    rows = [row for row in rows if row["op"] in ops]
    shapes = distinct(rows, "shape")
    body = []
    for op, dtype, opponent in distinct(rows, "op", "dtype", "opponent"):
        if opponent in NOT_SHOWN:
            continue
        mine = [r for r in rows if (r["op"], r["dtype"], r["opponent"]) == (op, dtype, opponent)]
        cells = []
        for (shape,) in shapes:
            there = [row for row in mine if row["shape"] == shape]
            cells.append(by_threads(there, lambda row: ratio(row["ratio_to_ours"])))
        body.append([f"`{op}`", dtype, opponent, *cells])
    head = ["op", "dtype", "against", *(shape_of(shape) for (shape,) in shapes)]
    return markdown([head, *body])


def contends(row: Row) -> bool:
    """Neither one of ours nor a copy, which computes nothing."""
    return not row["opponent"].startswith(OURS) and row["opponent"] not in COPIES


def losses(rows: list[Row]) -> str:
    """Every comparison that ours loses, copies apart, of however many."""
    held = [row for row in rows if contends(row)]
    lost = [row for row in held if float(row["ratio_to_ours"]) < 1]
    lines = [f"Of {len(held)} comparisons {len(lost)} are lost{':' if lost else '.'}"]
    if lost:
        lines.append("")
    for op, opponent, dtype in distinct(lost, "op", "opponent", "dtype"):
        mine = [r for r in lost if (r["op"], r["opponent"], r["dtype"]) == (op, opponent, dtype)]
        where = ", ".join(
            f"{ratio(r['ratio_to_ours'])} at {shape_of(r['shape'])} with {count(r['threads'])}"
            for r in mine
        )
        lines.append(f"- `{op}`, {dtype}, against {opponent}: {where}")
    return "\n".join(lines)


def ldr(rows: list[Row]) -> str:
    networks = distinct(rows, "network")
    small = f"ξ = {float(rows[0]['small_xi']):g}"
    body = []
    for (opponent,) in distinct(rows, "opponent"):
        cells = []
        for (network,) in networks:
            mine = [r for r in rows if (r["network"], r["opponent"]) == (network, opponent)]
            cells.append(by_threads(mine, lambda r: f"{float(r['ratio_to_bare']):.2f}"))
            errors = {r["error_at_small_xi"] for r in mine} - {""}
            cells.append(", ".join(error(text) for text in errors) or "–")
        body.append([opponent, *cells])
    head = ["time, in that of the bare passes"]
    for (network,) in networks:
        head += [network, f"off at {small}"]
    return markdown([head, *body])


def deepfool(rows: list[Row]) -> str:
    body = []
    for (opponent,) in distinct(rows, "opponent"):
        mine = [row for row in rows if row["opponent"] == opponent]
        times = by_threads(mine, lambda row: f"{1e3 * float(row['median_s']):.1f}")
        body.append([opponent, times, by_threads(mine, lambda row: ratio(row["ratio_to_ours"]))])
    iterations = float(rows[0]["iterations_mean"])
    head = [f"DeepFool, {iterations:.1f} iterations", "ms a sample", "time, in ours"]
    return markdown([head, *body])


def pool(rows: list[Row]) -> str:
    body = []
    for name, samples in distinct(rows, "pool", "samples"):
        mine = [row for row in rows if (row["pool"], row["samples"]) == (name, samples)]
        cells = [
            by_threads(
                (row for row in mine if row["what"] == what),
                lambda row: f"{float(row['samples_per_s']):,.0f}",
            )
            for what in ("read", "scored")
        ]
        memory = [
            f"{mebibytes(row['peak_bytes'])} MiB (bound: {mebibytes(row['bound_bytes'])})"
            for row in mine
            if row["what"] == "memory"
        ]
        body.append([name, f"{int(samples):,}", *cells, *(memory or ["–"])])
    head = ["pool", "samples", "read, samples/s", "scored, samples/s", "memory at the peak"]
    return markdown([head, *body])


def mebibytes(size: str) -> str:
    return f"{int(size) / 2**20:.0f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results")
    parser.add_argument("--print", action="store_true", help="to stdout; no file is written")
    args = parser.parse_args()
    try:
        drawn = tables(args.results)
    except OSError as error:
        parser.error(f"{error.filename}: {error.strerror}")
    if args.print:
        print("\n\n".join(drawn.values()))
        return
    texts = {page: page.read_text(encoding="utf-8") for page in PAGES}
    texts = redrawn(texts, drawn | comparisons() | machine_code())
    for page, text in texts.items():
        with write_atomically(page, "w") as file:
            file.write(text)


if __name__ == "__main__":
    main()

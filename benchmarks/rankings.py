"""The tables of what searches find: rankings, directions, queries."""

from __future__ import annotations

from cells import OURS, Row, by_threads, distinct, short

from vaal_ext.report.wording import markdown


def stability(rows: list[Row]) -> str:
    """The overlap of two queries from different starts."""
    rows = [row for row in rows if row["overlap"]]  # the others are of batch sizes
    radii, iterations = distinct(rows, "eps"), distinct(rows, "num_iters")
    body = []
    for network, sign, method in distinct(rows, "network", "sign", "method"):
        cells = []
        for (eps,) in radii:
            mine = [
                row
                for row in rows
                if (row["network"], row["sign"], row["method"], row["eps"])
                == (network, sign, method, eps)
            ]
            cells.append(" / ".join(f"{float(row['overlap']):.2f}" for row in mine))
        body.append([network, f"`{sign}`", method, *cells])
    steps = "/".join(number for (number,) in iterations)
    head = ["network", "sign", f"method (Ip {steps})", *(f"ε = {float(eps):g}" for (eps,) in radii)]
    return markdown([head, *sorted(body)])


def direction(rows: list[Row]) -> str:
    """What each search of the worst direction costs and finds, of the networks in turn."""
    networks = distinct(rows, "network")
    body = []
    for method, number in distinct(rows, "method", "num_iters"):
        cells = []
        for (network,) in networks:
            mine = [
                row
                for row in rows
                if (row["network"], row["method"], row["num_iters"]) == (network, method, number)
            ]
            cells.append(by_threads(mine, lambda row: f"{float(row['ratio_to_default']):.2f}"))
            cells.append(f"{float(mine[0]['quotient_median']):.4f}")
            cells.append(f"{float(mine[0]['overlap']):.2f}")
        body.append([method, number or "–", *cells])
    heads = [head for (name,) in networks for head in (f"{name}: time", "uᵀHu", "top tenth")]
    return markdown([["search", "Ip", *heads], *body])


def search(rows: list[Row]) -> str:
    """How near each search comes to the maximum: a line for every network and radius."""
    names = distinct(rows, "search", "forwards", "backwards")
    body = []
    for network, eps in distinct(rows, "network", "eps"):
        mine = [row for row in rows if (row["network"], row["eps"]) == (network, eps)]
        cells = [
            f"{two(row['ratio_median'])} ({two(row['ratio_p05'])}) / {two(row['top_tenth'])} / "
            f"{two(row['band'])}"
            for row in mine
        ]
        body.append([network, f"{float(eps):g}", *cells])
    heads = (f"{name}: {float(f):g}F + {float(b):g}B" for name, f, b in names)
    return markdown([["network", "ε", *heads], *body])


def query(rows: list[Row]) -> str:
    """What a query costs in that of entropy, and what it picks, of the networks in turn."""
    pools = distinct(rows, "network", "pool")
    body = []
    for (name,) in distinct(rows, "query"):
        cells = []
        for pool in pools:
            mine = [
                row for row in rows if (row["network"], row["pool"], row["query"]) == (*pool, name)
            ]
            cells.append(by_threads(mine, lambda row: f"{float(row['ratio_to_entropy']):.1f}"))
            for share in ("shared_full", "shared_true", "in_top_tenth"):
                cells.append(two(mine[0][share]) if mine and mine[0][share] else "–")
        body.append([f"**{name}**" if name == "vaal" else name, *cells])
    heads = []
    for network, size in pools:
        heads += [f"{network}, {int(size):,}: time", "picks of full", "of the maximum", "top tenth"]
    return markdown([["query", *heads], *body])


def two(text: str) -> str:
    """Two decimals, cut, so that nothing becomes the whole by rounding."""
    return f"{int(float(text) * 100 + 1e-9) / 100:.2f}"


def precision(rows: list[Row]) -> str:
    """Rank correlations with float64, of the networks in turn."""
    steps = distinct(sorted(rows, key=lambda row: float(row["xi"] or 0)), "xi")
    body = []
    for method, form in distinct(sorted(rows, key=lambda row: row["method"]), "method", "format"):
        cells = []
        for (xi,) in steps:
            mine = [
                f"{float(row['correlation']):.4f}"
                for row in rows
                if (row["method"], row["format"], row["xi"]) == (method, form, xi)
            ]
            cells.append(" / ".join(mine) or "–")
        name = f"**{method}**" if method.startswith(OURS) else method
        body.append([name, form, *cells])
    heads = (f"ξ = {short(f'{float(xi):g}')}" if xi else "no ξ" for (xi,) in steps)
    return markdown([["method", "format", *heads], *body])

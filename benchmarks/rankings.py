"""The README's tables of bench_stability.py, bench_direction.py and bench_precision.py."""

from __future__ import annotations

from cells import OURS, Row, by_threads, distinct, short

from vaal_ext.report.wording import markdown


def stability(rows: list[Row]) -> str:
    """The overlap of two queries from different starts."""
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

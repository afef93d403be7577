"""What pictures look like: legends beside the data, one meaning an encoding, nothing squeezed."""

from __future__ import annotations

import accuracy_plot
import matplotlib
import numpy as np
import pytest
import query_plot
import speed_plot
from made_runs import run_of
from matplotlib.colors import to_rgb

from vaal_ext.paper import figures, radius, sweeps, what_ldr_is
from vaal_ext.report import curve_figure
from vaal_ext.report import figures as report_figures
from vaal_ext.report.canvas import COLOURS, styles
from vaal_ext.report.curve_figure import draw_learning_curves, squeezed_from
from vaal_ext.report.curves import learning_curves
from vaal_ext.report.runs import group_runs

LABELS = [20, 30, 40]


@pytest.fixture
def drawn(monkeypatch):
    """The figures that would have been written, laid out."""
    found = []

    def keep(figure, _):
        figure.draw_without_rendering()
        found.append(figure)

    for module in (
        curve_figure,
        report_figures,
        figures,
        radius,
        sweeps,
        what_ldr_is,
        speed_plot,
        query_plot,
        accuracy_plot,
    ):
        monkeypatch.setattr(module, "write_figure", keep)
    return found


def curves_of(**accuracies):
    """A curve for each name, with a seed for each list; "+" cannot stand in a keyword."""
    return learning_curves(
        group_runs(
            [
                run_of(accuracy, LABELS, strategy=name.replace("__", "+"), seed=seed)
                for name, seeds in accuracies.items()
                for seed, accuracy in enumerate(seeds)
            ]
        )
    )


def legend_names(figure) -> list[str]:
    (legend,) = figure.legends
    return [text.get_text() for text in legend.get_texts()]


def panels_of(rng, span):
    """A panel over a plane that is so much wider than it is high."""
    x = rng.random((40, 2)) * np.array([span, 1.0])
    axes = np.array([np.linspace(0, span, 9), np.linspace(0, 1, 9)])
    return figures.Panel(
        "panel", rng.random((9, 9)), axes, x, np.arange(40) % 2, np.arange(4), np.arange(4, 9)
    )


def draw_all(tmp_path, rng, title) -> None:
    """Every picture that has a legend."""
    path = tmp_path / "picture.png"
    seeds = [[0.5, 0.7, 0.9], [0.6, 0.8, 0.9], [0.7, 0.8, 0.95]]
    draw_learning_curves(path, curves_of(vaal=seeds, random=seeds), title)
    bad = [[0.1, 0.2, 0.3]]
    draw_learning_curves(path, curves_of(vaal=seeds, random=seeds, mine=bad), title)
    ldr = np.exp(rng.normal(size=50)).astype(np.float32)
    report_figures.draw_ldr_histogram(path, ldr, np.arange(50) < 3, 90.0, title)
    figures.draw_contours(path, [[panels_of(rng, 1.0)] * 2] * 2, title)
    figures.draw_updates(path, {"moons": {"vaal": rng.random((3, 20))}}, title)
    names = ("test loss", "training loss", "test accuracy")
    figures.draw_losses(
        path, {"without": {name: rng.random(3) for name in names}}, np.array(LABELS), "title"
    )
    radius.draw_radius(path, {"moons": rng.random((2, len(radius.FRACTIONS)))}, title)
    pool = what_ldr_is.ScoredPool(*rng.random((3, 50)), wrong=np.arange(50) % 3 == 0)
    what_ldr_is.draw_roughness(path, {"vaal": pool}, title)
    speed_plot.draw_speed(path, speeds(), title)
    query_plot.draw_queries(path, queries(), title)
    accuracy_plot.draw_accuracy(path, errors(), title)


def errors():
    return [
        {"method": method, "what": "gradient", "classes": "all"}
        | {"step": step, "median": "1e-7", "worst": "1e-6"}
        for method in ("vaal_ext, float32", "textbook, float32", "textbook, float64")
        for step in ("1.0", "0.01")
    ]


def queries():
    given = {"network": "mnist", "pool": "1000", "threads": "1"}
    return [
        given | {"query": name, "ratio_to_entropy": ratio, "in_top_tenth": share}
        for name, ratio, share in (("entropy", "1", "0.6"), ("vaal", "2", "1"), ("BALD", "20", ""))
    ]


def speeds():
    given = {"dtype": "float32", "threads": "1"}
    return [
        given | {"op": op, "shape": "5x3", "opponent": opponent, "ratio_to_ours": ratio}
        for op in ("perturb", "symmetric_kl")
        for opponent, ratio in (("vaal_ext", "1"), ("eager", "0.5"), ("torch.compile", "30"))
    ]


def test_no_legend_lies_over_data(tmp_path, drawn):
    draw_all(tmp_path, np.random.default_rng(0), "title")
    assert len(drawn) == 11
    for figure in drawn:
        (legend,) = figure.legends
        assert all(axes.get_legend() is None for axes in figure.axes)
        box = legend.get_window_extent()
        for axes in figure.axes:
            assert not box.overlaps(axes.get_window_extent())
        below = figure._supxlabel  # the caption
        assert below is None or not box.overlaps(below.get_window_extent())


def test_no_text_runs_off_the_picture(tmp_path, drawn):
    """A title is as long as what it tells, and the foot of a learning curve longer still."""
    title = "cifar10, on folder:cifar10-jpeg, losses and accuracy without and with sampling; " * 2
    rng = np.random.default_rng(0)
    draw_all(tmp_path, rng, title)
    draw_learning_curves(tmp_path / "c.png", curves_of(vaal=[[0.5] * 3]), "x", made_of=title * 2)
    report_figures.draw_win_matrix(
        tmp_path / "w.png", ["vaal", "random"], rng.random((2, 2)), title
    )
    sweeps.draw_sweep(
        tmp_path / "s.png", [sweeps.SweepRow("vaal", 80.0, 79.0, 81.0, 80.0, 3)], title
    )
    assert len(drawn) == 14
    for figure in drawn:
        for text in (figure._suptitle, figure._supxlabel):
            if text is not None:
                box = text.get_window_extent()
                assert box.x0 >= 0, text
                assert box.x1 <= figure.bbox.width, text


def test_a_dash_means_the_regulariser_alone():
    """As do hollow markers, for those who print in grey; colour and marker are the strategy's."""
    plain = [f"s{i}" for i in range(14)] + ["vaal", "random", "vaal (paper)"]
    names = [*plain, "vaal+vat", "random+vat", "vaal+vat (paper)", "s3+vat"]
    look = dict(zip(names, styles(names), strict=True))
    for name in names:
        assert (look[name].line, look[name].fill == "white") == (
            ("--", True) if "+vat" in name else ("-", False)
        )
        alike = look[name.replace("+vat", "")]
        assert (look[name].colour, look[name].marker) == (alike.colour, alike.marker)
    assert len({(look[name].colour, look[name].marker) for name in plain}) == len(plain)
    # Without colour: as many strategies as there are markers.
    few = styles(["random", "entropy", "margin", "dfal", "vaal", "a", "b", "c"])
    assert len({style.marker for style in few}) == len({style.colour for style in few}) == 8
    # A strategy looks the same whatever is beside it.
    assert styles(["x", "vaal"])[1] == styles(["vaal", "random"])[0] == look["vaal"]


def linear(channel: float) -> float:
    return channel / 12.92 if channel <= 0.04045 else ((channel + 0.055) / 1.055) ** 2.4


def luminance(colour) -> float:
    """Relative luminance as WCAG 2 defines it."""
    return float(np.dot([0.2126, 0.7152, 0.0722], [linear(c) for c in to_rgb(colour)]))


def contrast(first, second) -> float:
    dark, bright = sorted((luminance(first), luminance(second)))
    return (bright + 0.05) / (dark + 0.05)


def test_points_are_seen_on_every_tint():
    """At least 3 : 1, what WCAG 2 asks of graphics."""
    colours = matplotlib.colormaps["RdBu_r"](np.linspace(0, 1, 11))[:, :3]
    tints = figures.TINT * colours + (1 - figures.TINT)
    for point in figures.CLASS_COLOURS.values():
        assert min(contrast(point, tint) for tint in tints) >= 3


def test_curves_are_seen_on_white():
    """Sky blue and orange, the palest of the palette, have 2.2; a yellow would have 1.3."""
    assert min(contrast(colour, "white") for colour in COLOURS) > 2


def test_a_plane_that_is_wide_leaves_no_white(tmp_path, drawn):
    """The panels of circles (square) and of moons (1.7 times as wide) fill most of the picture."""
    for span in (1.0, 1.7):
        panel = panels_of(np.random.default_rng(0), span)
        figures.draw_contours(tmp_path / "fig4.png", [[panel] * 2] * 2, "title")
        figure = drawn.pop()
        boxes = [axes.get_position() for axes in figure.axes[:4]]
        assert sum(box.width * box.height for box in boxes) > 0.5
        rows = sorted({round(box.y0, 6) for box in boxes})
        gap = (rows[1] - rows[0] - boxes[0].height) * figure.get_size_inches()[1]
        assert 0 < gap < 0.8  # inches


def test_where_an_axis_is_broken():
    def cut(*lowest):
        return squeezed_from(np.array(lowest), 0.99)

    assert cut(0.45, 0.81, 0.82, 0.85) == 0.81  # one row of 45 %
    assert cut(0.45, 0.5, 0.81, 0.82, 0.83, 0.85) == 0.81  # two of six
    assert cut(0.45, 0.5, 0.81, 0.82, 0.83) is None  # two of five are no outliers
    assert cut(0.7, 0.81, 0.82, 0.85) is None  # it takes less than half
    assert cut(0.45, 0.9) is None  # of two none is the bad one
    assert cut(0.91, 0.97, 0.975, 0.98) is None  # within ten points nothing is squeezed
    assert cut(0.45) is None


def test_one_bad_row_does_not_squeeze_the_others(tmp_path, drawn):
    good = {name: [[0.81 + i / 100, 0.9, 0.95 + i / 100]] for i, name in enumerate("abc")}
    curves = curves_of(**good, bad=[[0.45, 0.5, 0.85]])
    draw_learning_curves(tmp_path / "c.png", curves, "digits")
    (figure,) = drawn
    upper, lower = figure.axes
    # The others have the upper panel, which is the larger one, for themselves.
    bottom, top = upper.get_ylim()
    assert 78 < bottom < 81
    assert top > 97
    assert lower.get_ylim()[0] < 45
    assert lower.get_ylim()[1] == bottom  # no value is left out
    assert upper.get_position().height > 2 * lower.get_position().height
    assert lower.get_ylabel() == "other\nscale"
    assert lower.get_facecolor() != upper.get_facecolor()
    for axes in figure.axes:
        named = [line for line in axes.lines if not line.get_label().startswith("_")]
        assert [line.get_label() for line in named] == ["a", "b", "c", "bad"]
        # Every point has its marker in one panel.
        for line, curve in zip(named, curves, strict=True):
            percent = 100 * curve.mean
            inside = (percent > axes.get_ylim()[0]) & (percent < axes.get_ylim()[1])
            assert line.get_markevery() == np.flatnonzero(inside).tolist()
    draw_learning_curves(tmp_path / "c.png", curves[:3], "digits")
    assert len(drawn.pop().axes) == 1


@pytest.mark.parametrize(
    ("seeds", "said"),
    [
        (2, "Mean over 2 seeds; band: from the lowest to the highest seed"),
        (3, "Mean over 3 seeds; band: from the lowest to the highest seed"),
        (4, "Mean over 4 seeds; band: its 95% bootstrap interval."),
    ],
)
def test_a_band_is_what_the_caption_says_and_within_the_axes(tmp_path, drawn, seeds, said):
    """Three seeds that differ widely: Student's interval went far beyond 100 %."""
    accuracy = [[0.3, 0.6, 0.97], [0.5, 0.9, 0.99], [0.9, 0.95, 0.98], [0.4, 0.8, 0.96]][:seeds]
    (curve,) = learning_curves(
        group_runs([run_of(row, LABELS, seed=seed) for seed, row in enumerate(accuracy)])
    )
    draw_learning_curves(tmp_path / "c.png", [curve], "digits")
    (figure,) = drawn
    assert figure._supxlabel.get_text().startswith(said)
    (axes,) = figure.axes
    bottom, top = axes.get_ylim()
    assert 0 <= bottom < 100 * curve.low.min()
    assert 100 * curve.high.max() < top <= 100.5
    whole = np.array(accuracy)
    # The mean of three equal numbers is not them to the last bit.
    ends = np.allclose(curve.low, whole.min(0)) and np.allclose(curve.high, whole.max(0))
    assert ends == (seeds <= 3)


def test_seeds_are_said_once_where_all_have_as_many(tmp_path, drawn):
    row = [0.5, 0.6, 0.7]
    draw_learning_curves(tmp_path / "c.png", curves_of(a=[row], b=[row]), "digits")
    assert legend_names(drawn[-1]) == ["a", "b"]
    assert drawn[-1]._supxlabel.get_text().startswith("One seed")
    draw_learning_curves(tmp_path / "c.png", curves_of(a=[row], b=[row, row]), "digits")
    assert legend_names(drawn[-1]) == ["a (1 seed)", "b (2 seeds)"]
    assert drawn[-1]._supxlabel.get_text().startswith("Mean over 1 to 2 seeds")


def test_a_legend_names_what_is_there(tmp_path, drawn):
    areas = np.full((3, len(radius.FRACTIONS)), 0.8)
    areas[0, 2] = np.nan
    radius.draw_radius(tmp_path / "r.png", {"moons": areas[:1], "digits": areas}, "title")
    (figure,) = drawn
    assert legend_names(figure) == ["digits (2 seeds)", "finds nothing"]
    assert "moons" in figure._supxlabel.get_text()


@pytest.mark.parametrize("number", [1, 3, 10])
def test_a_query_s_images_are_in_the_middle(tmp_path, drawn, number):
    image = report_figures.Thumbnail(np.zeros((4, 4)), "1", False)
    report_figures.draw_contact_sheet(tmp_path / "q.png", [("", [image] * number)], "query 1", "")
    (figure,) = drawn
    (axes,) = figure.axes
    ends = [picture.get_extent() for picture in axes.images]
    ends = axes.transData.transform([(ends[0][0], 0), (ends[-1][1], 0)])[:, 0]
    assert ends.mean() / figure.bbox.width == pytest.approx(0.5, abs=0.005)


def test_the_speeds_have_a_title_and_level_labels(tmp_path, drawn):
    speed_plot.draw_speed(tmp_path / "speed.png", speeds(), "How many times as long")
    (figure,) = drawn
    assert figure._suptitle.get_text() == "How many times as long"
    (axes,) = figure.axes
    labels = axes.get_xticklabels() + axes.get_yticklabels() + list(axes.texts)
    assert {label.get_rotation() for label in labels} == {0}
    assert [text.get_text() for text in axes.texts] == ["perturb", "symmetric_kl"]
    assert legend_names(figure) == ["eager", "torch.compile"]

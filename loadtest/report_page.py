"""
One HTML file of charts that needs nothing else: what the pages of demo, load tests and privacy lab share.

Charts are Plotly figures as plain dictionaries; the library's JavaScript, from the installed wheel, is written into the
page, so that it opens years later and without a network.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

BLUE: Final = "#1f66ad"
RED: Final = "#d6336c"
Figure = dict[str, Any]


def write_report(path: Path, package: str, figures: Iterable[Figure], **shown: object) -> None:
    """
    Render `report.html` of a package, which extends `page.html`, into one file of some 5 MB, whole or not at all.

    The figures are drawn into the elements `figure-1`, `figure-2` and so on.
    """
    loader = ChoiceLoader([PackageLoader(package), PackageLoader("loadtest")])
    pages = Environment(loader=loader, autoescape=True, undefined=StrictUndefined)
    page = pages.get_template("report.html").render(
        drawn=[json.dumps(figure).replace("</", "<\\/") for figure in figures],
        plotly=files("plotly").joinpath("package_data/plotly.min.js").read_text(encoding="utf-8"),
        **shown,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".html.part")
    part.write_text(page, encoding="utf-8")
    part.replace(path)


def chart_layout(
    x: str, y: str, spans_s: Sequence[tuple[float, float]] = (), *, from_zero: bool = True, **more: Any
) -> Figure:  # fmt: skip
    """A chart's layout with its axis titles; `spans_s` are grey parts of an axis of seconds."""
    shapes = [
        {
            "type": "rect", "yref": "paper", "y0": 0, "y1": 1, "x0": begin_s, "x1": end_s, "fillcolor": "#9aa5b1",
            "opacity": 0.22, "line": {"width": 0}, "layer": "below",
        }
        for begin_s, end_s in spans_s
    ]  # fmt: skip
    axis = {"gridcolor": "#e6e9ee", "zeroline": False, "automargin": True}
    return {
        "margin": {"l": 56, "r": 12, "t": 8, "b": 44}, "height": 300, "shapes": shapes, "hovermode": "closest",
        "plot_bgcolor": "#fff", "paper_bgcolor": "#fff", "font": {"family": "system-ui, sans-serif", "size": 12},
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        "xaxis": {"title": {"text": x}, **axis},
        "yaxis": {"title": {"text": y}, "rangemode": "tozero" if from_zero else "normal", **axis},
        **more,
    }  # fmt: skip

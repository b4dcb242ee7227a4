"""Line plots as SVG, written by hand: a study needs no library to show a curve."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from unnoise.study.distances import Figure

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 720, 360, 70, 190, 40, 50
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")  # Okabe and Ito's, as shown
Point = tuple[float, Figure | float]


class Series(NamedTuple):
    """A curve: (x, y) with y a number, or a figure whose interval is drawn too."""

    name: str
    points: Sequence[Point]


class Chart(NamedTuple):
    """Curves over one axis.

    Attributes:
        log: whether x is drawn by its logarithm; it is then above 0.
    """

    title: str
    across: str
    up: str
    series: Sequence[Series]
    log: bool = False


def escape(text: str) -> str:
    """Text escaped for SVG."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def ends(value: Figure | float) -> tuple[float, float, float]:
    """(low, value, high)."""
    return (value.low, value.value, value.high) if isinstance(value, Figure) else (value, value, value)


def ticks(low: float, high: float) -> list[float]:
    """Three to seven round numbers that lie between two, ends included."""
    rough = (high - low) / 5
    unit = 10 ** math.floor(math.log10(rough))
    step = min((unit * k for k in (1, 2, 5, 10)), key=lambda each: abs(math.log(each / rough)))
    return [step * k for k in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def _spread(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def svg(chart: Chart) -> str:
    """The chart as one SVG file's text.

    Raises:
        ValueError: it has no points, or an x without a logarithm.
    """
    points = [point for series in chart.series for point in series.points]
    if not points or (chart.log and min(x for x, _ in points) <= 0):
        raise ValueError(f"{chart.title}: no points, or an x without a logarithm")
    place = math.log if chart.log else float
    x0, x1 = _spread([place(x) for x, _ in points])
    y0, y1 = _spread([end for _, y in points for end in ends(y)])

    def at(x: float, y: float) -> tuple[float, float]:
        return (
            LEFT + (WIDTH - LEFT - RIGHT) * (place(x) - x0) / (x1 - x0),
            HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (y - y0) / (y1 - y0),
        )

    across = sorted({x for x, _ in points}) if chart.log else ticks(x0, x1)
    lines = [f'<text x="{LEFT}" y="20" font-weight="bold">{escape(chart.title)}</text>']
    for x in across:
        left = at(x, y0)[0]
        lines.append(f'<text x="{left:.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{x:g}</text>')
    for y in ticks(y0, y1):
        top = at(points[0][0], y)[1]
        lines.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{top:.1f}" y2="{top:.1f}" stroke="#ddd"/>')
        lines.append(f'<text x="{LEFT - 8}" y="{top + 4:.1f}" text-anchor="end">{y:.4g}</text>')
    for number, series in enumerate(chart.series):
        lines += _curve(number, series, at)
    middle = (LEFT + WIDTH - RIGHT) / 2
    lines.append(f'<text x="{middle}" y="{HEIGHT - 10}" text-anchor="middle">{escape(chart.across)}</text>')
    lines.append(
        f'<text transform="translate(16 {(TOP + HEIGHT - BOTTOM) / 2}) rotate(-90)" text-anchor="middle">'
        f"{escape(chart.up)}</text>"
    )
    style = 'xmlns="http://www.w3.org/2000/svg" font-family="sans-serif" font-size="12"'
    body = "\n".join(lines)
    return (
        f'<svg {style} width="{WIDTH}" height="{HEIGHT}">\n<rect width="100%" height="100%" fill="#fff"/>\n'
        f"{body}\n</svg>\n"
    )


def _curve(number: int, series: Series, at: object) -> list[str]:
    """A line through the values, a dot at each, a bar for each interval, and the name at the right."""
    colour = COLOURS[number % len(COLOURS)]
    places = [(x, *ends(y)) for x, y in series.points]
    path = " ".join("{:.1f},{:.1f}".format(*at(x, value)) for x, _, value, _ in places)  # type: ignore[operator]
    lines = [f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>']
    for x, low, value, high in places:
        (left, top), bottom, middle = at(x, high), at(x, low)[1], at(x, value)[1]  # type: ignore[operator]
        lines.append(
            f'<line x1="{left:.1f}" x2="{left:.1f}" y1="{top:.1f}" y2="{bottom:.1f}" stroke="{colour}" opacity="0.4"/>'
        )
        lines.append(f'<circle cx="{left:.1f}" cy="{middle:.1f}" r="3.5" fill="{colour}"/>')
    top = TOP + 18 * number
    lines.append(f'<text x="{WIDTH - RIGHT + 14}" y="{top + 4}" fill="{colour}">{escape(series.name)}</text>')
    return lines

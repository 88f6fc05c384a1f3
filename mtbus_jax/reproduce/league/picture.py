"""The picture of the league: Dice and accuracy against the operations of a forward pass.

An SVG file that looks the same everywhere: no style sheet, on white, in colours that can be told
apart with every kind of colour blindness (Okabe and Ito).
"""

from __future__ import annotations

import dataclasses
import math

from mtbus_jax.report.markup import Markup, element
from mtbus_jax.report.svg import Axis
from mtbus_jax.reproduce.league import results
from mtbus_jax.reproduce.league.plan import League
from mtbus_jax.reproduce.league.results import Row

_TITLES = {"dsc_average": "Dice", "acc": "Accuracy"}
_PANEL, _HEIGHT, _TOP, _BOTTOM, _LEFT, _RIGHT = 520, 420, 40, 56, 56, 24
_COLOURS = {"drawn": "#0072b2", "ImageNet": "#d55e00"}
_INK, _GRID = "#222222", "#dddddd"
_LETTER, _LINE = 6.0, 12  # size of a letter of the names, pixels
_DOT = 4  # radius


@dataclasses.dataclass(frozen=True)
class _Point:
    """A row: its name, cost (GFLOP), figure and its deviation over seeds, and its colour."""

    name: str
    cost: float
    value: float
    sd: float
    origin: str


def draw(league: League, rows: list[Row]) -> str:
    """The picture as the text of an SVG file; empty if no row has both figures and cost."""
    panels = []
    for figure in results.FIGURES:
        points = [
            _Point(row.entry.name, row.cost.gflop, best.mean, best.sd_seeds, row.entry.origin)
            for row in rows
            if row.cost and (best := row.best(figure)) and math.isfinite(best.mean)
        ]
        if points:
            panels.append(_panel(_TITLES[figure], points))
    if not panels:
        return ""
    width = _PANEL * len(panels)
    title = f"{league.dataset}: accuracy against operations of a forward pass"
    drawing = element(
        "svg",
        element("title", title),
        element("rect", width=width, height=_HEIGHT, fill="white"),
        [
            element("g", panel, transform=f"translate({_PANEL * number} 0)")
            for number, panel in enumerate(panels)
        ],
        _legend(),
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {width} {_HEIGHT}",
        width=width,
        height=_HEIGHT,
        font_family="sans-serif",
        font_size=11,
        role="img",
    )
    return drawing + "\n"


def _panel(title: str, points: list[_Point]) -> list[Markup]:
    spans = [0.0 if math.isnan(p.sd) else p.sd for p in points]
    values = [p.value + sign * sd for p, sd in zip(points, spans, strict=True) for sign in (-1, 1)]
    vertical = Axis.around(title, values)
    low = math.floor(math.log10(min(p.cost for p in points)) - 0.1)
    high = max(math.ceil(math.log10(max(p.cost for p in points)) + 0.1), low + 1)

    def column(cost: float) -> float:
        return _LEFT + (math.log10(cost) - low) / (high - low) * (_PANEL - _LEFT - _RIGHT)

    def row(value: float) -> float:
        share = (value - vertical.low) / (vertical.high - vertical.low)
        return _HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM)

    marks = [_text(_LEFT, 22, title, weight="bold")]
    for tick in vertical.ticks:
        y = row(tick)
        marks.append(_line(_LEFT, y, _PANEL - _RIGHT, y, _GRID))
        marks.append(_text(_LEFT - 6, y + 4, f"{tick:.3f}", anchor="end"))
    for power in range(low, high + 1):
        x = column(10.0**power)
        marks.append(_line(x, _TOP, x, _HEIGHT - _BOTTOM, _GRID))
        marks.append(_text(x, _HEIGHT - _BOTTOM + 16, f"{10.0**power:g}", anchor="middle"))
    label = "GFLOP of a forward pass of one image"
    marks.append(_text(_PANEL - _RIGHT, _HEIGHT - 24, label, anchor="end"))
    marks.append(_frontier([(column(p.cost), row(p.value)) for p in best_for_their_cost(points)]))
    places = [(column(point.cost), row(point.value)) for point in points]
    taken = [(x - _DOT, y - _DOT, x + _DOT, y + _DOT) for x, y in places]
    for point, span in zip(points, spans, strict=True):
        x, y, colour = column(point.cost), row(point.value), _COLOURS[point.origin]
        if span:
            ends = row(point.value + span), row(point.value - span)
            marks.append(_line(x, ends[0], x, ends[1], colour, opacity=0.35))
        text = f"{point.name}: {point.value:.3f}, {point.cost:.2f} GFLOP"
        dot = {"cx": f"{x:.1f}", "cy": f"{y:.1f}", "r": _DOT, "fill": colour}
        marks.append(element("circle", element("title", text), **dot))
        # The colour shows the first weights.
        marks += _name(point.name.removesuffix("_imagenet"), x, y, taken)
    return marks


def best_for_their_cost(points: list[_Point]) -> list[_Point]:
    """The points whose value exceeds that of every point at no higher cost, cheapest first."""
    best: list[_Point] = []
    for point in sorted(points, key=lambda p: (p.cost, -p.value)):
        if not best or point.value > best[-1].value:
            best.append(point)
    return best


def _name(
    text: str, x: float, y: float, taken: list[tuple[float, float, float, float]]
) -> list[Markup]:
    """A name beside its point, if possible where it covers no other name or point.

    A line leads to a name above or below its point, where other points may be nearer.
    """
    width = _LETTER * len(text)
    places = [
        (left, y + 4 + lines * _LINE)
        for lines in (0, -1, 1, -2, 2)
        for left in (x + 7, x - 7 - width)
    ]
    inside = [p for p in places if p[0] >= _LEFT and p[0] + width <= _PANEL - 2] or places[1:2]
    free = [p for p in inside if not any(_overlap(_box(p, width), box) for box in taken)]
    left, base = (free or inside)[0]
    taken.append(_box((left, base), width))
    end = left if left > x else left + width
    line = [] if base == y + 4 else [_line(x, y, end, base - 4, _INK, opacity=0.4)]
    return [*line, _text(left, base, text)]


def _box(place: tuple[float, float], width: float) -> tuple[float, float, float, float]:
    return place[0], place[1] - _LINE, place[0] + width, place[1]


def _overlap(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _frontier(places: list[tuple[float, float]]) -> Markup:
    """Steps through the best points for their cost."""
    path = f"M{places[0][0]:.1f} {places[0][1]:.1f}"
    path += "".join(f"H{x:.1f}V{y:.1f}" for x, y in places[1:])
    path += f"H{_PANEL - _RIGHT}"
    return element("path", d=path, fill="none", stroke="#999999", stroke_dasharray="4 3")


def _legend() -> list[Markup]:
    marks = []
    for number, (name, colour) in enumerate(_COLOURS.items()):
        x = _LEFT + 130 * number
        marks.append(element("circle", cx=x, cy=_HEIGHT - 10, r=_DOT, fill=colour))
        marks.append(_text(x + 8, _HEIGHT - 6, f"weights: {name}"))
    text = "bar: deviation over seeds; dashed: best for its cost"
    return [*marks, _text(_LEFT + 270, _HEIGHT - 6, text)]


def _line(
    x1: float, y1: float, x2: float, y2: float, colour: str, *, opacity: float = 1.0
) -> Markup:
    ends = {"x1": x1, "y1": y1, "x2": x2, "y2": y2}
    style = {"stroke": colour, "stroke_opacity": opacity}
    return element("line", **{k: f"{v:.1f}" for k, v in ends.items()}, **style)


def _text(x: float, y: float, text: str, *, anchor: str = "start", weight: str | None = None):
    place = {"x": f"{x:.1f}", "y": f"{y:.1f}", "text_anchor": anchor, "font_weight": weight}
    return element("text", text, fill=_INK, **place)

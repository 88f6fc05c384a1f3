"""Charts as SVG with CSS classes, so that the style sheet colours them for light and dark.

`figure` adds a legend and a table with the chart's numbers, for screen readers and for readers who
want exact values.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Sequence

from mtbus_jax.report.markup import Child, Markup, disclosure, element

# Units of the drawing; the page shows one unit as about one pixel.
WIDTH, HEIGHT = 280, 212
_RIGHT, _BOTTOM = 16, 42
_LETTER = 6.8  # width of a digit


@dataclasses.dataclass(frozen=True)
class Axis:
    """One axis.

    Attributes:
      label: name of the axis, with the unit.
      low: lower end of the axis.
      high: upper end of the axis, above ``low``.
      ticks: values with a tick.
      digits: decimal places of the tick labels.
      suffix: end of the tick labels, such as ``%``.
    """

    label: str
    low: float
    high: float
    ticks: Sequence[float]
    digits: int = 1
    suffix: str = ""

    @classmethod
    def around(cls, label: str, values: Sequence[float], *, zero: bool = False) -> Axis:
        """An axis with round ends and ticks around finite values."""
        low, high = min(values), max(values)
        if zero:
            low = min(low, 0.0)
        if high - low < 1e-12:
            high, low = high + max(abs(high), 1e-3) / 2, low - max(abs(low), 1e-3) / 2
        step = _round_step((high - low) / 4)
        first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
        ticks = [step * k for k in range(first, last + 1)]
        return cls(label, ticks[0], ticks[-1], ticks, _digits(step))

    @classmethod
    def unit(cls, label: str) -> Axis:
        """From 0 to 1."""
        return cls(label, 0, 1, (0, 0.25, 0.5, 0.75, 1), digits=2)

    @classmethod
    def whole(cls, label: str, high: int) -> Axis:
        """Whole numbers from 1, such as epochs."""
        step = max(1, round(_round_step(max(high - 1, 1) / 5)))
        inner = [k for k in range(step, high + 1, step) if k > 1]
        return cls(label, 1, max(high, 2), (1, *inner), digits=0)


def _round_step(least: float) -> float:
    """The smallest of 1, 2, 2.5, 5 times a power of ten that is not below ``least``."""
    power = 10 ** math.floor(math.log10(least))
    return next(power * k for k in (1, 2, 2.5, 5, 10) if power * k >= least * (1 - 1e-9))


def _digits(step: float) -> int:
    """Decimal places that tell multiples of a step of `_round_step` apart."""
    needed = max(0, -math.floor(math.log10(step) + 1e-9))
    return needed if abs(round(step, needed) - step) < 1e-6 * step else needed + 1


class Chart:
    """A drawing with two axes. Marks are added in data coordinates; NaN is left out."""

    def __init__(self, x: Axis, y: Axis):
        """Draws the frame."""
        self._x, self._y = x, y
        self._top = 28 if y.label else 10
        self._left = 10 + _LETTER * max(len(_tick(y, tick)) for tick in y.ticks)
        self._marks: list[Markup] = self._frame()

    def column(self, value: float) -> float:
        """Horizontal place of an x value."""
        share = (value - self._x.low) / (self._x.high - self._x.low)
        return self._left + share * (WIDTH - self._left - _RIGHT)

    def row(self, value: float) -> float:
        """Vertical place of a y value."""
        share = (value - self._y.low) / (self._y.high - self._y.low)
        return HEIGHT - _BOTTOM - share * (HEIGHT - self._top - _BOTTOM)

    def line(self, x: Sequence[float], y: Sequence[float], class_: str) -> None:
        """A line through the points."""
        points = [
            f"{self.column(a):.1f},{self.row(b):.1f}"
            for a, b in zip(x, y, strict=True)
            if math.isfinite(b)
        ]
        if len(points) == 1:  # a line of one point would be invisible
            self.points(x, y, class_)
        elif points:
            self._marks.append(
                element("polyline", points=" ".join(points), class_=f"line {class_}")
            )

    def points(
        self,
        x: Sequence[float],
        y: Sequence[float],
        class_: str,
        *,
        titles: Sequence[str] | None = None,
        radius: float = 3.5,
    ) -> None:
        """Dots; each shows its text when the pointer rests on it."""
        for i, (a, b) in enumerate(zip(x, y, strict=True)):
            if math.isfinite(b):
                title = element("title", titles[i]) if titles else None
                self._marks.append(
                    element(
                        "circle",
                        title,
                        cx=f"{self.column(a):.1f}",
                        cy=f"{self.row(b):.1f}",
                        r=radius,
                        class_=f"dot {class_}",
                    )
                )

    def box(
        self, x: tuple[float, float], y: tuple[float, float], class_: str, *, title: str
    ) -> None:
        """A filled rectangle over a range of x and of y, which shows its text to the pointer."""
        left, right = map(self.column, x)
        bottom, top = map(self.row, y)
        self._marks.append(
            element(
                "rect",
                element("title", title),
                x=f"{left + 0.5:.1f}",
                y=f"{top:.1f}",
                width=f"{max(right - left - 1, 1):.1f}",
                height=f"{max(bottom - top, 0):.1f}",
                class_=f"bar {class_}",
            )
        )

    def label(self, x: float, text: str) -> None:
        """A name below an x value, in place of a tick's number."""
        place = f"{self.column(x):.1f}"
        self._marks.append(
            element("text", text, x=place, y=HEIGHT - _BOTTOM + 18, text_anchor="middle")
        )

    def drawing(self, title: str, description: str) -> Markup:
        """The SVG element with its accessible name, which is unique on a page, and description."""
        name = re.sub(r"\W+", "-", title.lower()).strip("-")
        return element(
            "svg",
            element("title", title, id=f"{name}-title"),
            element("desc", description, id=f"{name}-text"),
            self._marks,
            viewBox=f"0 0 {WIDTH} {HEIGHT}",
            role="img",
            aria_labelledby=f"{name}-title",
            aria_describedby=f"{name}-text",
        )

    def _frame(self) -> list[Markup]:
        bottom, right = HEIGHT - _BOTTOM, WIDTH - _RIGHT
        marks = []
        for tick in self._y.ticks:
            y = f"{self.row(tick):.1f}"
            marks.append(_line(self._left, y, right, y, "grid"))
            place = {"x": self._left - 6, "y": y, "dy": "0.35em", "text_anchor": "end"}
            marks.append(element("text", _tick(self._y, tick), **place))
        for tick in self._x.ticks:
            x = f"{self.column(tick):.1f}"
            marks.append(_line(x, bottom, x, bottom + 4, "axis"))
            place = {"x": x, "y": bottom + 17, "text_anchor": "middle"}
            marks.append(element("text", _tick(self._x, tick), **place))
        marks.append(_line(self._left, bottom, right, bottom, "axis"))
        # Both names read from left to right: the one on top belongs to the vertical axis.
        marks.append(element("text", self._y.label, x=0, y=12, class_="label"))
        end = {"x": right, "y": HEIGHT - 6, "text_anchor": "end", "class_": "label"}
        marks.append(element("text", self._x.label, **end))
        return marks


def _tick(axis: Axis, value: float) -> str:
    return f"{value:.{axis.digits}f}{axis.suffix}"


def _line(x1: float | str, y1: float | str, x2: float | str, y2: float | str, class_: str):
    return element("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=class_)


def legend(entries: Sequence[tuple[str, str]]) -> Markup:
    """What the classes of marks mean; each entry is (class, text). Lines wrap.

    A class that includes ``dot`` or ``bar`` is shown as a dot or a bar, any other as a line.
    """
    items = []
    for class_, text in entries:
        if "bar" in class_.split():
            sample = element("rect", x=2, y=3, width=18, height=8, class_=class_)
        elif "dot" in class_.split():
            sample = element("circle", cx=11, cy=7, r=3.5, class_=class_)
        else:
            sample = _line(0, 7, 22, 7, f"line {class_}")
        picture = element("svg", sample, viewBox="0 0 22 14", class_="sample", aria_hidden="true")
        items.append(element("li", picture, element("span", text)))
    return element("ul", items, class_="legend")


def figure(
    title: str,
    drawing: Markup,
    entries: Sequence[tuple[str, str]],
    numbers: Markup,
    note: Child = None,
) -> Markup:
    """A chart with its heading, its legend and a table of its numbers, closed at first."""
    return element(
        "figure",
        element("figcaption", title),
        drawing,
        legend(entries) if entries else None,
        element("p", note, class_="note") if note else None,
        disclosure("Numbers", numbers),
        class_="chart",
    )

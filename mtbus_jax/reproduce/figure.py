"""The figure of example cases: image, truth, and the errors of each configuration side by side.

One row per case. Agreement and the two kinds of error have those three colours of Okabe and Ito's
palette that stay furthest apart, under every kind of colour blindness, when laid half transparent
over greys. A line of the full colour surrounds each region, so that thin regions show too.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from mtbus_jax.pages import NOTICE

Colour = tuple[int, int, int]

# Okabe and Ito, "Color Universal Design", 2008.
TRUTH: Colour = (0, 158, 115)  # bluish green
TRUE_POSITIVE: Colour = (0, 114, 178)  # blue
FALSE_POSITIVE: Colour = (213, 94, 0)  # vermillion
FALSE_NEGATIVE: Colour = (240, 228, 66)  # yellow

LEGEND = {
    "ground truth": TRUTH,
    "true positive": TRUE_POSITIVE,
    "false positive": FALSE_POSITIVE,
    "false negative": FALSE_NEGATIVE,
}

TINT = 0.5  # share of the colour inside an outline; the rest is the image
_PANEL_SIDE = 384  # pixels; the longer side of a panel comes as close as a whole factor allows
_MIN_COLUMN = 240  # pixels, for the texts of narrow panels
_INK, _SOFT_INK = (20, 20, 20), (80, 80, 80)
_SAMPLE_GREY = 110


@dataclasses.dataclass(frozen=True, eq=False)
class FigureCase:
    """One row of the figure. Texts are ASCII, for which Pillow's own font has glyphs.

    Attributes:
      uid: name of the image.
      label: its true class.
      image: ``(height, width)`` uint8, grey values 0..255.
      truth: ``(height, width)`` bool, the annotated lesion; empty where there is none.
      predictions: per configuration, ``(height, width)`` bool, the predicted lesion.
      captions: per configuration, the text under its panel, such as predicted class and Dice.

    Raises:
      TypeError: if an array has another dtype.
      ValueError: if shapes or numbers differ, the uid is empty, the image has no pixels, or a text
        is not ASCII.
    """

    uid: str
    label: str
    image: np.ndarray
    truth: np.ndarray
    predictions: list[np.ndarray]
    captions: list[str]

    def __post_init__(self):
        if not self.uid.strip():
            raise ValueError("the uid of a case must not be empty")
        if self.image.ndim != 2 or not self.image.size:
            raise ValueError(
                f"{self.uid}: the image must be (height, width) with at least one pixel, "
                f"got the shape {self.image.shape}"
            )
        if self.image.dtype != np.uint8:
            raise TypeError(f"{self.uid}: the image must be uint8, got {self.image.dtype}")
        masks = {"truth": self.truth}
        masks |= {f"predictions[{i}]": mask for i, mask in enumerate(self.predictions)}
        for name, mask in masks.items():
            if mask.shape != self.image.shape:
                raise ValueError(
                    f"{self.uid}: {name} has the shape {mask.shape}, the image {self.image.shape}"
                )
            if mask.dtype != bool:
                raise TypeError(f"{self.uid}: {name} must be boolean, got {mask.dtype}")
        if len(self.captions) != len(self.predictions):
            raise ValueError(
                f"{self.uid}: {len(self.captions)} captions for {len(self.predictions)} "
                "predictions; give one each"
            )
        _check_ascii([self.uid, self.label, *self.captions])


def draw(cases: list[FigureCase], columns: list[str]) -> Image.Image:
    """Draws the figure.

    From left to right: uid and true class, the image, the truth, one panel per configuration; a
    legend below. Images are enlarged by whole factors, without interpolation, to fit panels of one
    size, and centred where their shapes differ. Texts too long for a line are wrapped.

    Args:
      cases: the rows, at least one.
      columns: titles of the configurations, in the order of each case's predictions; ASCII.

    Returns:
      An RGB picture.

    Raises:
      ValueError: if there is no case, a case has another number of predictions than there are
        titles, or a title is not ASCII.
    """
    if not cases:
        raise ValueError("the figure needs at least one case")
    for case in cases:
        if len(case.predictions) != len(columns):
            raise ValueError(
                f"{case.uid} has {len(case.predictions)} predictions for {len(columns)} columns"
            )
    _check_ascii(columns)

    page = _Page(cases, 2 + len(columns))
    strips = [page.title_strip(["Image", "Ground truth", *columns])]
    for case in cases:
        panels = [page.panel(case.image, {}), page.panel(case.image, {TRUTH: case.truth})]
        for prediction in case.predictions:
            regions = {
                TRUE_POSITIVE: case.truth & prediction,
                FALSE_POSITIVE: prediction & ~case.truth,
                FALSE_NEGATIVE: case.truth & ~prediction,
            }
            panels.append(page.panel(case.image, regions))
        strips.append(page.panel_strip(panels, [case.uid, case.label]))
        no_lesion = "" if case.truth.any() else "no lesion"
        strips.append(page.caption_strip(["", no_lesion, *case.captions]))
    strips.append(page.legend_strip())
    return page.stack(strips)


def _check_ascii(texts: list[str]) -> None:
    for text in texts:
        if not text.isascii():
            raise ValueError(f"the figure's font has ASCII characters only, not all of {text!r}")


def _paint(
    image: np.ndarray, regions: dict[Colour, np.ndarray], *, factor: int, line_width: int
) -> Image.Image:
    """The image enlarged by ``factor``, with each colour's region tinted and outlined in it.

    ``image`` is ``(height, width)`` uint8, the regions are ``(height, width)`` bool and disjoint.
    """

    def enlarge(array):
        return array.repeat(factor, axis=0).repeat(factor, axis=1)

    pixels = np.repeat(enlarge(image)[..., None], 3, axis=2).astype(float)
    for colour, region in regions.items():
        region = enlarge(region)
        # Pixels beyond the frame are not part of the region, so that the outline closes there.
        core = ndimage.binary_erosion(region, iterations=line_width)
        pixels[region] = (1 - TINT) * pixels[region] + TINT * np.array(colour)
        pixels[region & ~core] = colour
    return Image.fromarray(np.rint(pixels).astype(np.uint8))


class _Page:
    """The strips of the figure, and the measures that they share, in pixels.

    A strip is a picture as wide as the page; the figure is strips below each other.
    """

    def __init__(self, cases: list[FigureCase], panels: int):
        height = max(case.image.shape[0] for case in cases)
        width = max(case.image.shape[1] for case in cases)
        factor = max(1, round(_PANEL_SIDE / max(height, width)))
        self.panel_height, self.panel_width = factor * height, factor * width
        self.column_width = max(self.panel_width, _MIN_COLUMN)
        # Letters of about 7 points where six columns fill the 18 cm of a journal's page.
        self.font = ImageFont.load_default(size=self.column_width // 13)
        self.line_height = round(1.05 * sum(self.font.getmetrics()))
        self.line_width = max(2, self.column_width // 130)
        self.gap = self.line_height // 2
        labels = [self._label_lines([case.uid, case.label]) for case in cases]
        self.left = 2 * self.gap + self.line_height * max(len(lines) for lines in labels)
        self.width = self.left + panels * (self.column_width + self.gap)

    def panel(self, image: np.ndarray, regions: dict[Colour, np.ndarray]) -> Image.Image:
        """The image with its regions, as large as the panel's size allows."""
        factor = min(self.panel_height // image.shape[0], self.panel_width // image.shape[1])
        return _paint(image, regions, factor=factor, line_width=self.line_width)

    def panel_strip(self, panels: list[Image.Image], label: list[str]) -> Image.Image:
        """The panels, equal in size, side by side, with the label on their left, read upwards.

        A label longer than the panels makes the strip higher; the panels stay by their captions.
        """
        lines = self._label_lines(label)
        longest = max(math.ceil(self.font.getlength(line)) for line in lines)
        strip = self._strip(max(panels[0].height, longest))
        turned = Image.new("RGB", (strip.height, len(lines) * self.line_height), "white")
        self._write(turned, lines, strip.height // 2, 0, _INK)
        strip.paste(turned.rotate(90, expand=True), (self.gap, 0))
        for number, panel in enumerate(panels):
            left = self._middle(number) - panel.width // 2
            strip.paste(panel, (left, strip.height - panel.height))
        return strip

    def title_strip(self, titles: list[str]) -> Image.Image:
        """A title over each column, all ending on one line."""
        texts = [self._wrap(title, self.column_width) for title in titles]
        rows = max(len(lines) for lines in texts)
        strip = self._strip(rows * self.line_height + self.gap // 2)
        for number, lines in enumerate(texts):
            top = (rows - len(lines)) * self.line_height
            self._write(strip, lines, self._middle(number), top, _INK)
        return strip

    def caption_strip(self, captions: list[str]) -> Image.Image:
        """A text under each panel, all starting on one line."""
        texts = [self._wrap(caption, self.column_width) for caption in captions]
        rows = max(len(lines) for lines in texts)
        strip = self._strip(rows * self.line_height + self.gap)
        for number, lines in enumerate(texts):
            self._write(strip, lines, self._middle(number), self.gap // 4, _SOFT_INK)
        return strip

    def legend_strip(self) -> Image.Image:
        """A sample of each colour with its meaning, then the notice, on as many lines as needed."""
        room = self.width - self.gap - self.left
        side = round(0.75 * self.line_height)
        indent = side + self.gap
        rows: list[list[tuple[int, str]]] = [[]]
        end = 0
        for text in LEGEND:
            width = indent + math.ceil(self.font.getlength(text))
            if rows[-1] and end + width > room:
                rows.append([])
                end = 0
            rows[-1].append((end, text))
            end += width + 3 * self.gap
        notice = self._wrap(NOTICE, room)
        shares_row = end + self.font.getlength(NOTICE) <= room
        height = (len(rows) + (0 if shares_row else len(notice))) * self.line_height

        strip = self._strip(height + self.gap)
        pen = ImageDraw.Draw(strip)
        grey, whole = np.full((side, side), _SAMPLE_GREY, np.uint8), np.ones((side, side), bool)
        for row, items in enumerate(rows):
            top = self.gap + row * self.line_height
            for start, text in items:
                sample = _paint(grey, {LEGEND[text]: whole}, factor=1, line_width=self.line_width)
                strip.paste(sample, (self.left + start, top + (self.line_height - side) // 2))
                pen.text((self.left + start + indent, top), text, fill=_INK, font=self.font)
        if shares_row:
            place = (self.width - self.gap, self.gap + (len(rows) - 1) * self.line_height)
            pen.text(place, NOTICE, fill=_INK, font=self.font, anchor="ra")
        else:
            for row, line in enumerate(notice, start=len(rows)):
                place = (self.left, self.gap + row * self.line_height)
                pen.text(place, line, fill=_INK, font=self.font)
        return strip

    def stack(self, strips: list[Image.Image]) -> Image.Image:
        """The figure: the strips below each other within a margin."""
        height = sum(strip.height for strip in strips) + 2 * self.gap
        page = Image.new("RGB", (self.width, height), "white")
        top = self.gap
        for strip in strips:
            page.paste(strip, (0, top))
            top += strip.height
        return page

    def _strip(self, height: int) -> Image.Image:
        return Image.new("RGB", (self.width, height), "white")

    def _middle(self, column: int) -> int:
        """The horizontal middle of column ``column``."""
        return self.left + column * (self.column_width + self.gap) + self.column_width // 2

    def _label_lines(self, label: list[str]) -> list[str]:
        return [line for text in label for line in self._wrap(text, self.panel_height)]

    def _write(self, strip: Image.Image, lines: list[str], middle: int, top: int, colour: Colour):
        pen = ImageDraw.Draw(strip)
        for row, line in enumerate(lines):
            place = (middle, top + row * self.line_height)
            pen.text(place, line, fill=colour, font=self.font, anchor="ma")

    def _wrap(self, text: str, width: int) -> list[str]:
        """Lines of ``text``, none wider than ``width``; a word too long for a line is cut."""
        lines = []
        for paragraph in text.splitlines():
            line = ""
            for word in paragraph.split():
                longer = f"{line} {word}".lstrip()
                if self.font.getlength(longer) <= width:
                    line = longer
                    continue
                if line:
                    lines.append(line)
                line = ""
                for letter in word:
                    if line and self.font.getlength(line + letter) > width:
                        lines.append(line)
                        line = ""
                    line += letter
            lines.append(line)
        return lines

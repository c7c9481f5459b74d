"""Line charts as SVG, for pages that must do without scripts. Text and axes take the colour of what is around them."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 480, 300
RIGHT, TOP, BOTTOM = 18, 14, 46
FONT = 13
CHARACTER = 7.0  # about the width that one takes in this size
TITLE = 28  # of the vertical axis, and the gap to its ticks
LEGEND_LINE, SWATCH = 20, 30
MARKS = {
    "circle": "M-3,0a3,3 0 1,0 6,0a3,3 0 1,0 -6,0z",
    "square": "M-3,-3h6v6h-6z",
    "star": "M0,-9L2.1,-2.9L8.6,-2.8L3.4,1.1L5.3,7.3L0,3.6L-5.3,7.3L-3.4,1.1L-8.6,-2.8L-2.1,-2.9z",
}


@dataclass(frozen=True)
class Line:
    """Points from left to right.

    colour: as CSS has it. dash: as SVG has it; with ``none`` the points are not joined. mark: one of MARKS, or nothing.
    whiskers: the lowest and highest y of each point, or nothing.
    """

    name: str
    points: Sequence[tuple[float, float]]
    colour: str = "currentColor"
    dash: str = ""
    mark: str = ""
    whiskers: Sequence[tuple[float, float]] = ()


@dataclass(frozen=True)
class Axis:
    """ticks: rising, at least two; the axis reaches from the first to the last. unit: is written after each."""

    title: str
    ticks: Sequence[float]
    unit: str = ""

    def texts(self) -> list[str]:
        """Write the ticks out."""
        return [f"{tick:,.10g}{self.unit}" for tick in self.ticks]

    def place(self, value: float) -> float:
        """Return where a value is on the axis, 0 to 1."""
        return (value - self.ticks[0]) / (self.ticks[-1] - self.ticks[0])


def ticks_around(values: Iterable[float], most: int = 7, least_step: float = 0.0) -> list[float]:
    """Choose two to ``most`` round numbers, in steps of 1, 2 or 5 times a power of ten, that enclose all values."""
    known = list(values) or [0.0, 1.0]
    low, high = min(known), max(known)
    if low == high:
        low, high = low - (abs(low) or 1) / 2, high + (abs(high) or 1) / 2
    power = 10.0 ** math.floor(math.log10((high - low) / most))
    while True:
        for step in (power, 2 * power, 5 * power):
            # A hair's breadth, as steps such as 0.1 are no exact numbers.
            first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
            if step >= least_step and last - first < most:
                return [index * step for index in range(first, last + 1)]
        power *= 10


def line_chart(lines: Sequence[Line], x: Axis, y: Axis, about: str) -> str:
    """Draw lines, with their legend, as one SVG element. about: the chart in a sentence, for those who cannot see it.

    All points are to lie within the axes. Names and titles may be anything: they are escaped.
    """
    entries = list(_legend(lines))
    top = TOP + (entries[-1][1] + LEGEND_LINE if entries else 0)
    left = TITLE + CHARACTER * max(map(len, y.texts()))
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM

    def across(value: float) -> str:
        return f"{left + x.place(value) * (right - left):.1f}"

    def up(value: float) -> str:
        return f"{bottom - y.place(value) * (bottom - top):.1f}"

    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(about)}" font-size="{FONT}" '
        'fill="currentColor" stroke-linejoin="round">'
    ]
    parts += [_swatch(line, SWATCH + start, TOP + down) for line, (start, down) in zip(lines, entries, strict=True)]
    for tick, text in zip(x.ticks, x.texts(), strict=True):
        parts.append(f'<path d="M{across(tick)},{bottom}v5" stroke="currentColor" opacity=".4"/>')
        parts.append(f'<text x="{across(tick)}" y="{bottom + 19}" text-anchor="middle">{escape(text)}</text>')
    for tick, text in zip(y.ticks, y.texts(), strict=True):
        parts.append(f'<path d="M{left},{up(tick)}H{right}" stroke="currentColor" opacity=".15"/>')
        parts.append(f'<text x="{left - 7}" y="{up(tick)}" dy=".35em" text-anchor="end">{escape(text)}</text>')
    parts.append(f'<path d="M{left},{bottom}H{right}" stroke="currentColor" opacity=".4"/>')
    parts.append(f'<text x="{(left + right) / 2}" y="{HEIGHT - 8}" text-anchor="middle">{escape(x.title)}</text>')
    middle = (top + bottom) / 2
    turned = f'transform="rotate(-90 13 {middle})"'
    parts.append(f'<text x="13" y="{middle}" text-anchor="middle" {turned}>{escape(y.title)}</text>')
    for line in lines:
        stroke = f'fill="none" stroke="{escape(line.colour)}"'
        placed = [(across(at), up(value)) for at, value in line.points]
        if placed and line.dash != "none":
            joined = "L".join(f"{at},{value}" for at, value in placed)
            parts.append(f'<path d="M{joined}" {stroke} stroke-width="2"{_dashed(line)}/>')
        for (at, _), (low, high) in zip(placed, line.whiskers, strict=False):
            parts.append(f'<path d="M{at},{up(low)}V{up(high)}" {stroke} stroke-width="1.2"/>')
        for (at, value), (named_x, named_y) in zip(placed, line.points, strict=True) if line.mark else ():
            title = escape(f"{line.name}: {named_x:,.4g}{x.unit}, {named_y:,.4g}{y.unit}")
            parts.append(_mark(line, at, value, f"<title>{title}</title>"))
    return "".join([*parts, "</svg>"])


def _legend(lines: Sequence[Line]) -> Iterator[tuple[float, float]]:
    """Place the entries of a legend one after the other, in as many lines as they need: x and y of each."""
    left, down = 0.0, 0.0
    for line in lines:
        width = SWATCH + CHARACTER * (len(line.name) + 2)
        if left and left + width > WIDTH - RIGHT:
            left, down = 0.0, down + LEGEND_LINE
        yield left, down
        left += width


def _swatch(line: Line, left: float, middle: float) -> str:
    drawn = ""
    if line.dash != "none":
        path = f"M{left - SWATCH + 4:.1f},{middle}h{SWATCH - 8}"
        drawn = f'<path d="{path}" stroke="{escape(line.colour)}" stroke-width="2"{_dashed(line)}/>'
    if line.mark:
        drawn += _mark(line, f"{left - SWATCH / 2:.1f}", f"{middle}")
    return drawn + f'<text x="{left:.1f}" y="{middle}" dy=".35em">{escape(line.name)}</text>'


def _dashed(line: Line) -> str:
    return f' stroke-dasharray="{line.dash}"' if line.dash else ""


def _mark(line: Line, at: str, value: str, inside: str = "") -> str:
    path = f'<path d="{MARKS[line.mark]}" transform="translate({at} {value})" fill="{escape(line.colour)}"'
    return f"{path}>{inside}</path>" if inside else f"{path}/>"

"""Line charts as SVG text: sharp at any size, in the colors of the page, values on hover."""

import html
import math
from collections.abc import Sequence
from typing import NamedTuple

_WIDTH, _HEIGHT = 440, 230
_LEFT, _RIGHT, _TOP, _BOTTOM = 48, 8, 10, 30  # margins around the plot
_BANDS = 60  # places where hovering shows values
_MAX_POINTS = 120  # of a line; more are averaged
NUM_STYLES = 8  # colors that the page knows: .s0 to .s7
_NUM_DASHES = 3


Number = int | float
Point = tuple[Number, Number]


class Line(NamedTuple):
  """One curve; values that are not finite are left out.

  Attributes:
    style: number of its color, below NUM_STYLES.
    beside: whose line it is where it stands beside another of the same color: then it is dashed.
    dots: draw the points too, where there are few.
    thin: one of many behind a line of the same name, without values on hover.
    shade: lower and upper edge of a shaded band around it.
  """

  name: str
  points: Sequence[Point]
  style: int = 0
  beside: str = ""
  dots: bool = False
  thin: bool = False
  shade: tuple[Sequence[Point], Sequence[Point]] = ((), ())


class _Frame(NamedTuple):
  """From values to places in the picture."""

  x_low: Number
  x_high: Number
  y_low: Number
  y_high: Number
  log: bool

  def x(self, value: Number) -> float:
    share = (value - self.x_low) / (self.x_high - self.x_low)
    return _LEFT + share * (_WIDTH - _LEFT - _RIGHT)

  def y(self, value: Number) -> float:
    value = math.log10(value) if self.log else value
    share = (value - self.y_low) / (self.y_high - self.y_low)
    return _HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM)


def chart(
  title: str,
  lines: Sequence[Line],
  *,
  log: bool = False,
  marks: Sequence[tuple[Number, str]] = (),
  x_label: str = "step",
) -> str:
  """A figure with title, legend and curves; "" where there is nothing to draw.

  Args:
    log: logarithmic values; those that are not positive are left out.
    marks: (x, text) of vertical lines, such as the beginning of a phase.
  """
  lines = [_clean_line(line, log) for line in lines]
  lines = [line for line in lines if line.points]
  if not lines:
    return ""
  frame = _frame(lines, log)
  body = [_grid(frame, x_label), *(_mark(frame, x, text) for x, text in marks)]
  others = list(dict.fromkeys(line.beside for line in lines if line.beside))
  body += [_shade(frame, line) for line in lines]
  body += [_curve(frame, line, _dash(line, others)) for line in lines]
  body += _hover(frame, [line for line in lines if not line.thin])
  names = {line.name: f"s{line.style}" for line in lines}
  names |= {other: f"soft dash{place % _NUM_DASHES}" for place, other in enumerate(others)}
  keys = "".join(
    f'<span class="key"><i class="{style}"></i>{html.escape(name)}</span>'
    for name, style in names.items()
  )
  title = html.escape(title)
  return (
    f'<figure class="chart"><figcaption><b>{title}</b> {keys}</figcaption>'
    f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{title}">{"".join(body)}</svg>'
    "</figure>"
  )


def ticks(low: Number, high: Number, count: int = 5) -> list[float]:
  """About `count` round numbers (1, 2 or 5 times a power of ten) from `low` to `high`."""
  if not high > low:
    return [float(low)]
  rough = (high - low) / count
  power = 10 ** math.floor(math.log10(rough))
  step = next(power * m for m in (1, 2, 5, 10) if power * m >= rough * 0.999)
  first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
  return [float(f"{k * step:.9g}") for k in range(first, last + 1)]


def _log_ticks(low: Number, high: Number) -> list[float]:
  """Round values between powers of ten `low` and `high`: 1, 2, 5 of each, or fewer."""
  powers = range(math.floor(low), math.ceil(high) + 1)
  for digits in ((1,), (1, 2, 5)):
    values = [digit * 10.0**power for power in powers for digit in digits]
    values = [value for value in values if low <= math.log10(value) <= high]
    if len(values) > 2:
      return values[:: math.ceil(len(values) / 6)]
  return ticks(10**low, 10**high, 4)


def _clean_line(line: Line, log: bool) -> Line:
  low, high = (_clean(edge, log) for edge in line.shade)
  return line._replace(points=_clean(line.points, log), shade=(low, high))


def _clean(points: Sequence[Point], log: bool) -> list[Point]:
  """Finite points, neighbors averaged where there are very many."""
  good = [(x, y) for x, y in points if math.isfinite(y) and (y > 0 or not log)]
  size = math.ceil(len(good) / _MAX_POINTS) if good else 1
  groups = [good[i : i + size] for i in range(0, len(good), size)]
  return [(_mean([x for x, _ in group]), _mean([y for _, y in group])) for group in groups]


def _mean(values: Sequence[Number]) -> float:
  return sum(values) / len(values)


def _frame(lines: Sequence[Line], log: bool) -> _Frame:
  points = [p for line in lines for part in (line.points, *line.shade) for p in part]
  xs = [x for x, _ in points]
  ys = [math.log10(y) if log else y for _, y in points]
  x_low, x_high = min(xs), max(xs)
  low, high = min(ys), max(ys)
  # What is nearly zero-based is shown from zero, so that heights can be compared.
  low = 0.0 if not log and 0 < low < 0.5 * high else low
  pad = 0.04 * (high - low) or 0.05 * abs(high) or 0.5
  low, high = low - (pad if low else 0), high + pad
  return _Frame(x_low, x_high if x_high > x_low else x_low + 1, low, high, log)


def _grid(frame: _Frame, x_label: str) -> str:
  """Horizontal lines with values, and values along the horizontal axis."""
  parts = []
  make = _log_ticks if frame.log else ticks
  values = make(frame.y_low, frame.y_high)
  for value in values:
    y = frame.y(value)
    parts.append(f'<path class="grid" d="M{_LEFT} {y:.1f}H{_WIDTH - _RIGHT}"/>')
    parts.append(f'<text x="{_LEFT - 5}" y="{y + 4:.1f}" class="end">{_short(value)}</text>')
  bottom = _HEIGHT - _BOTTOM + 15
  for value in ticks(frame.x_low, frame.x_high):
    x = frame.x(value)
    if x < _WIDTH - _RIGHT - 45:  # the axis' name stands there
      parts.append(f'<text x="{x:.1f}" y="{bottom}" class="mid">{_short(value)}</text>')
  name = html.escape(x_label)
  parts.append(f'<text x="{_WIDTH - _RIGHT}" y="{bottom}" class="end">{name}</text>')
  return "".join(parts)


def _mark(frame: _Frame, x: Number, text: str) -> str:
  if not frame.x_low < x < frame.x_high:
    return ""
  place = frame.x(x)
  shift, side = (4, "") if place < 0.75 * _WIDTH else (-4, ' class="end"')
  return (
    f'<path class="mark" d="M{place:.1f} {_TOP}V{_HEIGHT - _BOTTOM}"/>'
    f'<text x="{place + shift:.1f}" y="{_TOP + 9}"{side}>{html.escape(text)}</text>'
  )


def _dash(line: Line, others: Sequence[str]) -> str:
  return f" dash{others.index(line.beside) % _NUM_DASHES}" if line.beside else ""


def _shade(frame: _Frame, line: Line) -> str:
  """The band as an area: along its lower edge and back along the upper one."""
  low, high = line.shade
  if not low:
    return ""
  edge = "L".join(f"{frame.x(x):.1f} {frame.y(y):.1f}" for x, y in (*low, *reversed(high)))
  return f'<path class="shade s{line.style}" d="M{edge}Z"/>'


def _curve(frame: _Frame, line: Line, dash: str) -> str:
  places = [(frame.x(x), frame.y(y)) for x, y in line.points]
  path = "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
  style = f"s{line.style}"
  thin = " thin" if line.thin else ""
  curve = f'<path class="line {style}{dash}{thin}" d="M{path}"/>'
  if (line.dots and not line.thin) or len(places) == 1:
    curve += "".join(
      f'<circle class="{style}" cx="{x:.1f}" cy="{y:.1f}" r="2.6"/>' for x, y in places
    )
  return curve


def _hover(frame: _Frame, lines: Sequence[Line]) -> list[str]:
  """Invisible bands across the plot; the browser shows the values of one as its tooltip."""
  width = (_WIDTH - _LEFT - _RIGHT) / _BANDS
  bands: list[dict[str, list[Point]]] = [{} for _ in range(_BANDS)]
  for line in lines:
    for x, y in line.points:
      band = min(_BANDS - 1, int((frame.x(x) - _LEFT) / width))
      name = f"{line.name}, {line.beside}" if line.beside else line.name
      bands[band].setdefault(name, []).append((x, y))
  parts = []
  for number, band in enumerate(bands):
    if not band:
      continue
    steps = [x for points in band.values() for x, _ in points]
    text = [f"step {_mean(steps):.0f}"]
    text += [f"{name}: {_mean([y for _, y in points]):.4g}" for name, points in band.items()]
    parts.append(
      f'<rect class="band" x="{_LEFT + number * width:.1f}" y="{_TOP}" width="{width:.1f}" '
      f'height="{_HEIGHT - _TOP - _BOTTOM}"><title>{html.escape(chr(10).join(text))}</title></rect>'
    )
  return parts


def _short(value: Number) -> str:
  """A tick's label: 0.25, 1500, 20k, 1.5e-4."""
  if 0 < abs(value) < 1e-3:
    return f"{value:.1e}".replace(".0e", "e").replace("e-0", "e-")
  if abs(value) >= 10_000 and value % 100 == 0:
    return f"{value / 1000:g}k"
  return f"{value:.4g}"

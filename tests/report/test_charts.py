"""Charts show what they are given, at the right place, and nothing of it runs."""

import math
import re
import xml.etree.ElementTree as ElementTree

import pytest

from rtune.report.charts import Line, chart, ticks


def draw(lines, **options):
  """The figure as an element tree: it must be well formed."""
  return ElementTree.fromstring(chart("title", lines, **options))


def path_of(figure, style="s0"):
  """Places of a curve as (x, y) pairs."""
  (path,) = [p for p in figure.iter("path") if style in p.get("class").split()]
  return [tuple(map(float, pair.split())) for pair in re.split("[ML]", path.get("d"))[1:]]


def tooltips(figure):
  return [title.text for title in figure.iter("title")]


@pytest.mark.parametrize(
  "low, high, expected",
  [
    (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]),
    (0.13, 0.18, [0.13, 0.14, 0.15, 0.16, 0.17, 0.18]),
    (-30, 270, [0, 100, 200]),
    (1, 1, [1]),
  ],
)
def test_ticks(low, high, expected):
  assert ticks(low, high) == pytest.approx(expected)


def test_ticks_are_few_and_inside():
  for exponent in range(-12, 13):
    for factor in (1.0, 1.7, 3.3, 9.9):
      high = factor * 10.0**exponent
      for low in (0.0, 0.6 * high, -high):
        found = ticks(low, high)
        assert 2 <= len(found) <= 11, (low, high)
        slack = 1e-6 * (high - low)
        assert low - slack <= found[0] and found[-1] <= high + slack


def test_curve_goes_through_its_points():
  figure = draw([Line("a", [(0, 0.0), (50, 1.0), (100, 0.5)])])
  (x0, y0), (x1, y1), (x2, y2) = path_of(figure)
  assert x1 - x0 == pytest.approx(x2 - x1)
  assert y0 - y1 == pytest.approx(2 * (y0 - y2), abs=0.2) and y1 < y2 < y0
  assert tooltips(figure) == ["step 0\na: 0", "step 50\na: 1", "step 100\na: 0.5"]


def test_logarithmic_values():
  figure = draw([Line("a", [(0, 0.01), (1, 1.0), (2, 100.0), (3, 0.0), (4, -1.0)])], log=True)
  places = path_of(figure)
  assert len(places) == 3
  assert places[0][1] - places[1][1] == pytest.approx(places[1][1] - places[2][1], abs=0.2)


def test_what_cannot_be_drawn_is_left_out():
  assert chart("t", []) == "" and chart("t", [Line("a", [(1, math.nan), (2, math.inf)])]) == ""
  figure = draw([Line("a", [(0, 1.0), (1, math.nan), (2, 3.0)]), Line("b", [])])
  assert len(path_of(figure)) == 2 and "b" not in "".join(figure.itertext())
  (single,) = path_of(draw([Line("a", [(7, 0.0)])]))  # one point, of value zero
  assert all(map(math.isfinite, single))


def test_many_points_are_averaged():
  points = [(x, float(x % 2)) for x in range(100_000)]
  text = chart("t", [Line("a", points)])
  assert len(text) < 20_000
  figure = ElementTree.fromstring(text)
  assert len(path_of(figure)) <= 120 and "a: 0.5" in tooltips(figure)[30]


def test_line_beside_another_is_dashed_and_named_once():
  lines = [Line("AR", [(0, 1.0), (2, 2.0)]), Line("AR", [(1, 1.0), (2, 3.0)], beside="control")]
  lines.append(Line("AP", [(0, 1.0), (2, 2.0)], 1))
  lines.append(Line("AP", [(1, 1.0), (2, 2.0)], 1, beside="control"))
  figure = draw(lines, marks=[(1, "tuning"), (0, "not inside")])
  assert [key.find("i").tail for key in figure.iter("span")] == ["AR", "AP", "control"]
  dashed = [p for p in figure.iter("path") if "dash0" in p.get("class")]
  assert len(dashed) == 2
  assert tooltips(figure)[-1] == "step 2\nAR: 2\nAR, control: 3\nAP: 2\nAP, control: 2"
  texts = [text.text for text in figure.iter("text")]
  assert "tuning" in texts and "not inside" not in texts


def test_names_are_text():
  name = "</title><script>alert(1)</script>&\"'"
  figure = draw([Line(name, [(0, 1.0), (1, 2.0)], beside=name)], marks=[(0.5, name)], x_label=name)
  assert not list(figure.iter("script"))
  assert name in tooltips(figure)[0]


def test_band_and_thin_lines():
  band = [(0, 0.0), (10, 1.0)], [(0, 2.0), (10, 9.0)]
  thin = [Line("a", [(0, 1.0), (10, y)], thin=True) for y in (3.0, 5.0)]
  figure = draw([*thin, Line("a", [(0, 1.0), (10, 4.0)], shade=band)])
  (shade,) = [p for p in figure.iter("path") if "shade" in p.get("class")]
  corners = [tuple(map(float, p.split())) for p in re.split("[MLZ]", shade.get("d"))[1:-1]]
  (x0, low0), (x1, low1), (x2, high1), (x3, high0) = corners
  assert x0 == x3 < x1 == x2 and high1 < low1 < low0
  # One unit of the values is everywhere as high, and the upper edge is inside the picture.
  assert low0 - high0 == pytest.approx(2 * (low0 - low1), abs=0.3) and high1 > 0
  assert len([p for p in figure.iter("path") if "thin" in p.get("class").split()]) == 2
  assert tooltips(figure) == ["step 0\na: 1", "step 10\na: 4"]  # not of the thin ones
  assert [key.find("i").tail for key in figure.iter("span")] == ["a"]

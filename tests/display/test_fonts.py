"""Names of classes in every script are drawn, or replaced by numbers with one warning."""

import numpy as np
import pytest

from rtune.display import console, draw, draw_labels, draw_segments, fonts


@pytest.fixture
def forgotten():
  """Warnings that are told once are told anew."""
  console._warned.discard("fonts")
  yield
  console._warned.discard("fonts")


@pytest.mark.parametrize("name", ["dog", "Käse", "собака", "σκύλος", "košík", "köpek"])
def test_letters_are_drawn_and_no_boxes(name):
  font = fonts.load_font(20, name)
  missing = bytes(
    font.getmask(chr(0xE123))
  )  # of nobody: what stands for letters that are not there
  for letter in name:
    assert bytes(font.getmask(letter)) != missing, letter
  assert fonts.legible([name], 0) == name


def test_a_name_without_a_font_is_its_number(forgotten, capsys):
  cuneiform = "\N{CUNEIFORM SIGN A}\N{CUNEIFORM SIGN AN}"
  if fonts.legible([cuneiform], 0) == cuneiform:
    pytest.skip("this machine has a font of cuneiform")
  assert fonts.legible(["a", cuneiform], 1) == "1"
  assert capsys.readouterr().err.count("no font here has the letters") == 1
  image, labels = np.full((60, 90, 3), 200, np.uint8), np.array([1])
  boxes = np.array([[20, 5, 55, 80]], np.float32)
  drawn = [draw.draw_boxes(image, boxes, labels, None, ("a", name)) for name in (cuneiform, "1")]
  np.testing.assert_array_equal(*drawn)
  draw_labels.draw_labels(image, np.ones((60, 90), np.int16), ("a", cuneiform))
  draw_segments.draw_segments(image, np.ones((60, 90), np.uint8), labels, ("a", cuneiform))
  assert capsys.readouterr().err == ""


def test_a_class_without_a_name_is_its_number():
  assert fonts.legible((), 3) == "3" and fonts.legible(("a",), 0) == "a"

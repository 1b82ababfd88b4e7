"""Drawn boxes are where the boxes are, their names can be read, and odd input harms nothing."""

import numpy as np
import pytest

from rtune.display import draw, fonts

GRAY = 90


def picture(height: int = 60, width: int = 80) -> np.ndarray:
  return np.full((height, width, 3), GRAY, np.uint8)


def boxes(*rows) -> np.ndarray:
  return np.array(rows, np.float32).reshape(-1, 4)


def labels(*values) -> np.ndarray:
  return np.array(values, np.int32)


def is_color(image: np.ndarray, label: int) -> np.ndarray:
  return (image == draw.class_color(label)).all(-1)


@pytest.fixture
def tags(monkeypatch) -> list[list[int]]:
  """Where `draw_boxes` put the names: (y0, x0, y1, x1) of each."""
  places = []
  tag = draw._tag

  def spy(*arguments):
    tag(*arguments)
    places[:] = arguments[-1]

  monkeypatch.setattr(draw, "_tag", spy)
  return places


class TestDrawBoxes:
  def test_frame_lies_just_inside_the_box(self):
    image = picture(400, 500)
    drawn = draw.draw_boxes(image, boxes((100, 200, 300, 400)), labels(1), scale=1)
    frame = is_color(drawn, 1)
    frame[:100] = False  # its name
    ys, xs = np.nonzero(frame)
    assert (ys.min(), xs.min(), ys.max() + 1, xs.max() + 1) == (100, 200, 300, 400)
    assert (drawn[110:290, 210:390] == GRAY).all(), "the inside stays free"
    assert drawn[300, 300].tolist() != [GRAY] * 3, "a line parts the frame from the picture"
    assert (drawn[301:] == GRAY).all() and (drawn[:, 401:] == GRAY).all()
    assert (image == GRAY).all(), "the image given must not change"

  def test_small_images_are_enlarged_without_smoothing(self):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (48, 40, 3), np.uint8)
    drawn = draw.draw_boxes(image, boxes(), labels(), scale=5)
    assert drawn.shape == (240, 200, 3)
    np.testing.assert_array_equal(drawn[2::5, 2::5], image)
    np.testing.assert_array_equal(drawn[::5, ::5], image)

  @pytest.mark.parametrize(
    ("size", "expected"), [((48, 48), 384), ((64, 32), 384), ((700, 9), 700)]
  )
  def test_default_scale(self, size, expected):
    assert max(draw.draw_boxes(picture(*size), boxes(), labels()).shape) == expected

  def test_scaled_boxes_follow_the_pixels(self):
    image = picture(48, 48)
    image[10:30, 20:40] = 200
    drawn = draw.draw_boxes(image, boxes((10, 20, 30, 40)), labels(0), scale=8)
    ys, xs = np.nonzero((drawn == 200).all(-1))
    inside = is_color(drawn, 0)
    inside[: 10 * 8] = False
    frame_ys, frame_xs = np.nonzero(inside)
    assert (frame_ys.min(), frame_xs.min()) == (80, 160)
    assert (frame_ys.max(), frame_xs.max()) == (239, 319)
    assert ys.min() > 80 and xs.max() < 319, "only the frame covers the object"

  def test_name_and_score_are_written_above(self):
    box, kinds = boxes((100, 50, 200, 250)), labels(2)
    image = picture(300, 400)
    plain = draw.draw_boxes(image, box, kinds, None, ("a", "b", "cat"))
    scored = draw.draw_boxes(image, box, kinds, np.array([0.5], np.float32), ("a", "b", "cat"))
    number = draw.draw_boxes(image, box, kinds)
    tags = [is_color(drawn, 2)[:98] for drawn in (plain, scored, number)]
    assert all(tag.any() for tag in tags)
    ends = [np.nonzero(tag)[1].max() for tag in tags]
    assert ends[2] < ends[0] < ends[1], "a number is shorter than a name, a score makes it longer"

  @pytest.mark.parametrize(
    "box", [(0, 0, 300, 400), (0, 350, 40, 400), (250, 380, 300, 400), (-90, -90, 900, 900)]
  )
  def test_name_stays_in_the_image(self, box, tags):
    text = "a rather long name of a class"
    drawn = draw.draw_boxes(picture(300, 400), boxes(box), labels(0), None, (text,), scale=1)
    ((y0, x0, y1, x1),) = tags
    assert y0 >= 0 and y1 <= 300 and x0 >= 0 and x1 <= 400
    assert x1 - x0 > fonts.load_font(12).getlength(text)
    place = drawn[y0:y1, x0:x1]
    assert is_color(place, 0).mean() > 0.5
    assert (place.max(-1) < 60).any(0).sum() > len(text), "letters along the whole of it"

  def test_names_never_cover_each_other(self, tags):
    rng = np.random.default_rng(1)
    y0x0 = rng.uniform(0, 300, (60, 2))
    many = np.concatenate([y0x0, y0x0 + rng.uniform(5, 90, (60, 2))], 1).astype(np.float32)
    draw.draw_boxes(picture(400, 400), many, labels(*range(60)))
    cover = np.zeros((400, 400), int)
    for y0, x0, y1, x1 in tags:
      cover[y0:y1, x0:x1] += 1
    assert cover.max() == 1 and len(tags) > 20

  def test_highest_score_is_on_top(self):
    two = boxes((50, 50, 150, 150), (50, 50, 150, 150))
    for scores, winner in (((0.9, 0.1), 3), ((0.1, 0.9), 4)):
      drawn = draw.draw_boxes(
        picture(200, 400), two, labels(3, 4), np.array(scores, np.float32), scale=1
      )
      assert is_color(drawn, winner)[100, 50]

  @pytest.mark.parametrize(
    "box",
    [
      (np.nan, 0, 10, 10),
      (0, 0, np.inf, 10),
      (20, 20, 10, 30),
      (20, 20, 30, 20),
      (-20, -20, -5, -5),
      (500, 500, 600, 600),
      (20.1, 20.1, 20.2, 20.2),
    ],
  )
  def test_what_is_no_box_is_left_out(self, box):
    drawn = draw.draw_boxes(picture(), boxes(box), labels(0), scale=1)
    assert (drawn == GRAY).all()

  def test_empty_slots_are_left_out(self):
    drawn = draw.draw_boxes(picture(), boxes((5, 5, 40, 40)), labels(-1), scale=1)
    assert (drawn == GRAY).all()

  @pytest.mark.parametrize("size", [(1, 1), (1, 300), (5, 3)])
  def test_tiny_images_and_boxes(self, size):
    drawn = draw.draw_boxes(
      picture(*size), boxes((0, 0, *size), (0, 0, 1, 1)), labels(0, 1), None, ("name",), scale=1
    )
    assert drawn.shape == (*size, 3)

  def test_names_the_font_does_not_have(self):
    draw.draw_boxes(picture(), boxes((20, 5, 40, 40)), labels(0), None, ("猫 🐈 \n\0",))

  def test_numbers_that_do_not_agree(self):
    with pytest.raises(Exception, match=r"numbers must agree|Type-check"):
      draw.draw_boxes(picture(), boxes((0, 0, 9, 9)), labels(0, 1))

  def test_same_input_same_picture(self):
    arguments = picture(), boxes((20, 5, 40, 40), (1, 1, 9, 9)), labels(0, 30)
    np.testing.assert_array_equal(draw.draw_boxes(*arguments), draw.draw_boxes(*arguments))


def lab(color, dichromacy: np.ndarray) -> np.ndarray:
  """CIELAB of a color as an eye with the given linear-RGB transform sees it."""
  linear = dichromacy @ (np.array(color) / 255) ** 2.2
  to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
  x, y, z = np.cbrt(np.clip(to_xyz @ linear / (0.9505, 1.0, 1.089), 1e-4, None))
  return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


# Machado, Oliveira, Fernandes 2009, severity 1.0.
EYES = {
  "usual": np.eye(3),
  "protan": np.array(
    [
      [0.152286, 1.052583, -0.204868],
      [0.114503, 0.786281, 0.099216],
      [-0.003882, -0.048116, 1.051998],
    ]
  ),
  "deutan": np.array(
    [
      [0.367322, 0.860646, -0.227968],
      [0.280085, 0.672501, 0.047413],
      [-0.011820, 0.042940, 0.968881],
    ]
  ),
}


class TestClassColor:
  def test_distinct_and_then_again(self):
    colors = [draw.class_color(label) for label in range(42)]
    assert len(set(colors)) == 21 and colors[:21] == colors[21:]
    assert all(0 <= channel <= 255 for color in colors for channel in color)

  @pytest.mark.parametrize("eyes", EYES)
  def test_first_seven_are_told_apart_by_any_eye(self, eyes):
    seen = [lab(draw.class_color(label), EYES[eyes]) for label in range(7)]
    distances = [np.linalg.norm(a - b) for i, a in enumerate(seen) for b in seen[:i]]
    # About 2 is the least that can be seen at all; red and green pure would be near 12 for deutan.
    assert min(distances) > 15

  def test_text_can_be_read_on_each(self):
    def luminance(color):
      return float(np.dot((np.array(color) / 255) ** 2.2, (0.2126, 0.7152, 0.0722)))

    for label in range(21):
      color = draw.class_color(label)
      low, high = sorted((luminance(color), luminance(draw.contrast(color))))
      assert (high + 0.05) / (low + 0.05) >= 4.5  # WCAG 2 AA


class TestSideBySide:
  def test_images_are_whole_and_in_order(self):
    parts = [np.full((h, w, 3), v, np.uint8) for h, w, v in ((50, 40, 10), (30, 60, 20))]
    row = draw.side_by_side(parts, ["truth", "tuned"])
    for part in parts:
      ys, xs = np.nonzero((row == part[0, 0]).all(-1))
      box = row[ys.min() : ys.max() + 1, xs.min() : xs.max() + 1]
      np.testing.assert_array_equal(box, part)
    left, right = (np.nonzero((row == v).all(-1)) for v in (10, 20))
    assert left[1].max() < right[1].min() and left[0].min() == right[0].min()
    assert (row[-1] == 255).all() and (row[:, -1] == 255).all()

  def test_captions_are_above_and_stay_over_their_image(self):
    parts = [picture(100, 120), picture(100, 120)]
    blank = draw.side_by_side(parts, ["", ""])
    row = draw.side_by_side(parts, ["a caption that is far too long for this " * 3, ""])
    assert row.shape == blank.shape
    ys, xs = np.nonzero((row != blank).any(-1))
    top, left = (axis.min() for axis in np.nonzero((row == GRAY).all(-1)))
    assert len(ys) and ys.max() < top and left <= xs.min() and xs.max() < left + 120

  @pytest.mark.parametrize("captions", [[], ["a", "b"]])
  def test_wrong_numbers(self, captions):
    with pytest.raises(ValueError, match="captions"):
      draw.side_by_side([picture()], captions)
    with pytest.raises(ValueError, match="0 images"):
      draw.side_by_side([], captions)


def test_text_stands_below_and_leaves_the_picture_alone():
  image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
  plain = draw.draw_text(image, ())
  assert plain.shape == (260, 390, 3)
  np.testing.assert_array_equal(plain[::13, ::13], image)
  heights = []
  for lines in (("a dog",), ("a dog", "a cat"), ("a dog on the grass near a wall " * 4,)):
    drawn = draw.draw_text(image, lines)
    np.testing.assert_array_equal(drawn[:260], plain)
    assert (drawn[260:] < 100).any() and (drawn[-1] == 255).all()
    heights.append(len(drawn))
  assert 260 < heights[0] < heights[1] < heights[2]


def test_any_text_can_be_drawn():
  image = np.zeros((400, 300, 3), np.uint8)
  odd = ("", "\0", "\U0001f600 \u202e \ud800", "x" * 1000, "word " * 500)
  drawn = draw.draw_text(image, odd)
  assert drawn.shape[1] == 300 and len(drawn) > 1000

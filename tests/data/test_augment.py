"""Boxes must follow their pixels through every transform."""

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from rtune.data import augment
from rtune.errors import UsageError

SHAPES = [(48, 48), (40, 97), (131, 30), (1, 1), (10, 2000), (2000, 10), (7, 5)]


def _scene(height: int, width: int, box: tuple[float, ...]) -> np.ndarray:
  """A green image with a red rectangle; padding is neither red nor green."""
  image = np.zeros((height, width, 3), np.uint8)
  image[..., 1] = 255
  y0, x0, y1, x1 = box
  image[y0:y1, x0:x1] = (255, 0, 0)
  return image


def _red_extent(image: np.ndarray) -> np.ndarray:
  red = image[..., 0].astype(int) > image[..., 1]
  ys, xs = np.flatnonzero(red.any(axis=1)), np.flatnonzero(red.any(axis=0))
  return np.array([ys[0], xs[0], ys[-1] + 1, xs[-1] + 1], float)


def _boxes(*boxes: tuple[float, ...]) -> np.ndarray:
  return np.array(boxes, np.float32).reshape(-1, 4)


@pytest.mark.parametrize("shape", [(48, 48), (40, 97), (131, 30), (700, 500)])
@pytest.mark.parametrize("size", [48, 96])
def test_fit_moves_boxes_with_their_pixels(shape, size):
  height, width = shape
  box = (height // 4, width // 5, height // 2, width - 3)
  canvas, boxes, content = augment.fit(_scene(height, width, box), _boxes(box), size)
  assert canvas.shape == (size, size, 3) and canvas.dtype == np.uint8
  np.testing.assert_allclose(boxes[0] * size, _red_extent(canvas), atol=1.0)
  filled = (content[:2] * size).round().astype(int)
  assert max(filled) == size
  assert (canvas[filled[0] :] == augment.GRAY).all() and (canvas[:, filled[1] :] == 128).all()
  inner = canvas[: filled[0], : filled[1]]
  assert (inner[..., 2] == 0).all()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", [48, 333])
def test_to_original_undoes_fit(shape, size):
  height, width = shape
  rng = np.random.default_rng(0)
  corners = rng.uniform(0, 1, (20, 2, 2)) * (height, width)
  boxes = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1).astype(np.float32)
  boxes[0] = (0, 0, height, width)
  image = rng.integers(0, 255, (height, width, 3), dtype=np.uint8)
  canvas, fitted, content = augment.fit(image, boxes, size)
  assert canvas.shape == (size, size, 3)
  assert fitted.min() >= 0 and fitted.max() <= 1
  np.testing.assert_array_equal(content[2:], [height, width])
  np.testing.assert_allclose(augment.to_original(fitted, content), boxes, atol=1e-3)


def test_to_original_clips_to_the_image_not_the_canvas():
  _, _, content = augment.fit(np.zeros((50, 100, 3), np.uint8), _boxes(), 200)
  whole = augment.to_original(_boxes((0, 0, 1, 1), (-0.1, 0.5, 0.25, 2.0)), content)
  np.testing.assert_allclose(whole, [[0, 0, 50, 100], [0, 50, 25, 100]])


def test_fit_hand_computed():
  # 100 x 50 onto 20: factor 0.2, content 20 x 10.
  _, boxes, content = augment.fit(np.zeros((100, 50, 3), np.uint8), _boxes((10, 5, 60, 50)), 20)
  np.testing.assert_allclose(content, [1.0, 0.5, 100, 50])
  np.testing.assert_allclose(boxes, [[0.1, 0.05, 0.6, 0.5]], rtol=1e-6)


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("shape", [(60, 80), (90, 41), (64, 64)])
def test_train_view_moves_boxes_with_their_pixels(seed, shape):
  height, width = shape
  rng = np.random.default_rng(seed)
  y0, x0 = rng.integers(0, height // 2), rng.integers(0, width // 2)
  box = (y0, x0, y0 + height // 3, x0 + width // 3)
  canvas, boxes, keep = augment.train_view(
    _scene(height, width, box),
    _boxes(box),
    64,
    rng,
    scale_min=0.6,
    scale_max=2.0,
    min_visible=0.2,
  )
  assert canvas.shape == (64, 64, 3)
  assert boxes.min() >= 0 and boxes.max() <= 1
  if keep[0]:
    np.testing.assert_allclose(boxes[0] * 64, _red_extent(canvas), atol=1.01)


def test_views_differ_and_both_kept_and_dropped_boxes_occur():
  image = np.random.default_rng(0).integers(0, 255, (60, 80, 3), dtype=np.uint8)
  box = _boxes((0, 0, 15, 20))
  views = [
    augment.train_view(image, box, 64, np.random.default_rng(seed), scale_min=1.5, scale_max=2.0)
    for seed in range(30)
  ]
  kept = [bool(keep[0]) for _, _, keep in views]
  assert any(kept) and not all(kept)
  assert len({canvas.tobytes() for canvas, _, _ in views}) == 30


@pytest.mark.parametrize("shape", [(32, 32), (20, 32), (32, 20)])
def test_flip_mirrors_the_content_only(shape):
  rng = np.random.default_rng(0)
  image = rng.integers(0, 255, (*shape, 3), dtype=np.uint8)
  before = image.copy()
  plain = augment.train_view(image, _boxes((1, 2, 8, 19)), 32, rng, flip=0.0)
  mirrored = augment.train_view(image, _boxes((1, 2, 8, 19)), 32, rng, flip=1.0)
  np.testing.assert_array_equal(image, before)
  width = shape[1]
  np.testing.assert_array_equal(mirrored[0][:, :width], plain[0][:, :width][:, ::-1])
  np.testing.assert_array_equal(mirrored[0][:, width:], plain[0][:, width:])
  np.testing.assert_allclose(plain[1] * 32, [[1, 2, 8, 19]], rtol=1e-6)
  np.testing.assert_allclose(mirrored[1] * 32, [[1, width - 19, 8, width - 2]], rtol=1e-6)


def test_flip_probability():
  image, box = np.zeros((8, 8, 3), np.uint8), _boxes((0, 0, 8, 2))
  rng = np.random.default_rng(0)
  flips = [augment.train_view(image, box, 8, rng, flip=0.3)[1][0, 1] > 0 for _ in range(1000)]
  assert 0.25 < np.mean(flips) < 0.35


def test_a_whole_image_without_jitter_is_not_copied():
  image = np.zeros((48, 48, 3), np.uint8)
  view, boxes, keep = augment.train_view(
    image, _boxes((0, 0, 48, 24)), 48, np.random.default_rng(0), flip=0.0
  )
  assert view is image and keep.all()
  np.testing.assert_array_equal(boxes, [[0, 0, 1, 0.5]])
  assert augment.fit(image, boxes, 48)[0] is image


def test_without_jitter_a_view_is_what_fit_gives():
  rng = np.random.default_rng(1)
  image = rng.integers(0, 255, (37, 80, 3), dtype=np.uint8)
  box = _boxes((3, 4, 30, 70))
  canvas, boxes, _ = augment.fit(image, box, 64)
  view, viewed, keep = augment.train_view(image, box, 64, rng, flip=0.0)
  np.testing.assert_array_equal(canvas, view)
  np.testing.assert_allclose(boxes, viewed, rtol=1e-6)
  assert keep.all()


def test_same_seed_same_view_and_same_number_of_draws():
  image = np.random.default_rng(0).integers(0, 255, (50, 70, 3), dtype=np.uint8)
  square = np.zeros((64, 64, 3), np.uint8)
  box = _boxes((3, 4, 30, 60))
  first, second, third = (np.random.default_rng(5) for _ in range(3))
  one = augment.train_view(image, box, 64, first, scale_min=0.5, scale_max=1.5)
  two = augment.train_view(image, box, 64, second, scale_min=0.5, scale_max=1.5)
  augment.train_view(square, box, 64, third, flip=0.0)
  for left, right in zip(one, two, strict=True):
    np.testing.assert_array_equal(left, right)
  assert first.random() == second.random() == third.random()


def test_boxes_are_dropped_by_the_share_that_is_visible():
  # Twice the size, cropped to a quarter of the picture: compare with the crop's own extent.
  image = np.zeros((64, 64, 3), np.uint8)
  grid = _boxes(*[(y, x, y + 8, x + 8) for y in range(0, 64, 8) for x in range(0, 64, 8)])
  _, cut, keep = augment.train_view(
    image, grid, 64, np.random.default_rng(3), scale_min=2.0, scale_max=2.0, min_visible=0.5
  )
  visible = (cut[:, 2] - cut[:, 0]) * (cut[:, 3] - cut[:, 1]) * 64 * 64 / (16 * 16)
  np.testing.assert_array_equal(keep, visible >= 0.5)
  assert ((visible > 0.01) & (visible < 0.49)).any() and keep.any() and not keep.all()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("seed", range(4))
def test_odd_shapes_and_edge_boxes_survive(shape, seed):
  height, width = shape
  rng = np.random.default_rng(seed)
  image = rng.integers(0, 255, (height, width, 3), dtype=np.uint8)
  boxes = _boxes((0, 0, height, width), (0, 0, 0, 0), (height, width, 0, 0))
  canvas, cut, keep = augment.train_view(
    image, boxes, 48, rng, scale_min=0.1, scale_max=3.0, min_visible=0.0
  )
  assert canvas.shape == (48, 48, 3) and np.isfinite(cut).all()
  np.testing.assert_array_equal(keep, [True, False, False])


def test_no_boxes():
  canvas, boxes, keep = augment.train_view(
    np.zeros((5, 9, 3), np.uint8), _boxes(), 16, np.random.default_rng(0), scale_max=2.0, flip=1.0
  )
  assert canvas.shape == (16, 16, 3) and boxes.shape == (0, 4) and keep.shape == (0,)


def test_maps_show_what_images_show():
  """A map of three colors stays beside its image through any view."""
  for seed in range(60):
    rng = np.random.default_rng(seed)
    height, width = rng.integers(20, 90, 2).tolist()
    labels = rng.integers(1, 4, (3, 4)).repeat(-(-height // 3), 0).repeat(-(-width // 4), 1)
    labels = labels[:height, :width].astype(np.uint8)
    image = np.repeat(labels[..., None] * np.uint8(60), 3, axis=2)
    options = {"scale_min": 0.9, "scale_max": 3.0, "stretch": bool(seed % 2)}
    view = augment.random_view(height, width, 48, rng, **options)
    canvas = augment.see(image, view, 48)
    found = augment.see_map(labels, view, 48)
    assert found.shape == (48, 48) and found.dtype == np.uint8
    padded = np.ones((48, 48), bool)
    padded[: view.shown[0], : view.shown[1]] = False
    np.testing.assert_array_equal(found == 0, padded)
    # Only the borders between colors are blurred.
    off = np.abs(canvas[..., 0].astype(int) - found * 60)[~padded]
    assert np.mean(off > 60) < 0.05


def test_a_map_leads_back_to_its_image():
  for height, width in ((30, 48), (48, 48), (97, 61), (480, 640), (5, 200)):
    labels = np.arange(height * width).reshape(height, width)
    for stretch in (False, True):
      view = augment.whole_view(height, width, 48, stretch=stretch)
      content = augment.content(height, width, view, 48)
      back = augment.map_to_original(augment.see_map(labels, view, 48), content)
      assert back.shape == (height, width)
      # No pixel comes from further away than a pixel of the canvas.
      rows, columns = np.divmod(back, width)
      y, x = np.mgrid[:height, :width]
      assert np.abs(rows - y).max() <= height / view.shown[0]
      assert np.abs(columns - x).max() <= width / view.shown[1]
      if max(height, width) <= 48:
        np.testing.assert_array_equal(back, labels)


def test_views_of_images_are_those_with_boxes():
  image = np.random.default_rng(0).integers(0, 256, (40, 70, 3), np.uint8)
  none = np.zeros((0, 4), np.float32)
  for seed in range(10):
    options = {"scale_min": 0.5, "scale_max": 2.0}
    canvas, *_ = augment.train_view(image, none, 32, np.random.default_rng(seed), **options)
    view = augment.random_view(40, 70, 32, np.random.default_rng(seed), **options)
    np.testing.assert_array_equal(augment.see(image, view, 32), canvas)
  view = augment.whole_view(40, 70, 32)
  canvas, _, content = augment.fit(image, none, 32)
  np.testing.assert_array_equal(augment.see(image, view, 32), canvas)
  np.testing.assert_array_equal(augment.content(40, 70, view, 32), content)


@pytest.mark.parametrize("stretch", [False, True])
def test_a_square_may_be_said_in_two_ways(stretch):
  image = np.random.default_rng(0).integers(0, 256, (40, 70, 3), np.uint8)
  labels = np.random.default_rng(1).integers(0, 5, (40, 70))
  options = {"scale_min": 0.5, "scale_max": 2.0, "stretch": stretch}
  for seed in range(20):
    one = augment.random_view(40, 70, 32, np.random.default_rng(seed), **options)
    other = augment.random_view(40, 70, (32, 32), np.random.default_rng(seed), **options)
    assert one == other
    for function, argument in ((augment.see, image), (augment.see_map, labels)):
      np.testing.assert_array_equal(
        function(argument, one, 32), function(argument, other, (32, 32))
      )
  view = augment.whole_view(40, 70, 32, stretch=stretch)
  assert view == augment.whole_view(40, 70, (32, 32), stretch=stretch)
  np.testing.assert_array_equal(
    augment.content(40, 70, view, 32), augment.content(40, 70, view, (32, 32))
  )


@pytest.mark.parametrize("canvas", [(24, 48), (48, 24), (32, 33)])
def test_label_maps_stay_beside_their_images_on_any_canvas(canvas):
  """Signed maps, ignored where the image is not."""
  for seed in range(60):
    rng = np.random.default_rng(seed)
    height, width = rng.integers(20, 90, 2).tolist()
    labels = rng.integers(-1, 3, (3, 4)).repeat(-(-height // 3), 0).repeat(-(-width // 4), 1)
    labels = labels[:height, :width].astype(np.int16)
    image = np.repeat((labels[..., None] + 2).astype(np.uint8) * np.uint8(60), 3, axis=2)
    options = {"scale_min": 0.8, "scale_max": 3.0, "stretch": bool(seed % 2)}
    view = augment.random_view(height, width, canvas, rng, **options)
    seen, found = augment.see(image, view, canvas), augment.see_map(labels, view, canvas, fill=-1)
    assert seen.shape == (*canvas, 3) and found.shape == canvas and found.dtype == np.int16
    padded = np.ones(canvas, bool)
    padded[: view.shown[0], : view.shown[1]] = False
    assert (seen[padded] == augment.GRAY).all() and (found[padded] == -1).all()
    off = np.abs(seen[..., 0].astype(int) - (found + 2) * 60)[~padded]
    assert np.mean(off > 60) < 0.06


def test_the_whole_image_fills_a_canvas_of_its_aspect():
  for height, width, canvas in ((1024, 2048, (512, 1024)), (288, 384, (96, 128)), (5, 9, (5, 9))):
    view = augment.whole_view(height, width, canvas)
    assert view == augment.View(canvas, (0, 0), canvas, False)
  tall = augment.whole_view(100, 50, (20, 40))
  assert tall.shown == (20, 10)
  wide = augment.random_view(
    100, 50, (20, 40), np.random.default_rng(0), scale_min=3.0, scale_max=3.0
  )
  assert wide.scaled == (60, 30) and wide.shown == (20, 30)


@pytest.mark.parametrize("stretch", [False, True])
def test_a_map_leads_back_from_any_canvas(stretch):
  for height, width in ((30, 48), (97, 61), (480, 640), (5, 200)):
    labels = np.arange(height * width).reshape(height, width)
    view = augment.whole_view(height, width, (24, 56), stretch=stretch)
    content = augment.content(height, width, view, (24, 56))
    back = augment.map_to_original(augment.see_map(labels, view, (24, 56)), content)
    rows, columns = np.divmod(back, width)
    y, x = np.mgrid[:height, :width]
    assert np.abs(rows - y).max() <= height / view.shown[0]
    assert np.abs(columns - x).max() <= width / view.shown[1]


def test_jitter_changes_brightness_contrast_and_saturation_as_pillow_does():
  rng = np.random.default_rng(0)
  image = rng.integers(0, 256, (20, 30, 3), np.uint8)
  for seed in range(10):
    factors = np.random.default_rng(seed).uniform(0.6, 1.4, 3)
    wanted = Image.fromarray(image)
    kinds = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)
    for enhance, factor in zip(kinds, factors, strict=True):
      wanted = enhance(wanted).enhance(factor)
    found = augment.jitter(image, np.random.default_rng(seed), 0.4)
    assert np.abs(found.astype(int) - np.asarray(wanted)).max() <= 4  # Pillow rounds three times
  assert augment.jitter(image, rng, 0.0) is image


@pytest.mark.parametrize("strength", [-0.1, 1.0])
def test_a_strength_that_there_is_not(strength):
  with pytest.raises(UsageError, match="color_jitter"):
    augment.check_jitter(strength)

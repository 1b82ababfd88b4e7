"""Colors of another domain: against the statistics that are asked for, and known maps."""

import numpy as np
import pytest

from rtune.data.recolor import Colors, Recolored, colors_of, transport


class Pictures:
  """Of different sizes, with colors that go together."""

  def __init__(self, seed=0, turn=((1, 0.4, 0), (0, 0.7, 0.2), (0.1, 0, 0.9)), start=60):
    rng = np.random.default_rng(seed)
    self.images = []
    for side in (8, 12, 20):
      pixels = start + rng.normal(0, 18, (side, side, 3)) @ np.array(turn).T
      self.images.append(np.clip(pixels, 0, 255).astype(np.uint8))

  def __len__(self):
    return len(self.images)

  def __getitem__(self, index):
    return {"image": self.images[index], "image_id": index, "label_map": index}


def test_colors_are_those_of_the_pixels_each_image_the_same():
  source = Pictures()
  found = colors_of(source)
  pixels = [image.reshape(-1, 3).astype(float) for image in source.images]
  weights = np.concatenate([np.full(len(p), 1 / len(p)) for p in pixels])
  expected = np.cov(np.concatenate(pixels).T, aweights=weights, ddof=0)
  np.testing.assert_allclose(found.mean, np.mean([p.mean(0) for p in pixels], axis=0))
  np.testing.assert_allclose(found.covariance, expected, atol=1e-8)
  few = colors_of(source, images=2)
  np.testing.assert_allclose(few.mean, np.mean([pixels[0].mean(0), pixels[2].mean(0)], axis=0))


def test_recolored_images_have_the_wanted_colors():
  source, other = Pictures(), Pictures(1, ((0.5, 0, 0), (0.5, 1, 0), (0, 0.3, 1.2)), start=120)
  wanted = colors_of(other)
  recolored = Recolored(source, wanted)
  found = colors_of(recolored)
  np.testing.assert_allclose(found.mean, wanted.mean, atol=0.3)
  np.testing.assert_allclose(found.covariance, wanted.covariance, rtol=0.02, atol=5)
  assert len(recolored) == 3 and recolored[1]["label_map"] == 1
  assert recolored[2]["image"].dtype == np.uint8


def test_the_map_is_symmetric_and_positive_which_moves_colors_least():
  """The gradient of a convex function: Brenier's condition of optimal transport."""
  matrix = transport(colors_of(Pictures()), colors_of(Pictures(1, start=100))).matrix
  np.testing.assert_allclose(matrix, matrix.T, atol=1e-9)
  assert (np.linalg.eigvalsh(matrix) > 0).all()


def test_known_maps():
  mean, covariance = np.array([50.0, 60, 70]), np.diag([4.0, 9, 16])
  colors = Colors(mean, covariance)
  same = transport(colors, colors)
  np.testing.assert_allclose(same.matrix, np.eye(3), atol=1e-9)
  np.testing.assert_allclose(same.offset, 0, atol=1e-9)
  brighter = transport(colors, Colors(mean + 5, 4 * covariance))
  image = np.array([[[50, 60, 70], [51, 60, 70]]], np.uint8)
  assert brighter(image).tolist() == [[[55, 65, 75], [57, 65, 75]]]


@pytest.mark.parametrize("value", [0, 255])
def test_images_of_one_color_stay_finite(value):
  flat = Pictures()
  flat.images = [np.full((4, 4, 3), value, np.uint8)] * 2
  wanted = colors_of(Pictures())
  assert np.abs(Recolored(flat, wanted)[0]["image"] - wanted.mean).max() < 1
  assert np.isfinite(transport(wanted, colors_of(flat)).matrix).all()

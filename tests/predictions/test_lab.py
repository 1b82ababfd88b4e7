"""CIE Lab as scikit-image has it, and pictures of one lightness and other colors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from skimage.color import rgb2lab

from rtune.predictions import lab

LAB, LIGHTNESS, JOINED, KEPT = map(
  jax.jit, (lab.lab, lab.lightness, lab.joined, lab.lightness_kept)
)


def random_rgb(seed, *shape):
  return np.random.default_rng(seed).random((*shape, 3), np.float32)


def all_corners(levels=9):
  axis = np.linspace(0, 1, levels, dtype=np.float32)
  return np.stack(np.meshgrid(axis, axis, axis), -1).reshape(-1, 3)


def grays():
  return np.repeat(np.linspace(0, 1, 256, dtype=np.float32)[:, None], 3, 1)


@pytest.mark.parametrize("rgb", [random_rgb(0, 50, 40), all_corners(), grays()])
def test_lab_is_that_of_scikit_image(rgb):
  found = LAB(jnp.asarray(rgb))
  np.testing.assert_allclose(found, rgb2lab(rgb.astype(np.float64)), atol=1e-3)
  np.testing.assert_allclose(LIGHTNESS(jnp.asarray(rgb)), found[..., 0], atol=1e-5)


def test_gray_has_no_color():
  lab = np.asarray(LAB(jnp.asarray(grays())))
  assert np.hypot(lab[:, 1], lab[:, 2]).max() < 0.01
  assert lab[0, 0] == pytest.approx(0, abs=1e-4) and lab[-1, 0] == pytest.approx(100, abs=1e-4)


def test_a_picture_joined_to_its_own_lightness_is_itself():
  rgb = jnp.asarray(np.concatenate([all_corners(), grays(), random_rgb(1, 3000)]))
  lab = LAB(rgb)
  np.testing.assert_allclose(JOINED(lab[:, 0], lab[:, 1:]), rgb, atol=2e-3)


def test_lightness_is_kept_whatever_the_color():
  rgb = random_rgb(2, 40, 50)
  rgb[:20] = np.rint(rgb[:20])  # the corners of the cube, which fit nearly no other lightness
  gray = np.repeat(random_rgb(3, 40, 50)[..., :1], 3, -1)
  gray[:5], gray[5:10] = 0, 1
  found = KEPT(jnp.asarray(rgb), jnp.asarray(gray))
  assert found.min() >= 0 and found.max() <= 1
  wanted = np.asarray(LIGHTNESS(jnp.asarray(gray)))
  np.testing.assert_allclose(LIGHTNESS(found), wanted, atol=1e-3)
  rounded = np.rint(np.asarray(found) * 255).astype(np.uint8)
  off = np.abs(rgb2lab(rounded)[..., 0] - wanted)
  assert off.max() < 0.3 and off.mean() < 0.1


def test_hue_stays_and_chroma_shrinks_no_more_than_it_must():
  rgb, gray = random_rgb(4, 3000), np.repeat(random_rgb(5, 3000)[..., :1], 3, -1)
  wanted = np.asarray(LAB(jnp.asarray(rgb)))[:, 1:]
  lightness = LIGHTNESS(jnp.asarray(gray))
  found = np.asarray(LAB(JOINED(lightness, jnp.asarray(wanted))))[:, 1:]
  scale = (found * wanted).sum(-1) / (wanted**2).sum(-1)
  np.testing.assert_allclose(found, scale[:, None] * wanted, atol=0.02)
  assert scale.max() < 1.001 and 0.3 < (scale > 0.999).mean() < 0.7
  # A little more of what was shrunk would leave the gamut of the screen.
  short = (scale < 0.99) & (scale > 0.01)
  more = (scale[short] + 2e-3)[:, None] * wanted[short]
  linear = np.stack(lab._linear_of(lightness[short], jnp.asarray(more)), -1)
  assert ((linear < 0) | (linear > 1)).any(-1).mean() > 0.99


def test_samples_share_an_image():
  rgb, gray = jnp.asarray(random_rgb(6, 2, 3, 4, 5)), jnp.asarray(random_rgb(7, 2, 1, 4, 5))
  tiled = jnp.broadcast_to(gray, rgb.shape)
  np.testing.assert_allclose(KEPT(rgb, gray), KEPT(rgb, tiled), atol=4e-6)  # near black


def photograph(seed, height=30, width=44):
  """Smooth, so that its colors survive resizing."""
  rows, columns = np.mgrid[:height, :width] / np.array([[[height]], [[width]]])
  phase = np.random.default_rng(seed).random(3) * 6
  waves = [np.sin(4 * rows + p) * np.cos(3 * columns - p) for p in phase]
  return np.rint(127.5 + 100 * np.stack(waves, -1)).astype(np.uint8)


@pytest.mark.parametrize("keep", ["lightness", "luma"])
def test_gray_pictures(keep):
  image = np.random.default_rng(8).integers(0, 256, (20, 30, 3)).astype(np.uint8)
  found = lab.gray(image, keep)
  assert found.dtype == np.uint8 and (found == found[..., :1]).all()
  again = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, -1)
  np.testing.assert_array_equal(lab.gray(again, keep), again)  # gray stays as it is
  off = np.abs(rgb2lab(found)[..., 0] - rgb2lab(image)[..., 0])
  assert off.max() < 0.25 if keep == "lightness" else off.max() > 10
  if keep == "luma":
    np.testing.assert_allclose(found[..., 0], image @ [0.299, 0.587, 0.114], atol=0.6)


def test_colors_of_another_size():
  image = photograph(0)
  gray = lab.gray(image)
  np.testing.assert_allclose(lab.recolored(gray, image).astype(int), image, atol=3)
  small = photograph(0, 15, 22)
  error = lab.recolored(gray, small).astype(int) - image
  assert np.abs(error).mean() < 4 < np.abs(gray.astype(int) - image).mean() / 5
  np.testing.assert_array_equal(lab.recolored(gray, gray), gray)
  found = lab.recolored(photograph(1), photograph(2, 7, 9))  # a colored image is as good as gray
  off = np.abs(rgb2lab(found)[..., 0] - rgb2lab(photograph(1))[..., 0])
  assert off.max() < 0.3


def test_photographs_larger_than_a_block(monkeypatch):
  whole = lab.recolored(photograph(3), photograph(4, 6, 6))
  monkeypatch.setattr(lab, "_BLOCK", 256)
  np.testing.assert_array_equal(lab.recolored(photograph(3), photograph(4, 6, 6)), whole)

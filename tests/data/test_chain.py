"""Corruptions in a row, as configs name them."""

import math

import numpy as np
import pytest

from rtune.data import corrupt
from rtune.data.chain import chain
from rtune.errors import UsageError

IMAGE = np.random.default_rng(0).random((24, 36, 3), np.float32)


def step(name, **args):
  return {"fn": f"rtune.data.corrupt:{name}", "args": args}


def test_steps_are_taken_in_order_with_one_generator():
  made = chain([step("blur", width=1.0), step("gaussian", sigma=[5, 50]), step("poisson", peak=40)])
  assert made.scale == 1
  found = made.apply(IMAGE, np.random.default_rng(3))
  rng = np.random.default_rng(3)
  image = corrupt.blur(IMAGE, rng, width=1.0)
  image, first = corrupt.gaussian(image, rng, sigma=(5, 50))
  image, second = corrupt.poisson(image, rng, peak=40)
  np.testing.assert_array_equal(found.image, image)
  assert found.level == pytest.approx(math.hypot(first, second))


def test_nothing_to_do():
  made = chain(())
  found = made.apply(IMAGE, np.random.default_rng(0))
  assert found.image is IMAGE and found.level == 0 and made.scale == 1


def test_the_scale_follows_from_the_steps():
  down = step("bicubic", scale=4, kind="pillow")
  assert chain([down]).scale == 4 and chain([down, step("enlarge", scale=4)]).scale == 1
  assert chain([step("bicubic", scale=3), step("jpeg", quality=40)]).scale == 3


def test_a_function_of_ones_own(tmp_path):
  path = tmp_path / "own.py"
  path.write_text("def darker(image, rng, *, by=2.0):\n  return image / image.dtype.type(by)\n")
  made = chain([{"fn": f"{path}:darker", "args": {"by": 4.0}}, {"fn": f"{path}:darker"}])
  np.testing.assert_allclose(made.apply(IMAGE, np.random.default_rng(0)).image, IMAGE / 8)


@pytest.mark.parametrize(
  ("steps", "message"),
  [
    ([step("gaussian", sigma=-1)], "sigma is -1"),
    ([step("gauss", sigma=1)], "Did you mean 'gaussian'"),
    ([step("gaussian", strength=1)], r"corruptions\[0\]\.args\.strength"),
    ([step("gaussian"), step("bicubic")], r"corruptions\[1\]\.args\.scale is missing"),
    ([{"args": {}}], r"corruptions\[0\] is .*write {'fn'"),
    ([{"fn": "rtune.data.corrupt:blur", "arg": {}}], "write {'fn'"),
    ([step("bicubic", scale=7)], "240 x 240, no multiple of the scale 7"),
    ([step("enlarge", scale=2)], "480 x 480 x 3 of 240 x 240 x 3"),
  ],
)
def test_what_makes_no_sense_is_said_at_once(steps, message):
  with pytest.raises(UsageError, match=message):
    chain(steps)

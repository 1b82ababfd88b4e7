"""Colorization: gray in, codes between, colors out, with a code model of random weights."""

import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from skimage.color import rgb2lab

from rtune import config as configs
from rtune.config.names import build_part
from rtune.data.scenes.shapes import Shapes
from rtune.devices.compiling import jit_once
from rtune.errors import NumericError, UsageError
from rtune.metrics.pixels import coloring
from rtune.predictions import lab
from rtune.predictions.pixels import Pixels
from rtune.tasks.coded import CodedTask
from rtune.tasks.colorization import Colorization
from rtune.tasks.task import settings, view

CODES = {"patch_size": 8, "code_length": 4, "width": 16, "encoder_depth": 1, "decoder_depth": 1}
CODES |= {"num_heads": 2, "mlp_dim": 16, "dict_size": 8, "codeword_dim": 4}
SOURCE = Shapes("val", 4, size=24)


def make(**args):
  return Colorization(**{"image_size": 16, "codes": CODES} | args)


@functools.cache
def frozen():
  """A code model whose head is no longer zero: other codes are other colors."""
  variables = jit_once(make().codes_of().init)(jax.random.key(0))
  params = dict(variables["params"])
  head = params["head_color"]
  kernel = jax.random.normal(jax.random.key(1), head["kernel"].shape)
  params["head_color"] = {**head, "kernel": kernel}
  return {**variables, "params": params}


def batch_of(task, source=SOURCE):
  rows = [task.example(source[i], None) for i in range(len(source))]
  return {name: jnp.asarray(np.stack([row[name] for row in rows])) for name in rows[0]}


def test_it_is_a_coded_task():
  task = make()
  assert isinstance(task, CodedTask) and hash(task) == hash(make())
  assert isinstance(task.codes, configs.CodeSizes) and task.codes.dict_size == 8
  part = configs.Part("rtune.tasks.colorization:Colorization", settings(task))
  plain = json.loads(json.dumps(dataclasses.asdict(part)))
  assert build_part(configs.Part(**plain), "task") == task


def test_examples_are_gray_and_keep_their_colors():
  task = make()
  for raw in (SOURCE[0], view(task).unlabeled(np.zeros((5, 40, 3), np.uint8), 3)):
    for rng in (None, np.random.default_rng(0)):
      features = task.example(raw, rng)
      assert {k: (v.shape, v.dtype) for k, v in features.items()} == {
        "image": ((16, 16, 3), np.dtype(np.uint8)),
        "color": ((16, 16, 3), np.dtype(np.uint8)),
      }
      np.testing.assert_array_equal(features["image"], lab.gray(features["color"]))
  whole = make(image_size=24).example(SOURCE[1], None)
  np.testing.assert_array_equal(whole["color"], SOURCE[1]["image"])
  luma = make(image_size=24, gray="luma").example(SOURCE[1], None)["image"]
  assert (luma != whole["image"]).any()


def test_views_are_mirrored_and_zoomed():
  raw = SOURCE[0]
  task = make(image_size=24)
  seen = [task.example(raw, np.random.default_rng(seed))["color"] for seed in range(20)]
  mirrored = [(view == raw["image"][:, ::-1]).all() for view in seen]
  assert 2 < sum(mirrored) < 18
  assert all(m or (v == raw["image"]).all() for m, v in zip(mirrored, seen, strict=True))
  zoomed = make(image_size=24, scale_max=3.0).example(raw, np.random.default_rng(1))["color"]
  assert (zoomed != raw["image"]).any() and (zoomed != raw["image"][:, ::-1]).any()


def test_labels_are_patches_of_the_colors():
  task = make()
  batch = batch_of(task)
  labels = task.labels(batch)["color"]
  assert labels.shape == (4, 4, 3, 64) and labels.min() >= -1 and labels.max() <= 1
  first = np.asarray(batch["color"][0, :8, 8:, 1], np.float32) / 127.5 - 1  # of row 0, column 1
  np.testing.assert_allclose(labels[0, 1, 1].reshape(8, 8), first, atol=1e-6)


def test_loss_is_the_mean_square():
  task = make()
  batch = batch_of(task)
  right = task.labels(batch)
  loss, terms = task.code_loss(right, batch)
  assert loss == 0 and terms["PSNR"] > 90
  loss, terms = task.code_loss({"color": right["color"] + 0.5}, batch)
  assert loss == pytest.approx(0.25, abs=1e-5)
  assert terms["PSNR"] == pytest.approx(10 * np.log10(2**2 / 0.25), abs=1e-3)


def test_targets_decode_to_colors_of_the_inputs_lightness():
  task = make()
  batch = batch_of(task)
  actions = jax.jit(task.targets)(frozen(), batch, None)
  assert actions.shape == (4, 4) and actions.min() >= 1 and actions.max() <= 8
  other = actions % 8 + 1
  both = jnp.stack([actions, other], axis=1)
  decode = jax.jit(task.decode)
  rgb = decode(frozen(), both, batch).rgb
  assert rgb.shape == (4, 2, 16, 16, 3) and rgb.min() >= 0 and rgb.max() <= 1
  assert np.abs(rgb[:, 0] - rgb[:, 1]).mean() > 0.02
  lightness = jax.jit(lab.lightness)
  wanted = lightness(batch["image"].astype(jnp.float32) / 255)
  np.testing.assert_allclose(lightness(rgb), np.stack([wanted] * 2, 1), atol=2e-3)
  alone = decode(frozen(), other, batch).rgb
  np.testing.assert_allclose(alone, rgb[:, 1], atol=1e-4)


def test_plain_predictions_are_those_of_the_code_model():
  task = make(keep_lightness=False)
  batch = batch_of(task)
  actions = jnp.asarray([[0, 1, 2, 8]] * 4)
  rgb = jax.jit(task.decode)(frozen(), actions, batch).rgb
  decode = jax.jit(task.codes_of().decode)
  values = decode(frozen(), jnp.maximum(actions - 1, 0), batch["image"])["color"]
  patch = np.clip(np.asarray(values)[2, 3].reshape(3, 8, 8).transpose(1, 2, 0), -1, 1)
  np.testing.assert_allclose(rgb[2, 8:, 8:], (patch + 1) / 2, atol=1e-5)


def test_records_and_pictures():
  task, raw = make(), SOURCE[2]
  features = task.example(raw, None)
  rgb = np.random.default_rng(0).random((16, 16, 3), np.float32)
  record = view(task).record(Pixels(rgb), features, raw)
  assert record["picture"].shape == (16, 16, 3) and record["picture"].dtype == np.uint8
  metric = coloring()
  state = metric.update(metric.init(), record, raw)
  assert set(view(task).headline) <= set(metric.compute(state))
  picture = view(task).draw(raw["image"], record)
  assert picture.shape == raw["image"].shape
  off = np.abs(rgb2lab(picture)[..., 0] - rgb2lab(raw["image"])[..., 0])
  assert off.max() < 0.3 and (picture != raw["image"]).mean() > 0.5
  np.testing.assert_array_equal(
    view(task).draw(raw["image"], view(task).annotated(raw)), raw["image"]
  )
  large = view(make(keep_lightness=False)).draw(raw["image"], record)
  assert large.shape == raw["image"].shape and (large != picture).any()
  with pytest.raises(NumericError, match="image 2 are not finite"):
    view(task).record(Pixels(np.full_like(rgb, np.nan)), features, raw)


@pytest.mark.parametrize(
  ("args", "message"),
  [
    ({"gray": "value"}, "gray is 'value'"),
    ({"scale_max": 0.5}, r"scale_max is 0\.5"),
    ({"codes": {"with": 3}}, r"config\.task\.args\.codes\.with"),
    ({"codes": {"width": 1.5}}, r"config\.task\.args\.codes\.width"),
  ],
)
def test_settings_that_make_no_sense(args, message):
  with pytest.raises(UsageError, match=message):
    make(**args)


def test_sizes_that_do_not_fit():
  with pytest.raises(UsageError, match=r"image_size=20 .*codes\.patch_size=8"):
    make(image_size=20).codes_of()

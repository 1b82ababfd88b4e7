"""Scenes as label maps: rare kinds, overlooked objects, and a second style."""

import hashlib
import pickle

import numpy as np
import pytest

from rtune.data.scenes import render
from rtune.data.scenes.labeled import LabeledShapes
from rtune.data.scenes.shapes import Shapes
from rtune.data.scenes.style import restyle
from rtune.data.source import LabelSource, PixelCounts
from rtune.errors import UsageError

EVEN = (1 / 6,) * 6


def test_example_has_the_fields_of_a_label_source():
  source = LabeledShapes("train", 100, size=48)
  assert isinstance(source, LabelSource) and isinstance(source, PixelCounts)
  example = source[7]
  assert set(example) == {"image", "image_id", "label_map"} and example["image_id"] == 7
  assert example["image"].shape == (48, 48, 3) and example["image"].dtype == np.uint8
  assert example["label_map"].shape == (48, 48) and example["label_map"].dtype == np.int16
  assert source.classes == (*render.KINDS, "sky", "wall", "forest", "grass", "sand", "water")
  assert source.category_ids == tuple(range(12))
  with pytest.raises(IndexError):
    source[100]


def test_a_scene_follows_from_seed_split_and_index_alone():
  for style in (0.0, 0.3):
    source = LabeledShapes("val", 20, size=32, style=style)
    again = pickle.loads(pickle.dumps(LabeledShapes("val", 999, size=32, style=style)))
    for index in (19, 3, 3, np.int64(7)):
      for name, value in source[index].items():
        np.testing.assert_array_equal(value, again[index][name])


def test_labels_are_the_noticed_objects_and_the_regions_behind():
  source = LabeledShapes("train", 60, size=48, max_objects=8)
  truth = LabeledShapes("train", 60, size=48, max_objects=8, true_labels=True)
  missed = 0
  for index in range(60):
    scene, noticed = source.noticed(index)
    labels, true = source[index]["label_map"], truth[index]["label_map"]
    for row in range(len(noticed)):
      mask = scene.mask(row)
      assert (true[mask] == scene.kinds_N[row]).all()
      assert (labels[mask] == scene.kinds_N[row]).all() == bool(noticed[row] or not mask.any())
    behind = ~np.isin(scene.ids_SS, np.flatnonzero(noticed) + 1)
    np.testing.assert_array_equal(labels[behind], 6 + scene.stuff_SS[behind])
    np.testing.assert_array_equal(source[index]["image"], truth[index]["image"])
    missed += int(((scene.area_N > 0) & ~noticed).sum())
  assert missed > 100


def test_kinds_are_as_rare_as_is_said_and_small_ones_are_overlooked():
  source = LabeledShapes("train", 2000, size=32, min_objects=1, max_objects=1)
  found = [source.noticed(index) for index in range(2000)]
  shares = np.bincount([scene.kinds_N[0] for scene, _ in found], minlength=6) / 2000
  expected = np.array(source.rarity)
  spread = np.sqrt(expected * (1 - expected) / 2000)
  np.testing.assert_array_less(np.abs(shares - expected), 4 * spread)
  # miss_small * (1 - side / small) of objects of that side.
  boxes = np.array([scene.boxes_N4[0] for scene, _ in found])
  sides = np.sqrt((boxes[:, 2:] - boxes[:, :2]).prod(axis=1)) / 32
  chance = 1 - 0.9 * np.maximum(0, 1 - sides / 0.45)
  noticed = np.mean([seen[0] for _, seen in found])
  assert abs(noticed - chance.mean()) < 4 * np.sqrt((chance * (1 - chance)).sum()) / 2000
  assert 0.3 < noticed < 0.7


def test_even_kinds_are_the_scenes_of_shapes():
  labeled, shapes = LabeledShapes("val", 40, rarity=EVEN), Shapes("val", 40)
  for index in range(40):
    for one, other in zip(labeled.scene(index), shapes.scene(index), strict=True):
      np.testing.assert_array_equal(one, other)


def test_scenes_of_shapes_have_not_changed_by_a_bit():
  """The digest was made before kinds could be rare."""
  digest = hashlib.sha256()
  for index in range(20):
    scene = Shapes("train", 20, size=48).scene(index)
    for value in (scene.ids_SS, scene.kinds_N, scene.colors_N, scene.boxes_N4):
      digest.update(np.ascontiguousarray(value).tobytes())
  assert digest.hexdigest()[:16] == "3fd1e097cecd0d48"


def test_no_scene_is_in_two_splits_or_seeds():
  sources = [
    LabeledShapes(split, 120, seed=seed, style=style)
    for split, seed in (("train", 0), ("val", 0), ("train", 1))
    for style in (0.0, 0.3)
  ]
  images = [source[index]["image"].tobytes() for source in sources for index in range(120)]
  assert len(set(images)) == len(images)


def test_counts_are_those_of_the_first_scenes():
  source = LabeledShapes("val", 30, size=24)
  maps = np.concatenate([source[index]["label_map"] for index in range(30)])
  assert source.pixel_counts().tolist() == [int((maps == k).sum()) for k in range(12)]
  assert LabeledShapes("train", 10**9, size=16).pixel_counts().sum() == 1000 * 16 * 16


def test_a_style_changes_images_alone_and_the_more_the_stronger_it_is():
  plain = LabeledShapes("val", 30, size=48)
  np.testing.assert_array_equal(
    plain[3]["image"], LabeledShapes("val", 30, size=48, style=0.0).scene(3).image
  )
  changes = []
  for style in (0.1, 0.3, 0.6):
    styled = LabeledShapes("val", 30, size=48, style=style)
    for index in range(30):
      np.testing.assert_array_equal(styled[index]["label_map"], plain[index]["label_map"])
    offs = [np.abs(styled[i]["image"].astype(float) - plain[i]["image"]).mean() for i in range(30)]
    changes.append(np.mean(offs))
  assert 3 < changes[0] < changes[1] < changes[2]
  # Colors are turned and darkened in the same way everywhere: that is a domain, not noise.
  styled = LabeledShapes("val", 30, size=48, style=0.3)
  darker = [styled[i]["image"].mean() < plain[i]["image"].mean() for i in range(30)]
  assert np.mean(darker) > 0.95


def test_no_style_is_the_image_itself():
  image = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
  assert restyle(image, 0.0, np.random.default_rng(0)) is image
  styled = restyle(image, 1.0, np.random.default_rng(0))
  assert styled.shape == image.shape and styled.dtype == np.uint8


@pytest.mark.parametrize(
  ("fields", "message"),
  [
    ({"style": 1.5}, "style is 1.5"),
    ({"rarity": (0.5, 0.5)}, "give 6 shares"),
    ({"rarity": (0.5, 0.6, -0.1, 0.0, 0.0, 0.0)}, "give 6 shares"),
    ({"rarity": (0.5, 0.1, 0.1, 0.1, 0.1, 0.2)}, "make 1 in all"),
    ({"miss_small": 2.0}, "miss_small is 2"),
  ],
)
def test_fields_are_checked(fields, message):
  with pytest.raises(UsageError, match=message):
    LabeledShapes("val", 3, **fields)

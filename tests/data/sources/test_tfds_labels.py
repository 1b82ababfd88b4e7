"""Label maps of TFDS: TensorFlow prepares a tiny dataset in another process, it is read here."""

import pathlib
import subprocess
import sys

import numpy as np
import pytest

from rtune.data.sources import tfds as rtune_tfds
from rtune.data.sources.tfds_labels import TfdsLabels
from rtune.errors import DataError, UsageError

BUILD = """
import sys
import numpy as np
import tensorflow_datasets as tfds
from rtune.data.sources.tfds import prepare

class Masked(tfds.core.GeneratorBasedBuilder):
  VERSION = tfds.core.Version("1.0.0")
  MASK = (6, 9, 1)
  def _info(self):
    features = {
      "image": tfds.features.Image(encoding_format="png"),
      "segmentation_mask": tfds.features.Image(shape=(None, None, 1)),
      "label": np.int64,
    }
    return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))
  def _split_generators(self, downloads):
    return {"train": self._generate_examples()}
  def _generate_examples(self):
    for i in range(3):
      mask = np.full(self.MASK, 1 + i, np.uint8)
      mask[0, 0] = 255
      yield i, {"image": np.full((6, 9, 3), i, np.uint8), "segmentation_mask": mask, "label": i}

class Mixed(Masked):
  MASK = (6, 8, 1)

prepare("masked", sys.argv[1])
prepare("mixed", sys.argv[1])
"""
PETS = {"classes": ("pet", "ground"), "ids": {"1": 0, "2": 1, "3": -1}}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> str:
  pytest.importorskip("tensorflow_datasets", reason="needs the extra rtune[tfds]")
  folder = tmp_path_factory.mktemp("tfds")
  done = subprocess.run(
    [sys.executable, "-c", BUILD, str(folder)],
    capture_output=True,
    text=True,
    timeout=300,
    cwd=pathlib.Path(rtune_tfds.__file__).parents[3],
  )
  assert done.returncode == 0, done.stderr[-3000:]
  return str(folder)


def test_reads_what_was_written(prepared):
  source = TfdsLabels("masked", "train", prepared, **PETS)
  assert len(source) == 3 and source.classes == ("pet", "ground") and source.category_ids == (1, 2)
  seen = []
  for index in range(3):
    example = source[index]
    assert example["image_id"] == index and example["image"].shape == (6, 9, 3)
    label = {0: 0, 1: 1, 2: -1}[int(example["image"][0, 0, 0])]
    expected = np.full((6, 9), label)
    expected[0, 0] = -1
    np.testing.assert_array_equal(example["label_map"], expected)
    assert example["label_map"].dtype == np.int16
    seen.append(label)
  assert sorted(seen) == [-1, 0, 1] and source.pixel_counts().tolist() == [53, 53]
  with pytest.raises(IndexError):
    source[3]


@pytest.mark.parametrize(
  ("args", "options", "error", "message"),
  [
    (("masked", "train"), {}, UsageError, "`classes` is empty"),
    (("masked", "train"), {"classes": ("a",), "ids": "coco"}, UsageError, "tables are cityscapes"),
    (("masked", "nope"), PETS, DataError, "no examples in split 'nope'"),
    (("masked", "train"), {**PETS, "mask": "label"}, DataError, r"and label \(an image of uint8"),
    (("cityscapes", "train"), PETS, DataError, "not prepared in"),
  ],
)
def test_what_is_missing_is_named(prepared, args, options, error, message):
  with pytest.raises(error, match=message):
    TfdsLabels(*args, prepared, **options)


def test_masks_that_do_not_fit_are_told_when_they_are_read(prepared):
  source = TfdsLabels("masked", "train", prepared, classes=("a", "b"))
  with pytest.raises(DataError, match=r"masked, mask \d: .* no class: [23]\. List"):
    [source[index] for index in range(3)]
  source = TfdsLabels("mixed", "train", prepared, **PETS)
  with pytest.raises(DataError, match=r"mask has the size \(6, 8\), the image has \(6, 9\)"):
    source[0]

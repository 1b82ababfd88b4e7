"""Captions of TFDS: a tiny dataset is prepared by TensorFlow in another process, and read here."""

import pathlib
import subprocess
import sys

import numpy as np
import pytest

from rtune.data.sources import tfds as rtune_tfds
from rtune.data.sources.tfds_captions import TfdsCaptions
from rtune.errors import DataError

# As coco_captions has them. Image i has i captions, all of value 40 * i.
BUILD = """
import sys
import numpy as np
import tensorflow_datasets as tfds
from rtune.data.sources.tfds import prepare

class Spoken(tfds.core.GeneratorBasedBuilder):
  VERSION = tfds.core.Version("1.1.0")
  def _info(self):
    return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict({
      "image": tfds.features.Image(encoding_format="png"), "image/id": np.int64,
      "captions": tfds.features.Sequence({"id": np.int64, "text": tfds.features.Text()})}))
  def _split_generators(self, downloads):
    return {"train": self._generate_examples(1, 4), "silent": self._generate_examples(0, 1)}
  def _generate_examples(self, first, last):
    for i in range(first, last):
      yield i, {"image": np.full((6, 9, 3), 40 * i, np.uint8), "image/id": 100 + i,
                "captions": [{"id": k, "text": f"Caption {k} of {i}, \\u00fc"} for k in range(i)]}

prepare("spoken", sys.argv[1])
"""


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> str:
  pytest.importorskip("tensorflow_datasets", reason="needs the extra rtune[tfds]")
  folder = tmp_path_factory.mktemp("tfds")
  root = pathlib.Path(rtune_tfds.__file__).parents[3]
  done = subprocess.run(
    [sys.executable, "-c", BUILD, str(folder)],
    capture_output=True,
    text=True,
    timeout=300,
    cwd=root,
  )
  assert done.returncode == 0, done.stderr[-3000:]
  return str(folder)


def test_reads_what_was_written(prepared):
  source = TfdsCaptions("spoken", "train", prepared)
  assert len(source) == 3
  found = {raw["image_id"] - 100: raw for raw in (source[i] for i in range(3))}
  assert sorted(found) == [1, 2, 3]
  for i, raw in found.items():
    assert raw["image"].shape == (6, 9, 3) and (raw["image"] == 40 * i).all()
    assert raw["image"].dtype == np.uint8
    assert raw["captions"] == tuple(f"Caption {k} of {i}, ü" for k in range(i))
  assert source.references() == [source[i]["captions"] for i in range(3)]
  assert source.references(2) == source.references()[:2]
  for index in (-1, 3):
    with pytest.raises(IndexError):
      source[index]


def test_an_image_without_captions_is_named(prepared):
  with pytest.raises(DataError, match="spoken, image 0, has no caption"):
    TfdsCaptions("spoken", "silent", prepared)[0]
  with pytest.raises(DataError, match="spoken, image 0, has no caption"):
    TfdsCaptions("spoken", "silent", prepared).references()


@pytest.mark.parametrize(
  ("args", "settings", "message"),
  [
    (("spoken", "nope"), {}, "no examples in split 'nope'; splits: train, silent"),
    (("coco_captions", "train"), {}, r"not prepared in .*prepare\('coco_captions'"),
    (("spoken", "train"), {"text": "words"}, r"captions/words.* It has .*captions/text"),
    (("spoken", "train"), {"captions": "sentences"}, "name others with `captions` and `text`"),
  ],
)
def test_what_is_missing_is_named(prepared, args, settings, message):
  with pytest.raises(DataError, match=message):
    TfdsCaptions(*args, prepared, **settings)

"""Pictures of TFDS: a tiny dataset is prepared by TensorFlow in another process, and read here."""

import pathlib
import subprocess
import sys

import numpy as np
import pytest

from rtune.data.sources import tfds as rtune_tfds
from rtune.data.sources.tfds_photographs import TfdsPhotographs
from rtune.errors import DataError

BUILD = """
import sys
import numpy as np
import tensorflow_datasets as tfds
from rtune.data.sources.tfds import prepare

class Seen(tfds.core.GeneratorBasedBuilder):
  VERSION = tfds.core.Version("1.0.0")
  FEATURES = {"image": tfds.features.Image(encoding_format="png"), "label": np.int64}
  def _info(self):
    return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(self.FEATURES))
  def _split_generators(self, downloads):
    return {"train": self._generate_examples()}
  def _generate_examples(self):
    for i in range(3):
      yield i, {k: np.full((6, 9, 3), 40 * i, np.uint8) if k == "image" else i
                for k in self.FEATURES}

class Unseen(Seen):
  FEATURES = {"label": np.int64}

prepare("seen", sys.argv[1])
prepare("unseen", sys.argv[1])
"""


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
  source = TfdsPhotographs("seen", "train", prepared)
  examples = [source[i] for i in range(len(source))]
  assert [example["image_id"] for example in examples] == [0, 1, 2]
  assert all(e["image"].shape == (6, 9, 3) and e["image"].dtype == np.uint8 for e in examples)
  assert sorted(int(example["image"][0, 0, 0]) for example in examples) == [0, 40, 80]
  with pytest.raises(IndexError):
    source[3]


@pytest.mark.parametrize(
  ("args", "message"),
  [
    (("seen", "nope"), "no examples in split 'nope'"),
    (("unseen", "train"), r"needs the feature image \(uint8\)\. It has label"),
    (("imagenet2012", "train"), "not prepared in"),
  ],
)
def test_what_is_missing_is_named(prepared, args, message):
  with pytest.raises(DataError, match=message):
    TfdsPhotographs(*args, prepared)

"""TFDS: a tiny dataset is prepared by TensorFlow in another process, and read here without it."""

import pathlib
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from rtune.data.sources import tfds as rtune_tfds
from rtune.data.sources.tfds import TfdsDetection
from rtune.errors import DataError, UsageError
from rtune.metrics.boxes import coco_boxes

# Image i of "train" is (20 + i) x 30, all of value i but for a red corner, with i boxes.
BUILD = """
import sys
import numpy as np
import tensorflow_datasets as tfds
from rtune.data.sources.tfds import prepare

def image(i):
  pixels = np.full((20 + i, 30, 3), i, np.uint8)
  pixels[0, 0] = [255, 0, 0]
  return pixels

class Tiny(tfds.core.GeneratorBasedBuilder):
  VERSION = tfds.core.Version("1.10.0")
  def _info(self):
    return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict({
      "image": tfds.features.Image(encoding_format="png"), "image/id": np.int64,
      "objects": tfds.features.Sequence({
        "bbox": tfds.features.BBoxFeature(), "area": np.int64, "is_crowd": np.bool_,
        "label": tfds.features.ClassLabel(names=["cat", "dog", "eel"])})}))
  def _split_generators(self, downloads):
    return {"train": self._generate_examples(5), "validation": self._generate_examples(2)}
  def _generate_examples(self, number):
    for i in range(number):
      yield i, {"image": image(i), "image/id": 100 + i, "objects": [
        {"bbox": tfds.features.BBox(0.1 * k, 0.5, 1.0, 0.6), "area": 7 * k + 1,
         "is_crowd": k == 2, "label": k % 3} for k in range(i)]}

class Plain(tfds.core.GeneratorBasedBuilder):
  VERSION = tfds.core.Version("1.0.0")
  def _info(self):
    return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict({
      "image": tfds.features.Image(encoding_format="jpeg"), "image/file": tfds.features.Text(),
      "things": tfds.features.Sequence({
        "bbox": tfds.features.BBoxFeature(), "type": tfds.features.ClassLabel(names=["ant"])})}))
  def _split_generators(self, downloads):
    return {"train": self._generate_examples()}
  def _generate_examples(self):
    gray = sys.argv[2]
    yield 0, {"image": gray, "image/file": "a.jpg", "things": [
      {"bbox": tfds.features.BBox(0.0, 0.0, 0.5, 0.5), "type": 0},
      {"bbox": tfds.features.BBox(0.5, 0.5, 0.5, 0.5), "type": 0},
      {"bbox": tfds.features.BBox(0.5, 0.5, 1.0, 1.0), "type": -1}]}

class Wild(tfds.core.GeneratorBasedBuilder):
  # BBoxFeature refuses what lies outside of the image, but "bbox" may be plain numbers.
  VERSION = tfds.core.Version("1.0.0")
  def _info(self):
    return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict({
      "image": tfds.features.Image(encoding_format="png"),
      "objects": tfds.features.Sequence({
        "bbox": tfds.features.Tensor(shape=(4,), dtype=np.float32), "is_crowd": np.bool_,
        "label": tfds.features.ClassLabel(names=["cat", "dog", "eel"])})}))
  def _split_generators(self, downloads):
    return {"train": self._generate_examples()}
  def _generate_examples(self):
    corners = [[-0.5, 0.25, 0.5, 0.75], [0.5, 0.5, 0.5, 1], [2, 0, 3, 1], [0, 0, np.inf, 1],
      [0, np.nan, 1, 1], [0, 0, 1, 1.5], [0.25, 0, 0.75, 1]]
    yield 0, {"image": np.zeros((16, 32, 3), np.uint8), "objects": [
      {"bbox": np.array(box, np.float32), "is_crowd": k == 5, "label": -1 if k == 6 else k % 3}
      for k, box in enumerate(corners)]}

prepare("tiny", sys.argv[1])
prepare("wild", sys.argv[1])
prepare("plain", sys.argv[1])
Tiny(data_dir=sys.argv[1] + "/records", file_format="tfrecord").download_and_prepare()
try:
  prepare("no_such_data", sys.argv[1])
except Exception as error:
  print(type(error).__name__, error)
"""

READ = """
import sys
from contextlib import closing
from rtune.data.loader import train_batches
from rtune.data.sources.tfds import TfdsDetection

source = TfdsDetection("tiny", "train", sys.argv[1])
example = lambda raw, rng: {"id": raw["image_id"], "pixel": raw["image"][1, 1]}
with closing(train_batches(
  source, example, batch_size=5, seed=0, num_threads=3, prefetch=3)) as batches:
  for _ in range(10):
    assert sorted(next(batches)["id"]) == [100, 101, 102, 103, 104]
print("tensorflow" in sys.modules)
"""


def run(code: str, *args: object) -> str:
  command = [sys.executable, "-c", textwrap.dedent(code), *map(str, args)]
  root = pathlib.Path(rtune_tfds.__file__).parents[3]
  result = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=root)
  assert result.returncode == 0, result.stderr[-3000:]
  return result.stdout.strip()


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> tuple[str, str]:
  """(data_dir, what the builder printed last)."""
  pytest.importorskip("tensorflow_datasets", reason="needs the extra rtune[tfds]")
  folder = tmp_path_factory.mktemp("tfds")
  gray = folder / "gray.jpg"
  Image.fromarray(np.full((8, 16), 200, np.uint8)).save(gray)
  printed = run(BUILD, folder, gray)
  # What an interrupted preparation leaves; and an older version.
  (folder / "tiny" / "incomplete.ABC_1.11.0").mkdir()
  (folder / "tiny" / "1.9.0").mkdir()
  return str(folder), printed.splitlines()[-1]


def test_reads_what_was_written(prepared):
  source = TfdsDetection("tiny", "train", prepared[0])
  assert source.classes == ("cat", "dog", "eel")
  assert source.category_ids == (0, 1, 2)
  assert len(source) == 5
  examples = {raw["image_id"] - 100: raw for raw in (source[i] for i in range(5))}
  assert sorted(examples) == [0, 1, 2, 3, 4]  # TFDS shuffles when preparing
  for i, raw in examples.items():
    height = 20 + i
    assert raw["image"].shape == (height, 30, 3)
    assert raw["image"].dtype == np.uint8
    assert raw["image"].flags.writeable
    assert raw["image"][0, 0].tolist() == [255, 0, 0]
    assert (raw["image"][1:] == i).all()
    boxes = np.array([[0.1 * k * height, 15, height, 18] for k in range(i)]).reshape(-1, 4)
    np.testing.assert_allclose(raw["boxes"], boxes, rtol=1e-5)
    assert raw["labels"].tolist() == [k % 3 for k in range(i)]
    assert raw["crowd"].tolist() == [k == 2 for k in range(i)]
    assert raw["area"].tolist() == [7 * k + 1 for k in range(i)]
    kinds = {name: raw[name].dtype.name for name in ("boxes", "labels", "crowd", "area")}
    assert kinds == {"boxes": "float32", "labels": "int32", "crowd": "bool", "area": "float32"}


def test_other_names_missing_fields_and_gray_images(prepared):
  source = TfdsDetection("plain", "train", prepared[0], objects="things", label="type")
  raw = source[0]
  assert source.classes == ("ant",)
  assert raw["image"].shape == (8, 16, 3)
  assert np.abs(raw["image"].astype(int) - 200).max() <= 1
  assert raw["image_id"] == 0  # the index
  assert raw["boxes"].tolist() == [[0, 0, 4, 8]]  # neither the empty box nor the unlabelled one
  assert raw["area"].tolist() == [32]
  assert raw["crowd"].tolist() == [False]


def test_the_metric_gets_boxes_as_they_are(prepared):
  raw = TfdsDetection("wild", "train", prepared[0])[0]
  # What is learned: cut (even the infinite one), with a class, with an area within the image.
  learned = [[0, 8, 8, 24], [0, 0, 16, 32], [0, 0, 16, 32]]
  assert raw["boxes"].tolist() == learned and raw["labels"].tolist() == [0, 0, 2]
  assert raw["crowd"].tolist() == [False, False, True]
  # x, y, width, height: over the edge, without height, outside, over the edge.
  whole = [[8, -8, 16, 16], [16, 8, 16, 0], [0, 32, 32, 16], [0, 0, 48, 16]]
  assert raw["official_boxes"].tolist() == whole and raw["official_boxes"].dtype == np.float64
  assert raw["official_labels"].tolist() == [0, 1, 2, 2]
  assert raw["official_crowd"].tolist() == [False, False, False, True]
  assert raw["official_area"].tolist() == [256, 0, 512, 768]


def test_boxes_are_scored_as_they_are(prepared):
  source = TfdsDetection("wild", "train", prepared[0])
  raw, metric = source[0], coco_boxes(source.classes, source.category_ids)
  prediction = {name: raw[name] for name in ("image_id", "boxes", "labels")}
  state = metric.update(metric.init(), {**prediction, "scores": np.ones(3, np.float32)}, raw)
  truth = {
    "images": [{"id": raw["image_id"]}],
    "categories": [{"id": 0, "name": "cat"}, {"id": 1, "name": "dog"}, {"id": 2, "name": "eel"}],
    "annotations": [
      {"id": 1, "category_id": 0, "bbox": [8, -8, 16, 16], "area": 256, "iscrowd": 0},
      {"id": 2, "category_id": 1, "bbox": [16, 8, 16, 0], "area": 0, "iscrowd": 0},
      {"id": 3, "category_id": 2, "bbox": [0, 32, 32, 16], "area": 512, "iscrowd": 0},
      {"id": 4, "category_id": 2, "bbox": [0, 0, 48, 16], "area": 768, "iscrowd": 1},
    ],
  }
  for annotation in truth["annotations"]:
    annotation["image_id"] = raw["image_id"]
  coco = COCO()
  coco.dataset = truth
  coco.createIndex()
  scorer = COCOeval(coco, coco.loadRes(metric.results(state)), "bbox")
  scorer.evaluate()
  scorer.accumulate()
  scorer.summarize()
  found = metric.compute(state)
  numbers = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR", "ARs", "ARm", "ARl")
  assert [found[name] for name in numbers] == pytest.approx(scorer.stats.tolist(), abs=1e-9)
  assert found["AP"] < 0.2


def test_split_slices_and_bounds(prepared):
  assert len(TfdsDetection("tiny", "train[:40%]", prepared[0])) == 2
  source = TfdsDetection("tiny:1.10.0", "validation", prepared[0])
  assert len(source) == 2
  for index in (-1, 2):
    with pytest.raises(IndexError):
      source[index]


def test_reading_in_threads_imports_no_tensorflow(prepared):
  assert run(READ, prepared[0]) == "False"


@pytest.mark.parametrize(
  "args, settings, message",
  [
    (("tiny", "nope"), {}, "no examples in split 'nope'; splits: train, validation"),
    (("tiny", "train[:0]"), {}, "no examples in split"),
    (("tiny:2.0.0", "train"), {}, r"not prepared in .* holds 1\.10\.0, .*prepare\('tiny:2\.0\.0'"),
    (("coco/2017", "train"), {}, r"coco/2017 is not prepared in .*prepare\('coco/2017'"),
    (("tiny", "train"), {"label": "area"}, r"objects/area \(a ClassLabel\)"),
    (("tiny", "train"), {"objects": "things"}, "It has .*objects/bbox"),
  ],
)
def test_what_is_missing_is_named(prepared, args, settings, message):
  with pytest.raises(DataError, match=message):
    TfdsDetection(*args, prepared[0], **settings)


def test_another_format_is_a_data_error(prepared):
  with pytest.raises(DataError, match="as tfrecord, which cannot be read at random"):
    TfdsDetection("tiny", "train", prepared[0] + "/records")


def test_unknown_dataset_is_one_line(prepared):
  assert prepared[1].startswith("UsageError TFDS ")
  assert prepared[1].endswith("/catalog lists them.")


def test_missing_package_names_the_extra(monkeypatch):
  monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
  with pytest.raises(UsageError, match=r"pip install 'rtune\[tfds\]'"):
    TfdsDetection("tiny", "train")
  with pytest.raises(UsageError, match=r"pip install 'rtune\[tfds\]'"):
    rtune_tfds.prepare("tiny")


def test_missing_tensorflow_names_the_extra(monkeypatch):
  pytest.importorskip("tensorflow_datasets", reason="needs the extra rtune[tfds]")
  monkeypatch.setitem(sys.modules, "tensorflow", None)
  with pytest.raises(UsageError, match=r"needs TensorFlow .*pip install 'rtune\[tfds\]'"):
    rtune_tfds.prepare("tiny")

"""Data of a run are compared by names of classes, and so are the weights that it starts from."""

import json
import pathlib
import shutil

import numpy as np
import pytest
from PIL import Image

from rtune.config.load import load_config
from rtune.errors import DataError, UsageError
from rtune.store import run_files
from rtune.training import loop, sources, start
from rtune.training.setup import prepare

CONFIG = pathlib.Path(__file__).resolve().parents[2] / "configs" / "detection_recall.py"


def write(folder: pathlib.Path, name: str, categories, **box) -> str:
  """One picture with a box of the first and one of the second category."""
  noise = np.random.default_rng(len(name)).integers(0, 255, (20, 30, 3), dtype=np.uint8)
  Image.fromarray(noise).save(folder / f"{name}.png")
  annotations = [
    {"id": k, "image_id": 1, "category_id": number, "bbox": [k, 2, 9, 8], **box}
    for k, (number, _) in enumerate(categories)
  ]
  data = {
    "images": [{"id": 1, "file_name": f"{name}.png"}],
    "categories": [{"id": number, "name": name} for number, name in categories],
    "annotations": annotations,
  }
  path = folder / f"{name}.json"
  path.write_text(json.dumps(data))
  return str(path)


def config_of(train: str, val: str, *more: tuple[str, str]):
  """A tiny run on two files."""
  settings = []
  for part, path in (("train", train), ("val", val)):
    settings.append((f"data.{part}.fn", "rtune.data.sources.coco:CocoDetection"))
    settings.append((f"data.{part}.args", repr({"annotations": path})))
  return load_config(f"{CONFIG}:tiny", [*settings, *more])


def test_classes_of_validation_data_go_by_name(tmp_path, capsys):
  train = write(tmp_path, "train", ((1, "red"), (2, "blue")))
  val = write(tmp_path, "val", ((1, "blue"), (2, "red")))
  opened = sources.open_all(config_of(train, val).data)
  assert opened.val.classes == ("red", "blue") == opened.train.classes
  assert opened.val[0]["labels"].tolist() == [1, 0]
  assert any("go by name" in text for text in opened.found)
  assert "warning: data.val numbers the classes" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["captioning_cider", "panoptic_pq", "segmentation_miou"])
def test_data_that_nobody_has_named_is_asked_for(name):
  """As of `coco_json` without its two arguments."""
  config = load_config(str(CONFIG.with_name(f"{name}.py")) + ":coco_json", [])
  with pytest.raises(DataError, match=r"--config\.data\.train\.args\.annotations=\.\.\.$"):
    sources.open_all(config.data)


def test_other_names_and_data_without_a_box_are_errors(tmp_path):
  train = write(tmp_path, "train", ((1, "red"), (2, "blue")))
  other = write(tmp_path, "other", ((1, "red"), (2, "azure")))
  with pytest.raises(DataError, match=r"\[2 'blue'\], only the second \[2 'azure'\]"):
    sources.open_all(config_of(train, other).data)
  crowd = write(tmp_path, "crowd", ((1, "red"), (2, "blue")), iscrowd=1)
  for pair in ((crowd, train), (train, crowd)):
    with pytest.raises(DataError, match="has not a single box"):
      sources.open_all(config_of(*pair).data)


def test_weights_of_other_classes_are_refused(tiny_run, tmp_path):
  other = tmp_path / "other"
  shutil.copytree(tiny_run, other)
  saved = json.loads((other / "config.json").read_text())
  names = saved["task"]["args"]["classes"]
  for key in ("init_from", "warm_start"):
    phases = "('reward',)" if key == "init_from" else "('mle',)"
    setup = prepare(load_config(f"{CONFIG}:tiny", [(key, str(other)), ("phases", phases)]))
    saved["task"]["args"]["classes"] = names
    (other / "config.json").write_text(json.dumps(saved))
    start.check(setup, tmp_path / "new")
    saved["task"]["args"]["classes"] = [names[1], names[0], *names[2:]]
    (other / "config.json").write_text(json.dumps(saved))
    with pytest.raises(
      UsageError, match=f"config.{key}: .* has learned other classes.*0: '{names[1]}'"
    ):
      start.check(setup, tmp_path / "new")


@pytest.mark.slow
def test_what_is_odd_is_kept_for_the_report(tmp_path):
  train = write(tmp_path, "train", ((1, "red"), (2, "blue")))
  config = config_of(train, train, ("mle.steps", "1"), ("phases", "('mle',)"), ("report", "False"))
  loop.run(config, str(tmp_path / "run"))
  (text,) = run_files.read_found(tmp_path / "run")
  assert "images in common with data.train" in text

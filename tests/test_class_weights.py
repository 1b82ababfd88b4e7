import csv
import json

import numpy as np
import pytest
from PIL import Image

from rtune import class_weights


def test_table_counts_and_weighs(tmp_path, capsys):
  boxes = [(1, 7, 0), (1, 7, 0), (1, 7, 0), (1, 9, 0), (1, 9, 1)]  # image, category, crowd
  annotations = [
    {"id": i, "image_id": image, "category_id": name, "iscrowd": crowd, "bbox": [i, 1, 2, 2]}
    for i, (image, name, crowd) in enumerate(boxes, 1)
  ]
  data = {
    "images": [{"id": 1, "file_name": "a.png"}],
    "annotations": annotations,
    "categories": [{"id": 7, "name": "cat"}, {"id": 9, "name": "dog"}],
  }
  (tmp_path / "train.json").write_text(json.dumps(data))
  (tmp_path / "a.png").touch()
  assert (
    class_weights.main(["--annotations", str(tmp_path / "train.json"), "--smoothing", "0.5"]) == 0
  )
  rows = [line.split() for line in capsys.readouterr().out.splitlines()]
  # 1 / (3 + 0.5 * 4) = 0.2 and 1 / (1 + 0.5 * 4) = 1/3, times 2 over their sum: 0.75 and 1.25.
  assert ["cat", "3", "0.750", "0.750"] in rows
  assert ["dog", "1", "0.250", "1.250"] in rows


def test_a_missing_file_is_one_line(capsys):
  assert class_weights.main(["--annotations", "nowhere.json"]) == 3
  error = capsys.readouterr().err
  assert "nowhere.json" in error
  assert "Traceback" not in error


def test_negative_smoothing_is_refused(capsys):
  assert class_weights.main(["--annotations", "x.json", "--smoothing", "-1"]) == 2
  assert "--smoothing" in capsys.readouterr().err


def label_folder(tmp_path):
  """Two masks: of 16 pixels 9 are road, 3 sky, 4 ignored."""
  values = ([[0, 0, 0, 0], [1, 1, 1, 255]], [[0, 0, 0, 0], [0, 255, 255, 255]])
  for name, value in zip("ab", values, strict=True):
    for kind, pixels in (("images", np.zeros((2, 4, 3))), ("masks", np.array(value))):
      (tmp_path / kind).mkdir(exist_ok=True)
      Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / kind / f"{name}.png")
  return {"images": "images", "masks": "masks", "classes": ["road", "sky"]}


def table_of(capsys):
  return [line.split() for line in capsys.readouterr().out.splitlines()]


def test_pixels_of_masks_in_folders(tmp_path, capsys):
  args = json.dumps(label_folder(tmp_path))
  files = ["--csv", str(tmp_path / "w.csv"), "--plot", str(tmp_path / "w.png")]
  command = ["--folder", str(tmp_path), "--args", args, "--smoothing", "0.5"]
  assert class_weights.main([*command, *files]) == 0
  rows = table_of(capsys)
  # 1 / (9 + 0.5 * 12) = 1/15 and 1 / (3 + 0.5 * 12) = 1/9, times 2 over their sum: 0.75 and 1.25.
  assert rows[0] == ["class", "pixels", "frequency", "weight"]
  assert ["road", "9", "0.750", "0.750"] in rows and ["sky", "3", "0.250", "1.250"] in rows
  with open(tmp_path / "w.csv", newline="") as file:
    written = list(csv.DictReader(file))
  assert [row["class"] for row in written] == ["road", "sky"]
  assert [int(row["pixels"]) for row in written] == [9, 3]
  assert [float(row["weight"]) for row in written] == pytest.approx([0.75, 1.25])
  with Image.open(tmp_path / "w.png") as picture:
    assert picture.format == "PNG" and len(picture.getcolors(10**6)) > 3


def test_pixels_of_label_and_panoptic_files(tmp_path, capsys):
  label_folder(tmp_path)
  names = [{"file_name": f"{name}.png"} for name in "ab"]
  data = {"info": {"image_root": "images", "mask_root": "masks"}, "images": names}
  (tmp_path / "labels.json").write_text(json.dumps({**data, "classes": ["road", "sky"]}))
  assert class_weights.main(["--annotations", str(tmp_path / "labels.json")]) == 0
  rows = table_of(capsys)
  assert ["road", "9", "0.750"] in [row[:3] for row in rows]
  ids = np.array([[3, 3, 3, 0], [9, 9, 9, 9]])
  (tmp_path / "panoptic").mkdir()
  colors = np.stack([ids, 0 * ids, 0 * ids], axis=-1).astype(np.uint8)
  Image.fromarray(colors).save(tmp_path / "panoptic/a.png")
  segments = [{"id": 3, "category_id": 1}, {"id": 9, "category_id": 2}]
  panoptic = {
    "info": {"image_root": "images", "mask_root": "panoptic"},
    "images": [{"id": 1, "file_name": "a.png"}],
    "annotations": [{"image_id": 1, "file_name": "a.png", "segments_info": segments}],
    "categories": [{"id": i, "name": n, "isthing": 0} for i, n in ((1, "road"), (2, "sky"))],
  }
  (tmp_path / "panoptic.json").write_text(json.dumps(panoptic))
  assert class_weights.main(["--annotations", str(tmp_path / "panoptic.json")]) == 0
  rows = [row[:3] for row in table_of(capsys)]
  assert ["road", "3", "0.429"] in rows and ["sky", "4", "0.571"] in rows


class Plain:
  """A source that cannot count by itself."""

  classes, category_ids = ("road", "sky"), (0, 1)

  def __len__(self):
    return 2

  def __getitem__(self, index):
    return {"label_map": np.array([[index, 0, -1]], np.int16)}


def test_any_source_is_counted(capsys):
  assert class_weights.main(["--source", f"{__file__}:Plain"]) == 0
  assert ["road", "3", "0.750"] in [row[:3] for row in table_of(capsys)]
  scenes = "rtune.data.scenes.labeled:LabeledShapes"
  args = '{"split": "val", "num": 3, "size": 16}'
  assert class_weights.main(["--source", scenes, "--args", args]) == 0
  rows = table_of(capsys)[2:]
  assert len(rows) == 12 and sum(int(row[1]) for row in rows) == 3 * 16 * 16


@pytest.mark.parametrize(
  ("args", "code", "message"),
  [
    ([], 2, "--annotations"),
    (["--annotations", "x.json", "--folder", "y"], 2, "not allowed with"),
    (["--folder", "y", "--args", "{"], 2, "--args is not JSON"),
    (["--folder", "y", "--args", "[]"], 2, "give an object"),
    (["--folder", "y", "--layout", "kitti"], 2, "there are cityscapes"),
    (["--folder", "y", "--layout", "camvid", "--split", "train"], 3, "folders that do not exist"),
    (["--folder", "y", "--args", '{"mask": "x"}'], 2, "masks"),
    (["--source", "rtune.data.scenes.colored:ColoredShapes", "--args",
      '{"split": "val", "num": 3}'], 2, "has no classes"),
    (["--source", "rtune.data.scenes.labeled:LabeledShapes", "--args",
      '{"split": "val", "num": 1, "size": 16}', "--csv", "/nowhere/x.csv"], 5, "cannot be written"),
  ],
)  # fmt: skip
def test_what_is_wrong_is_one_line(args, code, message, capsys):
  assert class_weights.main(args) == code
  error = capsys.readouterr().err
  assert message in error and "Traceback" not in error


def test_a_class_without_a_box_is_told_and_shrinks_no_weight(tmp_path, capsys):
  box = {"image_id": 1, "category_id": 1, "bbox": [1, 2, 9, 8]}
  data = {
    "images": [{"id": 1, "file_name": "a.png", "width": 30, "height": 20}],
    "categories": [{"id": 1, "name": "ant"}, {"id": 2, "name": "bee"}],
    "annotations": [{"id": k, **box, "bbox": [k, 2, 9, 8]} for k in range(4)],
  }
  path = tmp_path / "a.json"
  path.write_text(json.dumps(data))
  assert class_weights.main(["--annotations", str(path)]) == 0
  shown = capsys.readouterr()
  assert "classes without a box (1 of 2)" in shown.err
  assert shown.out.splitlines()[2].split() == ["ant", "4", "1.000", "1.000"]

import json

from rtune import class_weights


def test_table_counts_and_weighs(tmp_path, capsys):
  boxes = [(1, 7, 0), (1, 7, 0), (1, 7, 0), (1, 9, 0), (1, 9, 1)]  # image, category, crowd
  annotations = [
    {"id": i, "image_id": image, "category_id": name, "iscrowd": crowd, "bbox": [1, 1, 2, 2]}
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
  assert ["cat", "3", "0.750"] in rows
  assert ["dog", "1", "1.250"] in rows


def test_a_missing_file_is_one_line(capsys):
  assert class_weights.main(["--annotations", "nowhere.json"]) == 3
  error = capsys.readouterr().err
  assert "nowhere.json" in error
  assert "Traceback" not in error


def test_negative_smoothing_is_refused(capsys):
  assert class_weights.main(["--annotations", "x.json", "--smoothing", "-1"]) == 2
  assert "--smoothing" in capsys.readouterr().err

"""The first and the last table of samples of each phase stand in the report, whoever wrote them."""

import json
import re

import numpy as np
import pytest
from PIL import Image

from rtune.report import samples
from rtune.store import sample_table

PHASES = ("codes", "mle", "reward")


def rows(step: int, phase: str) -> list[dict]:
  shared = {"step": step, "phase": phase, "image_id": "a<b", "picture": "../secret.png"}
  made = [("greedy", 0.5, {"found": 1.25}), ("sample 1", None, {})]
  return [
    {**shared, "image": image, "answer": name, "reward": reward, "parts": parts}
    | {"log_prob": -12.5 - image, "text": ["é"]}
    for image in (3, 7)
    for name, reward, parts in made
  ]


@pytest.fixture
def folder(tmp_path):
  for step, phase in ((10, "mle"), (20, "mle"), (30, "mle"), (40, "reward"), (50, "gone")):
    sample_table.add(tmp_path, rows(step, phase))
    path = sample_table.picture_path(tmp_path, step, 3)
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(np.full((30, 4000, 3), step, np.uint8)).save(path)
  return tmp_path


def test_first_and_last_of_each_phase(folder):
  parts = samples.tables(folder, PHASES)
  names = [re.search(r"<summary>(.*?)</summary>", part).group(1) for part in parts]
  assert names == [
    "MLE, step 10 of the log",
    "MLE, step 30 of the log",
    "tuned, step 40 of the log",
  ]
  assert ["<details open>" in part for part in parts] == [False, False, True]
  tuned = parts[-1]
  assert tuned.count("<img") == 1, "of image 7 there is none"
  assert 'width="1600"' in tuned and tuned.count("<table") == 2
  head = "<th>image a&lt;b</th><th>reward</th><th>found</th><th>log p</th></tr>"
  assert tuned.count(head) == 2
  assert "<td>greedy</td><td>0.500</td><td>1.250</td><td>-15.50</td></tr>" in tuned
  missing = '<td class="soft">&ndash;</td>'
  assert f"<td>sample 1</td>{missing}{missing}<td>-19.50</td>" in tuned


@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n\x1a\n", b"no picture"])
def test_a_picture_that_is_none_is_left_out(folder, content):
  sample_table.picture_path(folder, 40, 3).write_bytes(content)
  tuned = samples.tables(folder, PHASES)[-1]
  assert "<img" not in tuned and tuned.count("<table") == 2


def test_a_run_without_has_no_section(tmp_path):
  assert samples.tables(tmp_path, PHASES) == []
  (tmp_path / sample_table.FILE).write_text(json.dumps({"step": 1}) + "\nnothing\n")
  assert samples.tables(tmp_path, PHASES) == []

"""Collapse is told once, also by a run that was resumed half way down."""

import pytest

from rtune.display import console, logs
from rtune.training.signs import Signs, since, tell_one_answer


@pytest.fixture(autouse=True)
def no_warnings_yet(monkeypatch):
  monkeypatch.setattr(console, "_warned", set())


def line(**values: float) -> dict[str, float]:
  usual = {"reward/mean": 0.5, "reward/alike": 0.0, "reward/invalid": 0.0, "reward/unjudged": 0.0}
  return {**usual, "unrewarded_in_a_row": 0.0, "unique": 1.0, **values}


def told(capsys, *rows, samples=4, before=()) -> list[str]:
  signs = Signs("reward", samples, before)
  for step, row in enumerate(rows):
    signs.look(step, row)
  return capsys.readouterr().err.splitlines()


@pytest.mark.parametrize(
  ("first", "later", "words"),
  [
    ({"entropy": 2.0}, {"entropy": 0.05}, "the entropy has fallen from 2 to 0.05"),
    ({"length": 12.0}, {"length": 2.5}, "answers have become short: 2.5 decisions, 12 at first"),
    ({"unique": 1.0}, {"unique": 0.26}, "the same answer, or nearly so: the policy collapsed"),
    ({"length": 12.0}, {"length": 1.0}, "they are empty"),
  ],
)
def test_each_collapse_is_told_once(capsys, first, later, words):
  (warning,) = told(capsys, line(**first), line(**later), line(**later))
  assert warning.startswith("warning: reward step 1: ") and words in warning


@pytest.mark.parametrize(
  ("first", "later"),
  [
    ({"entropy": 2.0}, {"entropy": 0.2}),
    ({"entropy": 0.04}, {"entropy": 0.0}),  # it was sure from the start
    ({"entropy": 1.0}, {"entropy": -3.0}),  # of a density
    ({"length": 12.0}, {"length": 4.0}),
    ({"unique": 1.0}, {"unique": 0.5}),
  ],
)
def test_what_is_no_collapse_is_not_told(capsys, first, later):
  assert told(capsys, line(**first), line(**later)) == []


def test_of_one_sample_nothing_is_unique(capsys):
  assert told(capsys, line(unique=1.0), samples=1) == []


def test_a_resumed_run_compares_with_its_first_line(tmp_path, capsys):
  """Not with the one that it goes on from, nor with those of another phase."""
  with logs.MetricLog(tmp_path, resume_step=-1, process_index=0, tensorboard=False) as log:
    log.write(10, line(entropy=90.0))
    log.write(20, line(entropy=2.0, length=12.0))
    log.write(25, {"val/AR": 0.5})
    log.write(30, line(entropy=0.3, length=5.0))
  before = since(tmp_path, 10)
  assert [row["step"] for row in before] == [20, 25, 30]
  assert told(capsys, line(entropy=0.3, length=5.0), before=before) == []
  both = told(capsys, line(entropy=0.05, length=2.0), before=before)
  assert len(both) == 2 and "12 at first" in both[0] and "from 2 to 0.05" in both[1]


def test_one_answer_for_all_images_is_told_once_in_a_workdir(capsys, tmp_path):
  for folder in (tmp_path / "one", tmp_path / "one", tmp_path / "other"):
    tell_one_answer("reward", folder, "the validation data", [b"same"] * 10)
  told = capsys.readouterr().err.splitlines()
  assert len(told) == 2
  assert told[0].startswith("warning: reward: all 10 images of the validation data got the same")


@pytest.mark.parametrize(
  "answers", [[b"same"] * 9, [b"same"] * 20 + [b"other"], [None] * 20, []], ids=str
)
def test_few_images_other_answers_and_real_numbers_are_fine(capsys, tmp_path, answers):
  tell_one_answer("reward", tmp_path, "the validation data", answers)
  assert capsys.readouterr().err == ""

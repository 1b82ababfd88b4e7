"""Every mistake is one line that names the file or the flag, before anything is written."""

import dataclasses
import pathlib

import pytest

from rtune import config as configs


@pytest.fixture
def fails(call, tmp_path):
  """The one line of an error of the command, which writes nothing."""

  def run(*flags) -> str:
    code, out, err = call(*flags)
    assert code in (2, 3) and not out and not (tmp_path / "out").exists()
    (line,) = err.splitlines()
    return line

  return run


def test_what_is_no_run(made, tmp_path, fails):
  run = made.run(tmp_path / "run")
  (tmp_path / "empty").mkdir()
  assert "empty is no run: it has neither config.json" in fails(run, tmp_path / "empty")
  assert "gone does not exist" in fails(tmp_path / "gone")
  assert "nothing* matches no run" in fails(f"{tmp_path}/nothing*")
  assert "empty* matches no run" in fails(f"{tmp_path}/empty*")
  (run / "config.json").unlink()
  assert "it has no config.json" in fails(run)
  (run / "config.json").write_text('{"bogus": 1}')
  assert str(run) in fails(run) and "bogus" in fails(run)
  assert "arguments are required" in fails()


def test_logs_without_a_line(made, tmp_path, fails):
  made.run(tmp_path / "run", rows=[])
  assert "metrics.jsonl says nothing: it is empty" in fails(tmp_path / "run")
  (tmp_path / "run" / "metrics.jsonl").write_text("{\n{\n")
  assert "no line of it can be read" in fails(tmp_path / "run")
  (tmp_path / "run" / "metrics.jsonl").unlink()
  assert "cannot be read: No such file" in fails(tmp_path / "run")
  made.log(tmp_path / "mm" / "scalars.json", [])
  assert "scalars.json says nothing" in fails(tmp_path / "mm")
  made.log(tmp_path / "mm" / "scalars.json", [{"step": 1, "memory": 5}])
  assert "neither losses nor metrics" in fails(tmp_path / "mm")


def test_a_broken_line_is_counted(made, tmp_path, call):
  run = made.run(tmp_path / "run")
  log = run / "metrics.jsonl"
  log.write_text(log.read_text().replace('{"step": 7,', '{"step" 7,'))
  code, _, err = call(run)
  assert code == 0 and f"warning: {log}: 1 line could not be read and is left out." in err
  assert len(made.csv(tmp_path / "out" / "losses.csv")) == 29


def test_runs_that_have_nothing_in_common(made, tmp_path, fails):
  made.run(tmp_path / "boxes")
  task = configs.Part("rtune.tasks.panoptic:Panoptic", {})
  made.run(tmp_path / "masks", made.config(task=task))
  line = fails(tmp_path / "boxes", tmp_path / "masks")
  assert "different tasks" in line and "rtune.tasks.panoptic:Panoptic" in line
  made.log(tmp_path / "scalars.json", [{"step": 1, "loss": 1.0}, {"step": 1, "mIoU": 50.0}])
  line = fails(tmp_path / "boxes", tmp_path / "scalars.json")
  assert "no metric in common" in line and "has AR" in line and "has mIoU" in line


def test_flags(made, tmp_path, fails):
  run = made.run(tmp_path / "run")
  assert "--metrics lost: no run has it; did you mean loss?" in fails(run, "--metrics", "AR,lost")
  assert "there are AR, loss, lr" in fails(run, "--metrics", "PQ")
  assert "time" not in fails(run, "--metrics", "PQ")
  assert "--names gives 2 names, but the runs are 1 groups: run (run)" in fails(
    run, "--names", "a,b"
  )
  other = made.run(tmp_path / "b", made.config(log_every=3, encoder_init="x.npz"))
  assert "one name twice" in fails(run, other, "--names", "a,a")
  assert "--smoothing: 1.2 is not between 0 and 1" in fails(run, "--smoothing", "1.2")
  assert "--smoothing" in fails(run, "--smoothing", "much")
  assert "--smoothing: nan" in fails(run, "--smoothing", "nan")
  assert "exclude each other" in fails(run, "--smoothing", "0.5", "--rolling", "5")
  assert "--rolling" in fails(run, "--rolling", "0")


@pytest.mark.parametrize(
  "text", ["first", "5,5", "a,b", "first:1,last", "1:x,2", "1,2,3", "1:nan,2"]
)
def test_trends_that_are_none(made, tmp_path, fails, text):
  run = made.run(tmp_path / "run")
  assert f"--trend {text}: give two different points" in fails(run, "--trend", text)


def test_values_of_a_trend_need_one_metric(made, tmp_path, fails, call):
  run = made.run(tmp_path / "run")
  for more in ((), ("--metrics", "AR,loss")):
    assert "say of which one metric" in fails(run, "--trend", "1:0.1,30:0.2", *more)
  assert call(run, "--trend", "1:0.1,30:0.2", "--metrics", "AR")[0] == 0


def test_a_folder_that_cannot_be_made(made, tmp_path, call):
  run = made.run(tmp_path / "run")
  pathlib.Path(tmp_path / "out").write_text("in the way")
  code, _, err = call(run)
  assert code == 2 and f"--out {tmp_path / 'out'} cannot be written" in err.splitlines()[-1]


def test_headline_of_a_task_that_is_gone(made, tmp_path, call):
  config = dataclasses.replace(made.config(), task=configs.Part("gone.py:Task"))
  made.run(tmp_path / "run", config)
  code, out, _ = call(tmp_path / "run")
  assert code == 0 and "AR" in out

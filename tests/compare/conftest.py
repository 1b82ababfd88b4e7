"""Workdirs made by hand: what `rtune.compare` reads of a run, and no more.

Tests get the functions through the fixture `made`: made.config(...), made.run(...), and so on.
"""

import csv
import dataclasses
import json
import pathlib
import types
from collections.abc import Sequence

import pytest

from rtune import config as configs
from rtune.compare import __main__ as compare
from rtune.store import run_files

STEPS = (20, 10)  # of imitation, and of what follows it
TASK = configs.Part("rtune.tasks.detection:Detection", {"image_size": 48})


def make_config(seed: int = 0, phases=("mle", "reward"), **changes) -> configs.Config:
  """A config of detection whose phases are as long as STEPS says."""
  steps = dict(zip(("mle", "reward"), STEPS, strict=True)) | {"control": STEPS[1]}
  base = configs.Config(
    task=TASK,
    data=configs.Data(train=configs.Part("a:b"), val=configs.Part("a:b")),
    reward=configs.Reward(fn="rtune.rewards.boxes:recall"),
    phases=phases,
    seed=seed,
  )
  base = dataclasses.replace(
    base, **{k: dataclasses.replace(getattr(base, k), steps=v) for k, v in steps.items()}
  )
  return dataclasses.replace(base, **changes)


def write_run(
  folder: pathlib.Path,
  config: configs.Config | None = None,
  rows: Sequence[dict] | None = None,
  results: dict | None = None,
) -> pathlib.Path:
  """A workdir of a config (default: `make_config()`) with a log and what its phases came to.

  Default log: a line a step, loss = seed + 10 / step, and an evaluation every 10 steps with
  AR = step / 100 + seed / 1000. Default results: the last evaluation of each phase.
  """
  config = config or make_config()
  folder.mkdir(parents=True)
  run_files.write_config(folder, config)
  count = sum(getattr(config, phase).steps for phase in config.phases)
  rows = made_rows(config.seed, count) if rows is None else rows
  write_log(folder / "metrics.jsonl", rows)
  if results is None:
    results, done = {}, 0
    for phase in config.phases:
      done += getattr(config, phase).steps
      found = [row for row in rows if row["step"] == done and "val/AR" in row]
      results |= {phase: {"val/AR": found[0]["val/AR"]}} if found else {}
  for phase, values in results.items():
    run_files.add_results(folder, phase, values, 1.0)
  return folder


def made_rows(seed: int, count: int) -> list[dict]:
  """The default log."""
  rows = []
  for step in range(1, count + 1):
    row = {"step": step, "loss": seed + 10 / step, "lr": 1e-3, "time/update": 0.1}
    rows.append(row | ({"val/AR": step / 100 + seed / 1000} if step % 10 == 0 else {}))
  return rows


def write_log(path: pathlib.Path, rows: Sequence[dict]) -> None:
  """JSON lines."""
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def read_csv(path: pathlib.Path) -> list[dict[str, str]]:
  """The lines of a table."""
  with open(path, newline="") as file:
    return list(csv.DictReader(file))


@pytest.fixture
def made() -> types.SimpleNamespace:
  """What makes runs and reads what comes of them."""
  return types.SimpleNamespace(
    config=make_config, run=write_run, rows=made_rows, log=write_log, csv=read_csv
  )


@pytest.fixture
def call(tmp_path, capsys):
  """Runs the command with --out tmp_path/out; its exit code, what it printed, and errors."""

  def run(*flags: object) -> tuple[int, str, str]:
    code = compare.main([*map(str, flags), "--out", str(tmp_path / "out")])
    return code, *capsys.readouterr()

  return run


@pytest.fixture
def six(made, tmp_path):
  """Two settings with three seeds each."""
  for seed in range(3):
    made.run(tmp_path / f"plain{seed}", made.config(seed))
    config = made.config(seed, reward=dataclasses.replace(made.config().reward, steps=10, kl=0.5))
    rows = [row | {k: row[k] + 0.25 + 0.01 * seed for k in row if k == "val/AR"}
            for row in made.rows(seed, 30)]  # fmt: skip
    made.run(tmp_path / f"kl{seed}", config, rows)
  return tmp_path

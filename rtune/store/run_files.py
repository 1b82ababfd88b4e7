"""What a workdir holds beside checkpoints and metrics: its config and its results.

config.json    the resolved config; with it a run is resumed, evaluated and described
results.json   {"mle": {"val/AR": ...}, "reward": {...}, "seconds": {"mle": ...}}
data_warnings.json  what was odd about the data when the run began
weights/       <phase>.safetensors, the parameters at the end of each phase, <phase>_best_<step>,
               its best, and manifest.json with their sizes and SHA-256
"""

import csv
import dataclasses
import io
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from rtune import config as configs
from rtune.config.moved import current
from rtune.config.names import as_tuples
from rtune.disk import parse_json, write_whole
from rtune.errors import StorageError, UsageError
from rtune.store import manifest, weight_files
from rtune.store.remote import copies

CONFIG = "config.json"
RESULTS = "results.json"
FOUND = "data_warnings.json"
# Changing these leaves every number of a run as it was.
HARMLESS = (
  *("log_every", "eval_every", "eval_examples", "eval_beam", "tensorboard", "report"),
  *("max_bad_steps", "reward.watched", "reward.workers", "trackers", "samples_every"),
  *("checkpoints.every", "checkpoints.keep_last", "checkpoints.keep_every"),
  "checkpoints.on_error",
  *("data.threads", "data.prefetch", "data.cache_mb", "data.timeout_s"),
)
# Changing these makes weights of another shape or meaning.
_SHAPES = ("task", "policy", "model")


def weights_path(workdir: pathlib.Path, phase: str) -> pathlib.Path:
  """Where the parameters of a finished phase are."""
  return workdir / "weights" / f"{phase}.safetensors"


def find_weights(where: str, key: str, phase: str = "mle") -> pathlib.Path:
  """The file that a config names: itself, or a folder, which stands for the weights in it.

  Of a workdir those are of a phase. Either may be on a hub, "hf://user/name", or in a cloud,
  "gs://bucket/run".

  Raises:
    UsageError: there is no such file; `key` is the config key to name.
    DataError, StorageError: the hub, or the cloud, cannot be reached.
  """
  path = copies.local_copy(where, key)
  if path.is_dir():
    path = weight_files.in_folder(path) or weights_path(path, phase)
  if not path.is_file():
    raise UsageError(f"{key}: {path} does not exist.")
  return whole(path)


def whole(weights: pathlib.Path) -> pathlib.Path:
  """The path of weights that are as they were written, as far as their folder knows.

  Raises:
    StorageError: they have been altered since.
  """
  own = (weights.parent.parent / CONFIG).is_file()  # other folders may have a manifest of theirs
  problem = manifest.altered(weights) if own else None
  if problem:
    raise StorageError(
      f"{weights}: {problem}. Restore it from a backup, or delete it and train that phase again; "
      f"if it was changed on purpose, delete {weights.with_name(manifest.FILE)}."
    )
  return weights


def check_kinds(workdir: pathlib.Path) -> None:
  """UsageError where something of the wrong kind stands in the way of what a run will write."""
  ours = CONFIG, RESULTS, "trackers.json", "samples.jsonl"
  for name in (*ours, "metrics.jsonl", "metrics.csv", "parameters.txt", "report.html"):
    if (workdir / name).is_dir():
      raise UsageError(f"{workdir / name} is a folder, not a file; move it away.")
  for name in ("weights", "checkpoints", "tensorboard", "samples"):
    if (workdir / name).exists() and not (workdir / name).is_dir():
      raise UsageError(f"{workdir / name} is a file, not a folder; move it away.")
  for path in (workdir / "weights").glob("*.safetensors"):
    if not path.is_file():
      raise UsageError(f"{path} is a folder, not a file; move it away.")


def read_config(workdir: pathlib.Path) -> configs.Config:
  """The config of a run; UsageError where the folder is not a run's."""
  path = workdir / CONFIG
  if not path.is_file():
    raise UsageError(f"{workdir} is not a workdir of rtune: it has no {CONFIG}.")
  try:
    return configs.from_json(path.read_text())
  except ValueError as error:
    raise UsageError(f"{path} is damaged ({error}); restore it or use another workdir.") from error


def check_config(workdir: pathlib.Path, config: configs.Config, allow_change: bool) -> None:
  """Checks that a run that is resumed is the same run; nothing is written.

  Raises:
    UsageError: a difference that makes it another run; the message shows old and new values.
  """
  if not (workdir / CONFIG).is_file():
    return
  old, new = (settings(c) for c in (read_config(workdir), config))
  changed = {key for key in old | new if old.get(key) != new.get(key)} - set(HARMLESS)
  shapes = {key for key in changed if key.split(".")[0] in _SHAPES}
  if shapes or (changed and not allow_change):
    lines = [f"  {key}: {old.get(key)!r} -> {new.get(key)!r}" for key in sorted(changed)]
    mend = "Use another --workdir" + ("." if shapes else ", or --allow_config_change.")
    raise UsageError(
      f"{workdir} belongs to a run with another config:\n" + "\n".join(lines) + f"\n{mend}"
    )


def settings(config: configs.Config) -> dict[str, Any]:
  """All values of a config by dotted name, code by its present name.

  A config of an older rtune may name the same code by another.
  """
  values = leaves(dataclasses.asdict(config))
  return {k: current(v) if isinstance(v, str) and ":" in v else v for k, v in values.items()}


def write_config(workdir: pathlib.Path, config: configs.Config) -> None:
  """Writes the config of a run into its workdir."""
  write_whole(workdir / CONFIG, configs.to_json(config) + "\n")


def write_found(workdir: pathlib.Path, found: Sequence[str]) -> None:
  """Writes what is odd about the data of a run, for its report."""
  write_whole(workdir / FOUND, json.dumps(list(found), indent=2, ensure_ascii=False) + "\n")


def read_found(workdir: pathlib.Path) -> tuple[str, ...]:
  """What `write_found` wrote; () where there is nothing to read, as in older runs."""
  try:
    found = json.loads((workdir / FOUND).read_text())
  except (OSError, ValueError):
    return ()
  return tuple(map(str, found)) if isinstance(found, list) else ()


def leaves(tree: Any, prefix: str = "") -> dict[str, Any]:
  """Nested dicts as {dotted name: value}; lists are tuples, as JSON has no tuples."""
  if isinstance(tree, Mapping):
    pairs = (leaves(value, f"{prefix}.{key}" if prefix else key) for key, value in tree.items())
    return {name: value for pair in pairs for name, value in pair.items()}
  return {prefix: as_tuples(tree)}


def read_results(workdir: pathlib.Path) -> dict[str, Any]:
  """What the phases that are complete came to; {} for none.

  Raises:
    UsageError: the file is damaged.
  """
  path = workdir / RESULTS
  if not path.is_file():
    return {}
  try:
    results = parse_json(path.read_text())
  except (OSError, ValueError) as error:
    raise _damaged(path, str(error)) from error
  tables = list(results.values()) if isinstance(results, dict) else [None]
  if not all(isinstance(table, dict) for table in tables):
    raise _damaged(path, "it holds no table of phases")
  if not all(isinstance(v, (int, float)) for table in tables for v in table.values()):
    raise _damaged(path, "it holds something else than numbers")
  return results


def results_problem(workdir: pathlib.Path) -> str:
  """What is wrong with results.json: "missing", "damaged", or "" for nothing."""
  if not (workdir / RESULTS).is_file():
    return "missing"
  try:
    read_results(workdir)
  except UsageError:
    return "damaged"
  return ""


def _damaged(path: pathlib.Path, problem: str) -> UsageError:
  return UsageError(
    f"{path} is damaged ({problem}). Delete it: the command that trained the run makes it anew."
  )


def rebuild_results(
  workdir: pathlib.Path, spans: Mapping[str, tuple[int, int]], rows: Sequence[Mapping[str, Any]]
) -> list[str]:
  """Makes results.json anew where it was lost, from weights and the log; returns the phases in it.

  Args:
    spans: first and last step in the log of the phases that must be complete.
    rows: of the log.

  Raises:
    UsageError: the weights of such a phase are gone, or its last evaluation.
  """
  found: dict[str, dict[str, float]] = {}
  for name, (first, last) in spans.items():
    own = [row for row in rows if first < row["step"] <= last]
    final = {k: v for row in own if row["step"] == last for k, v in row.items() if is_score(k)}
    path = weights_path(workdir, name)
    if not final or not path.is_file() or manifest.altered(path):
      raise UsageError(
        f"{workdir / RESULTS} is missing or damaged and cannot be made anew: there are no whole "
        f"weights or no last evaluation of the phase {name}. Restore it, or use another --workdir."
      )
    found[name] = final
    spent = sum(v for row in own for k, v in row.items() if k.startswith("time/"))
    found.setdefault("seconds", {})[name] = round(spent, 1)
  write_whole(workdir / RESULTS, json.dumps(found, indent=2) + "\n")
  return list(spans)


def is_score(name: str) -> bool:
  """Whether a name of the log is of an evaluation: "val/AR", not "reward/mean"."""
  return "/" in name and name.partition("/")[0] not in ("time", "seconds", "reward")


def add_results(
  workdir: pathlib.Path, phase: str, values: dict[str, float], seconds: float
) -> None:
  """Marks a phase as complete; the last thing that a phase does."""
  results = read_results(workdir)
  results[phase] = values
  results["seconds"] = {**results.get("seconds", {}), phase: round(seconds, 1)}
  write_whole(workdir / RESULTS, json.dumps(results, indent=2) + "\n")


def save_pictures(results: pathlib.Path, pictures: Mapping[str, np.ndarray]) -> None:
  """Writes what a results file refers to into the folder beside it that has its name."""
  folder = results.with_suffix("") if results.suffix else results.with_name(f"{results.name}_masks")
  for name, picture in pictures.items():
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(folder / name)


def write_csv(path: pathlib.Path, rows: Sequence[Mapping[str, object]]) -> None:
  """A table as CSV, its columns in order of first use; without rows it is only a line break."""
  columns = list(dict.fromkeys(name for row in rows for name in row))
  text = io.StringIO()
  writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
  writer.writeheader()
  writer.writerows(rows)
  write_whole(path, text.getvalue())

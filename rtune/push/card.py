"""The card of a model on a hub, from what its run has left: Markdown with a head of YAML."""

import importlib.metadata
import json
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rtune import config as configs
from rtune.display import console
from rtune.store import run_files
from rtune.tasks.task import view
from rtune.training import restore
from rtune.training.phases import phase_of, planned
from rtune.training.restore import Restored

_LONGEST = 80  # characters of an argument
_USE = """\
```python
import rtune  # pip install 'rtune[hub]'

model = rtune.load("hf://{repo}")
answers = model.predict(["photo.jpg"])
```

Or `python -m rtune.predict --workdir hf://{repo} --out predicted photo.jpg`."""


def card(run: Restored, repo: str, other: Restored | None = None, license: str = "") -> str:
  """The text of README.md.

  Args:
    repo: user/name on the hub.
    other: a run whose numbers stand beside, such as the control.
    license: of the weights, as the hub names it; "": none is given.
  """
  name, task = repo.rpartition("/")[2], run.config.task.fn.rpartition(":")[2]
  sections = {
    "Use": _USE.format(repo=repo),
    "What it was trained for": _table(("", ""), list(_facts(run))),
    "Results": _results(run, other),
    "Training": _table(_TRAINING, [*_training(run)]),
    "Config": f"All settings are in [{run_files.CONFIG}]({run_files.CONFIG}).",
    "License": license or "No license was given.",
  }
  version = importlib.metadata.version("rtune")
  said = f"{task}, trained with rtune {version}: {_story(run)}"
  body = "\n\n".join(f"## {title}\n\n{text}" for title, text in sections.items() if text)
  return f"{_head(task, license)}\n# {name}\n\n{said}\n\n{body}\n"


def _head(task: str, license: str) -> str:
  """JSON strings are YAML, whatever they hold."""
  lines = [f"license: {json.dumps(license)}"] if license else []
  tags = json.dumps(["rtune", "reinforce", task.lower()])
  return "\n".join(["---", "library_name: rtune", *lines, f"tags: {tags}", "---", ""])


def _story(run: Restored) -> str:
  labels = [phase_of(name).label for name in restore.finished(run)]
  tuned = "reward" in restore.finished(run)
  how = (
    "[REINFORCE](https://arxiv.org/abs/2302.08242), which makes samples likelier that beat others"
  )
  return ", then ".join(labels) + (f" by {how}." if tuned else ".")


def _facts(run: Restored) -> Iterator[tuple[str, str]]:
  config = run.config
  yield "task", _called(config.task.fn, config.task.args)
  yield "policy", _called(config.policy.fn, config.policy.args)
  if {"reward", "actor_critic"} & {*config.phases}:
    for part in config.reward.fns or (configs.Weighted(config.reward.fn, config.reward.args),):
      weight = "" if part.weight == 1 else f"{part.weight:g} x "
      yield "reward", weight + _called(part.fn, part.args)
  yield "trained on", _called(config.data.train.fn, config.data.train.args)
  yield "judged by", _called(config.data.val.fn, config.data.val.args)
  for key in ("init_from", "codes_init", "encoder_init", "warm_start"):
    if getattr(config, key):
      yield key, _short(getattr(config, key))


def _called(fn: str, args: Mapping[str, Any]) -> str:
  given = ", ".join(f"{key}={_short(value)}" for key, value in args.items())
  return f"`{_short(fn)}({given})`"


def _short(value: Any) -> str:
  """A value as a card may show it: of a path on a disk its last part, of a long one its start."""
  if isinstance(value, str) and not value.startswith("hf://"):
    place, colon, attribute = value.rpartition(":") if ".py:" in value else (value, "", "")
    value = pathlib.PurePath(place).name + colon + attribute if "/" in place else value
  text = str(value).replace("|", "/").replace("\n", " ").replace("`", "'")
  return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def _results(run: Restored, other: Restored | None) -> str:
  """One row a phase; of the other run its control, else its last phase."""
  rows = list(_rows(run, restore.finished(run), ""))
  if other is not None:
    there = restore.finished(other)
    compared = "control" if "control" in there else there[-1]
    last = len(rows) - (1 if rows and restore.finished(run)[-1] == "reward" else 0)
    rows[last:last] = _rows(other, [compared], f" ({other.folder.absolute().name})")
  if not rows:
    return ""
  # The numbers that matter first.
  first = [f"val/{name}" for name in view(run.task).headline]
  names = {name: None for _, values in rows for name in values}
  names = [name for name in dict.fromkeys((*first, *names)) if name in names]
  lines = [[label, *(_number(values.get(name)) for name in names)] for label, values in rows]
  return _table(["", *(name.removeprefix("val/") for name in names)], lines)


def _rows(
  run: Restored, phases: Sequence[str], suffix: str
) -> Iterator[tuple[str, dict[str, float]]]:
  results = run_files.read_results(run.folder)
  for name in phases:
    if results.get(name):
      yield phase_of(name).label + suffix, results[name]


def _number(value: float | None) -> str:
  return "" if value is None else f"{value:.4g}"


_TRAINING = ("phase", "steps", "images a step", "samples", "optimizer, rate, schedule", "time")


def _training(run: Restored) -> Iterator[tuple[str, ...]]:
  spent = run_files.read_results(run.folder).get("seconds", {})
  for name, _, _ in planned(run.config):
    phase, optim = getattr(run.config, name), getattr(run.config, name).optim
    yield (
      phase_of(name).label,
      str(phase.steps),
      str(phase.batch_size),
      str(getattr(phase, "num_samples", "")),
      f"{optim.name}, {optim.lr:g}, {optim.schedule}",
      console.duration(spent[name]) if name in spent else "",
    )


def _table(names: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
  lines = [names, ["---"] * len(names), *rows]
  return "\n".join(f"| {' | '.join(line)} |" for line in lines)

"""The data that a config names: opened, compared, and what is odd about them told."""

import inspect
from collections.abc import Mapping
from typing import NamedTuple

from rtune import config as configs
from rtune.config import data_args
from rtune.config.names import build_part, resolve
from rtune.data import classes, findings
from rtune.data.source import Categories, Source
from rtune.errors import DataError


class Opened(NamedTuple):
  """Sources by what they are for.

  Attributes:
    splits: what is evaluated on beside `val`.
    target: another domain to adapt to; None where there is none.
    found: what is odd about them.
  """

  train: Source
  val: Source
  splits: Mapping[str, Source]
  target: Source | None
  found: tuple[str, ...]


def open_all(data: configs.Data) -> Opened:
  """Opens all data of a run, with classes in the order of the training data.

  Raises:
    UsageError: an argument that there is not.
    DataError: what is wrong with the files, other classes, or nothing to learn from or to score.
  """
  train, val = open_part(data.train, "data.train"), open_part(data.val, "data.val")
  named = {
    f"data.splits.{name}": open_part(p, f"data.splits.{name}") for name, p in data.splits.items()
  }
  target = open_part(data.target, "data.target") if data.target.fn else None
  scored = {"data.val": val, **named}
  scored = {name: same_classes(train, source, name) for name, source in scored.items()}
  target = same_classes(train, target, "data.target") if target else None
  learned, others = {"data.train": train}, {"data.target": target} if target else {}
  found = findings.tell({**learned, **scored, **others})
  for name, source in {**learned, **scored}.items():
    findings.check_usable(name, source)
  splits = {name: scored[f"data.splits.{name}"] for name in data.splits}
  return Opened(train, scored["data.val"], splits, target, found)


def open_part(part: configs.Part, name: str, prefix: str = "") -> Source:
  """Opens one; an error says how its arguments are set, by default as `main` does it.

  Args:
    name: where it stands in the config.
    prefix: of flags that set its arguments.

  Raises:
    UsageError: an argument that there is not.
    DataError: what is wrong with the files, or an argument that is needed was left empty.
  """
  source = resolve(part.fn)
  for argument, parameter in inspect.signature(source).parameters.items():
    if parameter.default is parameter.empty and part.args.get(argument) == "":
      key = f"config.{name}.args.{argument}"
      raise DataError(
        f"{key} is empty; name your own: {prefix or f'--config.{name}.args.'}{argument}=..."
      )
  with data_args.hinting(source, name, prefix):
    return build_part(part, name)


def same_classes(train: Source, other: Source, name: str) -> Source:
  """A source in the order of the training data's classes; DataError where it has others."""
  if not isinstance(train, Categories) and not isinstance(other, Categories):
    return other
  names, ids = (train.classes, train.category_ids) if isinstance(train, Categories) else ((), ())
  return classes.same_classes(other, names, ids, name, "Training data")

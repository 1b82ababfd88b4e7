"""The data that a finished run is judged on: its own, or a user's file with the same classes."""

import dataclasses
import inspect
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from rtune import config as configs
from rtune.config import data_args
from rtune.config.names import check_args
from rtune.data import classes, findings
from rtune.data.source import Source
from rtune.errors import UsageError
from rtune.tasks.task import Task, knowledge, view
from rtune.training.restore import Restored
from rtune.training.sources import open_part

_PREFIX = "--data."  # of flags that set arguments of the data


def open_source(
  run: Restored,
  annotations: str = "",
  images: str = "",
  split: str = "",
  args: Mapping[str, Any] = MappingProxyType({}),
) -> Source:
  """The run's validation data, another of its splits, or a user's file with the same classes.

  Args:
    args: of the source, over those that the run has.

  Raises:
    UsageError: the run has no such split.
    DataError: what is wrong with the data, or that its classes are others.
  """
  data = run.config.data
  if annotations:
    name, source = annotations, _users(run, annotations, images, args)
  else:
    if split and split not in data.splits:
      known = ", ".join(data.splits) or "none"
      raise UsageError(f"{run.folder} has no split {split!r} in data.splits; there is {known}.")
    name, part = (f"data.splits.{split}", data.splits[split]) if split else ("data.val", data.val)
    source = open_part(configs.Part(part.fn, {**part.args, **args}), name, _PREFIX)
  known = knowledge(run.task).knows(("category_ids", "classes"))
  if known.get("category_ids") is not None:  # a task that knows no classes takes any
    given = known.get("classes", ()), known["category_ids"]
    source = classes.same_classes(source, *given, name, "The model's training data")
  findings.tell({name: source})
  findings.check_usable(name, source)
  return source


def task_of(run: Restored, source: Source) -> Task:
  """The run's task, which calls classes in results files as the files of `source` do."""
  if not isinstance(source, classes.Relabeled):
    return run.task
  return dataclasses.replace(run.task, category_ids=source.own_ids)


def _users(run: Restored, annotations: str, images: str, args: Mapping[str, Any]) -> Source:
  open_users = view(run.task).source
  if open_users is None:
    raise UsageError(
      f"{run.config.task.fn} does not say how annotation files are read (view.source); leave out "
      "--annotations to evaluate on the run's own validation data."
    )
  accepted = inspect.signature(open_users).parameters
  own = {k: v for k, v in run.config.data.val.args.items() if k in data_args.INHERITED}
  args = {**{k: v for k, v in own.items() if k in accepted}, **args}
  images = args.pop("images", images)
  with data_args.hinting(open_users, "data", _PREFIX):
    check_args(open_users, args, "data", given=2)
    return open_users(annotations, images, **args)

"""Ids of images, categories and annotations as people write them: numbers, in quotes, or names."""

import itertools
from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple

from rtune.data.files import validate

_LARGEST = 2**63 - 1


class Ids(NamedTuple):
  """The ids of a list of records.

  Attributes:
    numbers: of each record, those of the file where they are whole numbers of 63 bits.
    rows: what `key` makes of an id -> its place in the list.
  """

  numbers: list[int]
  rows: dict[Hashable, int]

  def row(self, value: object) -> int | None:
    """The record that an id means; None where none does."""
    return self.rows.get(key(value))


def key(value: object) -> int | str | None:
  """What two ways to write one id have in common; None where it is no id.

  1, 1.0 and "1" are one id, as tools write them. Other text is an id, too, such as the name of a
  file.
  """
  if type(value) is int:
    return value
  if isinstance(value, float):
    return int(value) if value.is_integer() else None
  if not isinstance(value, str) or not value.strip():
    return None
  text = value.strip()
  digits = text.removeprefix("-")
  return int(text) if digits.isascii() and digits.isdigit() and len(digits) < 40 else text


def number(records: Sequence[Any], kind: str, report: validate.Report) -> Ids:
  """The ids of records; those that are missing or used twice are errors.

  Names, and numbers above 63 bits, get numbers in the order of the file, which is a warning.
  """
  values = [record.get("id") for record in records]
  plain = set(map(type, values)) <= {int} and len(set(values)) == len(values)
  if plain and max(map(abs, values), default=0) <= _LARGEST:
    return Ids(values, {value: row for row, value in enumerate(values)})
  keys = [key(value) for value in values]
  rows: dict[Hashable, int] = {}
  for row, one in enumerate(keys):
    if one is None:
      report.error(*missing(f"{kind}[{row}]", records[row], "id"))
    elif one in rows:
      report.error(f"{kind} with an id used before", "Give each its own id", f"id {one}")
    else:
      rows[one] = row
  _warn_of_quotes(values, keys, kind, report)
  return Ids(_numbers(keys, kind, report), rows)


def missing(name: str, record: Any, field: str) -> tuple[str, str, str]:
  """Kind, mend and example of an error: a record without a usable id."""
  what = f"{field} {record[field]!r:.40}" if field in record else f"no {field}"
  kind = "ids that are missing or not whole numbers"
  return kind, "Give each a whole number", f"{name} ({what})"


def _warn_of_quotes(
  values: Sequence[Any], keys: Sequence[Hashable], kind: str, report: validate.Report
) -> None:
  for row, (value, one) in enumerate(zip(values, keys, strict=True)):
    if isinstance(value, str) and isinstance(one, int):
      what = f"{kind}[{row}] (id {value!r:.40})"
      report.warn(f"{kind} whose ids are in quotes", "Read as numbers", what)


def _numbers(keys: Sequence[Hashable], kind: str, report: validate.Report) -> list[int]:
  """Whole numbers as they are; others get those that are left, from 1."""
  plain = {one for one in keys if isinstance(one, int) and abs(one) <= _LARGEST}
  left = (number for number in itertools.count(1) if number not in plain)
  found = []
  for row, one in enumerate(keys):
    if one in plain or one is None:
      found.append(one or 0)  # 0 for none is never used: an error is noted
      continue
    found.append(next(left))
    if kind != "annotations":  # their ids are written nowhere
      what = "whose ids are names" if isinstance(one, str) else "whose ids are too large (2^63 on)"
      mend = "Numbered in the order of the file, from 1; results have these numbers"
      report.warn(f"{kind} {what}", mend, f"{kind}[{row}] ({one!r:.40} is {found[-1]})")
  return found

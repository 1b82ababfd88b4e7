"""The classes of masks: names, and what stands for each in files, as people write it down."""

import csv
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from rtune.data.files import validate
from rtune.data.files.label_layouts import IDS
from rtune.data.files.label_masks import Coding
from rtune.errors import DataError, UsageError
from rtune.predictions.labels import IGNORE

_HEX = re.compile(r"#[0-9a-fA-F]{6}")
_THREE = re.compile(r"(\d{1,3})[ ,;]+(\d{1,3})[ ,;]+(\d{1,3})")
_NUMBER_KEYS = ("index", "id", "value", "number")
_NAME_KEYS = ("readable", "name", "class", "label")
_LIST_KEYS = ("classes", "labels", "categories")
_CHANNELS = ("r", "g", "b")


class Listed(NamedTuple):
  """One class of a list; None where the list does not say."""

  name: str
  number: int | None = None
  color: int | None = None


class Classes(NamedTuple):
  """Classes and how files say them.

  Attributes:
    names: label k is `names[k]`.
    ids: the first number that stands for each class; 0, 1, ... where one has none.
    coding: of their masks.
  """

  names: tuple[str, ...]
  ids: tuple[int, ...]
  coding: Coding


def resolve(
  classes: str | Sequence[Any],
  *,
  ids: str | Mapping[Any, Any] | None = None,
  colors: Mapping[Any, Any] | Sequence[Any] | None = None,
  ignore: Sequence[Any] = (),
  divisor: int = 0,
) -> Classes:
  """What the settings of a source of masks say together.

  Args:
    classes: names, or `Listed`, or the path of a file; see `read_list`.
    ids: number in files -> class, as its place in `classes`, as its name, or -1 to ignore it; or
      the name of such a table in `label_layouts`. None: as `classes` numbers them, or 0, 1, ...
    colors: color -> class in the same way, or a list of colors in the order of `classes`. Colors
      are [r, g, b] or text such as "128, 64, 128" or "#804080". None: as in the file of `classes`.
    ignore: numbers, colors as text, and names of `classes` that nobody is to learn.
    divisor: of files with 16 bits, number // divisor counts.

  Raises:
    UsageError: the setting that makes no sense.
    DataError: the file of classes cannot be used.
  """
  if isinstance(ids, str):
    if ids not in IDS:
      raise UsageError(f"`ids` is {ids!r}; the tables are {', '.join(IDS)}.")
    ids = IDS[ids]
  found = read_list(classes) if isinstance(classes, str) else [_listed(one) for one in classes]
  names = tuple(one.name for one in found if one.name not in ignore)
  _check_names(names)
  numbered = any(one.number is not None for one in found)
  own = [one.number if numbered else place for place, one in enumerate(found)]
  numbers, table = _by_number(own, found, names), _by_color(found, names)
  if ids is not None:
    numbers = {_number(key): _class(value, names, "ids") for key, value in ids.items()}
  if colors is not None:
    table = _colors(colors, names)
  ignored = [value for value in ignore if value not in {one.name for one in found}]
  numbers |= {value: IGNORE for value in ignored if isinstance(value, int)}
  table |= {_ignored_color(value): IGNORE for value in ignored if not isinstance(value, int)}
  coding = Coding(numbers, table, colors is not None, divisor or int(ids is not None or numbered))
  return Classes(names, _first_numbers(numbers, len(names)), coding)


def read_list(path: str) -> list[Listed]:
  """The classes that a file lists, in its order.

  A JSON is a list of names or of records, or has such a list as `classes`, `labels` or
  `categories`; records have `name` (or `readable`), and may have `id` (or `index`) and `color`
  [r, g, b]. A CSV has a head with these names, or with r, g, b. Any other text has one name a line,
  maybe after a color of three numbers, as CamVid's label_colors.txt has.

  Raises:
    DataError: naming the file and what is wrong.
  """
  path = os.path.expanduser(path)
  if path.lower().endswith(".json"):
    data = validate.load_json(path)
    if isinstance(data, dict):
      data = next((data[key] for key in _LIST_KEYS if key in data), None)
    return from_records(data, path)
  lines = validate.load_lines(path)
  if path.lower().endswith(".csv"):
    rows = csv.DictReader(lines, skipinitialspace=True)
    return from_records([{k.strip().lower(): v for k, v in row.items() if k} for row in rows], path)
  return [_of_line(line) for line in lines]


def from_records(records: Any, path: str) -> list[Listed]:
  """The classes of a list of names or records; DataError, naming the file and the record."""
  if not isinstance(records, list) or not records:
    raise DataError(f"{path} lists no classes. Write a list of names, or of {{id, name, color}}.")
  found = []
  for row, record in enumerate(records):
    record = {"name": record} if isinstance(record, str) else record
    known = record if isinstance(record, dict) else {}
    name = next((known[key] for key in _NAME_KEYS if known.get(key)), None)
    if not isinstance(name, str):
      raise DataError(f"{path}, class {row}: {record!r:.60} has no `name`. Give each a name.")
    number = next((known[key] for key in _NUMBER_KEYS if known.get(key) not in (None, "")), None)
    color = known.get("color") or [known[key] for key in _CHANNELS if key in known] or None
    try:
      number = None if number is None else _number(number)
      found.append(Listed(name, number, None if color is None else color_of(color)))
    except UsageError as error:
      raise DataError(f"{path}, class {row} ({name}): {error}") from error
  if len({one.number is None for one in found}) > 1:
    raise DataError(f"{path}: some classes have an id and some have none. Give all of them one.")
  return found


def color_of(value: Any) -> int:
  """R + 256 G + 65536 B of a color as people write it; UsageError where it is none."""
  if isinstance(value, str) and _HEX.fullmatch(value.strip()):
    parts: Sequence[Any] = list(bytes.fromhex(value.strip()[1:]))
  elif isinstance(value, str):
    match = _THREE.fullmatch(value.strip(" ()[]"))
    parts = match.groups() if match else ()
  else:
    parts = value if isinstance(value, list | tuple) else ()
  if len(parts) != 3 or not all(str(p).strip().isdigit() and int(p) < 256 for p in parts):
    raise UsageError(f"{value!r} is no color. Write [r, g, b], 'r, g, b' or '#rrggbb', each to 255")
  red, green, blue = (int(part) for part in parts)
  return red + 256 * green + 65536 * blue


def _listed(value: Any) -> Listed:
  return value if isinstance(value, Listed) else Listed(str(value))


def _of_line(line: str) -> Listed:
  match = re.match(rf"{_THREE.pattern}\s+(.+)", line)
  return (
    Listed(match[4].strip(), None, color_of(list(match.groups()[:3]))) if match else Listed(line)
  )


def _check_names(names: tuple[str, ...]) -> None:
  if not names:
    raise UsageError(
      "`classes` is empty. Give the names of the classes, or a file with one on each line, or a "
      "JSON or CSV with id, name, color."
    )
  twice = next((name for name in names if names.count(name) > 1), None)
  if twice is not None:
    raise UsageError(f"`classes` has {twice!r} twice. Give each class its own name.")


def _by_number(
  numbers: Sequence[int | None], found: Sequence[Listed], names: tuple[str, ...]
) -> dict[int, int]:
  """Class by the number that a list says; IGNORE for what is listed and no class."""
  twice = next(
    (one.name for n, one in zip(numbers, found, strict=True) if numbers.count(n) > 1), ""
  )
  if twice:
    raise UsageError(f"`classes` has the id of {twice!r} twice. Give each class its own.")
  labels = [names.index(one.name) if one.name in names else IGNORE for one in found]
  return dict(zip(numbers, labels, strict=True))


def _by_color(found: Sequence[Listed], names: tuple[str, ...]) -> dict[int, int]:
  """As `_by_number`. Colors of several classes, as some sets have for drawing, stand for none."""
  colors = [one.color for one in found]
  return {
    one.color: names.index(one.name) if one.name in names else IGNORE
    for one in found
    if one.color is not None and colors.count(one.color) == 1
  }


def _number(value: Any) -> int:
  """A number of a file of masks. JSON knows text alone as the key of a table."""
  text = str(value).strip()
  if isinstance(value, bool) or not text.isdigit() or int(text) > 65535:
    raise UsageError(f"{value!r} is no number of a mask. Write whole numbers from 0 to 65535")
  return int(text)


def _class(value: Any, names: tuple[str, ...], setting: str) -> int:
  if isinstance(value, str) and value in names:
    return names.index(value)
  if isinstance(value, int) and (value == IGNORE or 0 <= value < len(names)):
    return int(value)
  raise UsageError(
    f"`{setting}` names the class {value!r}. There are 0 to {len(names) - 1}, their names, and "
    f"{IGNORE} for what is ignored"
  )


def _colors(colors: Mapping[Any, Any] | Sequence[Any], names: tuple[str, ...]) -> dict[int, int]:
  if isinstance(colors, Mapping):
    return {color_of(key): _class(value, names, "colors") for key, value in colors.items()}
  if len(colors) != len(names):
    raise UsageError(f"`colors` lists {len(colors)} colors for {len(names)} classes. Give one each")
  return {color_of(value): label for label, value in enumerate(colors)}


def _ignored_color(value: Any) -> int:
  try:
    return color_of(value)
  except UsageError as error:
    raise UsageError(f"`ignore` has {value!r}, which is no number, class or color") from error


def _first_numbers(numbers: Mapping[int, int], classes: int) -> tuple[int, ...]:
  first: dict[int, int] = {}
  for number in sorted(numbers):
    first.setdefault(numbers[number], number)
  known = all(label in first for label in range(classes))
  return tuple(first[label] if known else label for label in range(classes))

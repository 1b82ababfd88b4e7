"""Samples while training, in a workdir: what each answer was worth, and pictures.

samples.jsonl  a line for each answer: "step" of the log, "phase", "image" (its place in the
               validation data), "image_id", "answer" ("greedy", "sample 1", ...), "log_prob" in
               nats, "reward" and its "parts", "text" where answers are read, "picture"; numbers
               that are not finite are null
samples/       <step>_<image>.png, the answers for one image side by side
"""

import json
import pathlib
from collections.abc import Sequence
from typing import Any

from rtune.disk import parse_json, refusals, write_whole

FILE = "samples.jsonl"
FOLDER = "samples"
Row = dict[str, Any]
_KINDS = {"step": int, "phase": str, "image": int, "image_id": (int, str), "answer": str}
_KINDS |= {"parts": dict, "text": list}


def picture_path(folder: pathlib.Path, step: int, image: int) -> pathlib.Path:
  """Where the picture of one image is."""
  return folder / FOLDER / f"{step:08}_{image}.png"


def read(folder: pathlib.Path) -> list[Row]:
  """All lines by rising step; those that cannot be read are left out. [] where there are none."""
  try:
    lines = (folder / FILE).read_bytes().splitlines()
  except OSError:
    return []
  rows = [row for row in map(_parsed, lines) if row is not None]
  return sorted(rows, key=lambda row: row["step"])


def _parsed(line: bytes) -> Row | None:
  """A line as `add` writes it; None where it is none, since workdirs come from anywhere."""
  try:
    row = parse_json(line)
    whole = all(isinstance(row[name], kind) for name, kind in _KINDS.items())
    numbers = [row["reward"], row["log_prob"], *row["parts"].values()] if whole else []
  except (ValueError, TypeError, KeyError):
    return None
  fits = all(number is None or isinstance(number, (int, float)) for number in numbers)
  return row if whole and fits else None


def add(folder: pathlib.Path, rows: Sequence[Row]) -> None:
  """Writes a step's lines behind those of the steps before it; StorageError where it cannot."""
  step = min(row["step"] for row in rows)
  kept = [row for row in read(folder) if row["step"] < step]
  _write(folder, [*kept, *rows])


def drop_after(folder: pathlib.Path, step: int) -> None:
  """Forgets what came after `step`, since a run that is resumed there makes it again."""
  rows = read(folder)
  kept = [row for row in rows if row["step"] <= step]
  if len(kept) < len(rows):
    _write(folder, kept)
  for path in (folder / FOLDER).glob("*_*.png"):
    number = path.name.partition("_")[0]
    if number.isdigit() and int(number) > step:
      with refusals(path):
        path.unlink()


def _write(folder: pathlib.Path, rows: Sequence[Row]) -> None:
  text = "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows)
  write_whole(folder / FILE, text)

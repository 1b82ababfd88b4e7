"""What a run has drawn while it trained: the first and the last table of each phase."""

import pathlib
from collections.abc import Sequence

import numpy as np
from PIL import Image

from rtune.report import page
from rtune.store import sample_table
from rtune.store.sample_table import Row
from rtune.training.phases import phase_of


def tables(folder: pathlib.Path, phases: Sequence[str]) -> list[str]:
  """Parts of a section, [] where nothing has been drawn; the last table is open."""
  rows, parts = sample_table.read(folder), []
  for phase in phases:
    own = [row for row in rows if row["phase"] == phase]
    steps = sorted({row["step"] for row in own})
    for step in dict.fromkeys((*steps[:1], *steps[-1:])):
      shown = [row for row in own if row["step"] == step]
      body = [_image(folder, step, place, shown) for place in dict.fromkeys(_places(shown))]
      parts.append((f"{phase_of(phase).label}, step {step} of the log", "".join(body)))
  last = len(parts) - 1
  return [page.folded(name, body, is_open=at == last) for at, (name, body) in enumerate(parts)]


def _places(rows: Sequence[Row]) -> list[int]:
  return [row["image"] for row in rows]


def _image(folder: pathlib.Path, step: int, place: int, rows: Sequence[Row]) -> str:
  """The picture of one image's answers above what each is worth."""
  own = [row for row in rows if row["image"] == place]
  parts = dict.fromkeys(name for row in own for name in row["parts"])
  columns = [f"image {own[0]['image_id']}", "reward", *parts, "log p"]
  numbers = [[row["reward"], *map(row["parts"].get, parts), row["log_prob"]] for row in own]
  lines = [[row["answer"], *values] for row, values in zip(own, numbers, strict=True)]
  picture = _read(sample_table.picture_path(folder, step, place))
  shown = "" if picture is None else page.strip(picture, f"answers for {columns[0]}, step {step}")
  return shown + page.table(columns, lines)


def _read(path: pathlib.Path) -> np.ndarray | None:
  """A picture; None where there is none to be shown, since workdirs come from anywhere."""
  try:
    with Image.open(path) as image:
      return np.asarray(image.convert("RGB"))
  except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
    return None

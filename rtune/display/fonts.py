"""Fonts for names and captions of any script: Pillow's own, matplotlib's, then the machine's."""

import functools
import pathlib
from collections.abc import Sequence

import matplotlib
from matplotlib import font_manager, ft2font
from PIL import ImageFont

from rtune.display import console

_WIDE = "DejaVuSans.ttf"  # comes with matplotlib: Latin, Greek, Cyrillic, Arabic, Hebrew, ...


def load_font(size: int, text: str = "") -> ImageFont.FreeTypeFont:
  """A font with letters of about `size` pixels, which has those of the text if any font does."""
  path = _path_for(frozenset(text))
  return ImageFont.truetype(path, size) if path else ImageFont.load_default(size)


def legible(classes: Sequence[str], label: int) -> str:
  """The name of a class; its number where it has none, or none that a font here can write."""
  if label >= len(classes):
    return str(label)
  name = " ".join(classes[label].split())
  if _path_for(frozenset(name)) is not None:
    return name
  console.warn_once(
    "fonts",
    f"no font here has the letters of {name!r}: such classes are drawn as their numbers, from 0. "
    "Install one (Debian: apt install fonts-noto-core fonts-noto-cjk)",
  )
  return str(label)


@functools.cache
def _path_for(letters: frozenset[str]) -> str | None:
  """The first font with all letters: "" is Pillow's own, None: there is none."""
  needed = {ord(letter) for letter in letters if not letter.isspace()}
  return next((path for path in _paths() if needed <= _covered(path)), None)


@functools.cache
def _paths() -> tuple[str, ...]:
  own = pathlib.Path(matplotlib.get_data_path()) / "fonts" / "ttf" / _WIDE
  # Regular faces first, so that names do not come out bold or slanted. The last resort has every
  # letter, as a box.
  known = [face for face in font_manager.fontManager.ttflist if "LastResort" not in face.fname]
  found = sorted(known, key=lambda face: (face.style, str(face.weight), face.fname))
  regular = [f.fname for f in found if f.style == "normal" and f.weight in (400, "normal")]
  return ("", str(own), *dict.fromkeys(regular), *dict.fromkeys(f.fname for f in found))


@functools.cache
def _covered(path: str) -> frozenset[int]:
  """The code points that a font has; none of one that cannot be drawn in any size."""
  try:
    face = ft2font.FT2Font(path or ImageFont.load_default(12).path)
    return frozenset(face.get_charmap()) if face.scalable else frozenset()
  except (OSError, RuntimeError):
    return frozenset()

"""Degraded and clean pictures as files in folders, checked as a whole before training starts."""

import os
from collections.abc import Mapping
from typing import Any

from rtune.data.files import folder, picture_pairs, validate
from rtune.data.files.images import MAX_PIXELS, read_image
from rtune.data.files.picture_pairs import PairFolders
from rtune.data.source import Example
from rtune.errors import DataError, UsageError

# How well-known sets lie on disk. {split} and {scale} stand for these settings, {} for what the
# names of a pair share; `splits` is what a set calls its parts.
LAYOUTS: Mapping[str, Mapping[str, Any]] = {
  # github.com/csjunxu/PolyU-Real-World-Noisy-Images-Dataset: CroppedImages/..._real.JPG.
  "polyu": {
    "degraded": "CroppedImages",
    "clean": "CroppedImages",
    "degraded_name": "{}_real",
    "clean_name": "{}_mean",
  },
  # abdokamel.github.io/sidd, Small and Medium: Data/<scene>/0001_NOISY_SRGB_010.PNG.
  "sidd": {
    "degraded": "Data",
    "clean": "Data",
    "degraded_name": "{}NOISY_SRGB_{}",
    "clean_name": "{}GT_SRGB_{}",
  },
  # Set5, Set14, ... as github.com/JingyunLiang/SwinIR, testsets: LR_bicubic/X2/babyx2.png.
  "sr_benchmark": {
    "degraded": "LR_bicubic/X{scale}",
    "clean": "HR",
    "degraded_name": "{}x{scale}",
  },
  # data.vision.ee.ethz.ch/cvl/DIV2K: DIV2K_train_LR_bicubic/X2/0001x2.png.
  "div2k": {
    "degraded": "DIV2K_{split}_LR_bicubic/X{scale}",
    "clean": "DIV2K_{split}_HR",
    "degraded_name": "{}x{scale}",
    "splits": {"val": "valid"},
  },
}
_DEFAULTS: Mapping[str, str] = {"degraded_name": "{}", "clean_name": "{}", "listed": ""}


class Pairs:
  """A `PairSource` of two folders whose files have names in common.

  16-bit files are read as 8 bits and transparent pixels as white; clean pictures that are less than
  one degraded pixel too large are cut at the right and below. `warnings` tells so.

  Attributes:
    scale: sides of clean pictures over those of their degraded ones.
    paths: of the degraded pictures, in the order of the source.
    warnings: what was found and put right, one line for each kind; empty if nothing was.
  """

  def __init__(
    self,
    root: str = "",
    *,
    layout: str = "",
    degraded: str = "",
    clean: str = "",
    degraded_name: str = "",
    clean_name: str = "",
    scale: int = 1,
    split: str = "",
    holdout: float = 0.1,
    listed: str = "",
    least_side: int = 1,
    max_pixels: int = MAX_PIXELS,
    allow_outside_root: bool = False,
    check_images: bool = True,
  ):
    """Finds the pairs and looks at them.

    Args:
      root: folder that `degraded`, `clean` and `listed` start from.
      layout: name of a well-known one, of LAYOUTS; other settings go first.
      degraded: folder of what a model is given, searched with all that is in it.
      clean: folder of what it should give; may be the same one.
      degraded_name: pattern of their names, {} for what both of a pair share: "{}_noisy", "{}x2",
        or with an ending, "{}.png". "": "{}", equal names.
      clean_name: the same of the clean ones.
      scale: sides of clean pictures over those of degraded ones, 1 to 16.
      split: what {split} stands for in folders. Without a {split}: "val" for a share of the pairs,
        "train" for the others, by their names; empty for all of them.
      holdout: the share of "val".
      listed: text file with the degraded files to use, one a line, with or without ending.
      least_side: degraded pictures with a shorter side are refused: the side of a patch.
      max_pixels: larger files are refused.
      allow_outside_root: also read files whose links lead out of these folders.
      check_images: look at the header of every file now. Otherwise broken files and pairs of
        different sizes come to light while training.

    Raises:
      UsageError: a setting that makes no sense.
      DataError: one report of all that is wrong.
    """
    if not 1 <= scale <= 16:
      raise UsageError(f"Pairs: scale is {scale}; it must lie between 1 and 16")
    given = {
      "degraded": degraded,
      "clean": clean,
      "degraded_name": degraded_name,
      "clean_name": clean_name,
      "listed": listed,
    }
    where, part = _settings(root, layout, split, scale, given)
    folder.check_split("Pairs", part, holdout)
    report = validate.Report(where.degraded)
    self._pairs = picture_pairs.find(where, part, holdout, allow_outside_root, report)
    if check_images:
      picture_pairs.check(self._pairs, scale, least_side, max_pixels, report)
    report.raise_errors()
    self.paths = [pair.degraded for pair in self._pairs]
    self._max_pixels = max_pixels
    self.scale = scale
    self.warnings = report.warnings()

  def __len__(self) -> int:
    return len(self._pairs)

  def __getitem__(self, index: int) -> Example:
    """Reads one pair; raises DataError, naming the file, if that fails."""
    if not 0 <= index < len(self):
      raise IndexError(f"pair {index} of {len(self)}")
    pair = self._pairs[index]
    image, clean = (read_image(path, self._max_pixels) for path in (pair.degraded, pair.clean))
    size, clean_size = image.shape[:2], clean.shape[:2]
    if not picture_pairs.fits(size, clean_size, self.scale):
      what = picture_pairs.sizes_of(pair, size, clean_size)
      raise DataError(f"{what}, not {self.scale} times as large. Correct `scale`, or crop them.")
    clean = clean[: self.scale * size[0], : self.scale * size[1]]
    return {"image": image, "clean": clean, "image_id": pair.image_id}


def _settings(
  root: str, layout: str, split: str, scale: int, given: Mapping[str, str]
) -> tuple[PairFolders, str]:
  """Settings as given, else as the layout has them, else by default; and what is left to split."""
  if layout and layout not in LAYOUTS:
    raise UsageError(f"Pairs: layout is {layout!r}; there are {', '.join(LAYOUTS)}")
  chosen = {name: value for name, value in given.items() if value}
  settings = {**_DEFAULTS, **LAYOUTS.get(layout, {}), **chosen}
  called = settings.get("splits", {}).get(split, split)
  found, parted = {}, False
  for name in PairFolders._fields:
    text = settings.get(name, "")
    if not text and name != "listed":
      raise UsageError(f"Pairs: `{name}` is empty; name the folder, or a `layout`")
    if "{split}" in text and not split:
      raise UsageError(f"Pairs: `split` is empty and `{name}` is {text!r}; say 'train'")
    parted |= "{split}" in text
    text = text.replace("{split}", called).replace("{scale}", str(scale))
    if name.endswith("_name"):
      if "{}" not in text:
        raise UsageError(f"Pairs: `{name}` is {text!r}; write {{}} for what both files share")
      found[name] = text
    else:
      found[name] = os.path.join(os.path.expanduser(root), os.path.expanduser(text)) if text else ""
  where = PairFolders(**found)
  same = os.path.realpath(where.degraded) == os.path.realpath(where.clean)
  if same and where.degraded_name == where.clean_name:
    raise UsageError("Pairs: `degraded` and `clean` are the same files; set `clean_name`")
  if where.degraded_name.count("{}") != where.clean_name.count("{}"):
    raise UsageError("Pairs: `degraded_name` and `clean_name` must have as many {} each")
  return where, "" if parted else split

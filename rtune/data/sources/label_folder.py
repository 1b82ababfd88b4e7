"""Images and masks as files in folders, checked as a whole before training starts."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

from rtune.data.files import label_classes, label_pairs, validate
from rtune.data.files.images import MAX_PIXELS
from rtune.data.files.label_layouts import LAYOUTS
from rtune.data.files.label_pairs import Checks, Folders
from rtune.data.sources.label_files import LabelFiles
from rtune.errors import UsageError

_DEFAULTS: Mapping[str, Any] = {"mask_suffix": ".png", "ignore": (255,)}
_IN_ROOT = ("images", "masks", "listed")


class LabelFolder(LabelFiles):
  """A `LabelSource` of images in one folder and masks of the same names in another one.

  The mask of images/a/b.jpg is masks/a/b.png, or what the suffixes make of it.
  """

  def __init__(
    self,
    root: str = "",
    *,
    layout: str = "",
    split: str = "",
    images: str = "",
    masks: str = "",
    image_suffix: str = "",
    mask_suffix: str = "",
    listed: str = "",
    classes: str | Sequence[Any] = (),
    ids: str | Mapping[Any, Any] | None = None,
    divisor: int = 0,
    colors: Mapping[Any, Any] | Sequence[Any] | None = None,
    ignore: Sequence[Any] | None = None,
    unlabeled: bool = False,
    max_pixels: int = MAX_PIXELS,
    allow_outside_root: bool = False,
    check_images: bool = True,
    check_masks: int = 200,
  ):
    """Finds the pairs and looks at them.

    Args:
      root: folder that `images`, `masks`, `listed` and a file of `classes` start from.
      layout: name of a well-known one (`rtune.data.files.label_layouts`); other settings go first.
      split: what {split} stands for in folders and lists; a layout knows "train" and "val".
      images: folder of images.
      masks: folder of masks, PNG: gray values of 1 to 16 bits, indices of a palette, or colors.
      image_suffix: what names of images end with, left out of the name; "": ".jpg", ".png", ...
      mask_suffix: what names of masks have in its place, by default ".png"; with {} it is all of
        the name, and {} stands for what both share: "mask_{}.png".
      listed: text file with the names to use, one a line, with or without suffix.
      classes: names, or a file: one name a line, or JSON or CSV with id, name, color.
      ids: number in files -> class (place, name, or -1: ignored), or "cityscapes" for its labelIds;
        by default 0, 1, ... in the order of `classes`, or what their file says.
      divisor: for masks with 16 bits: number // divisor is looked up (Mapillary's instances: 256).
      colors: color ("r, g, b" or "#rrggbb") -> class, or a list of colors in the order of
        `classes`, for masks in colors; given here, it counts for palettes, too.
      ignore: numbers, colors or names of classes that nobody is to learn; by default 255.
      unlabeled: images without a mask are kept, all of their pixels ignored, as a set to adapt to.
      max_pixels: larger images are refused.
      allow_outside_root: also read files whose links lead out of these folders.
      check_images: look at the header of every image and mask now. Otherwise broken files come to
        light while training.
      check_masks: look at the contents of so many masks now, from the first on.

    Raises:
      UsageError: a setting that makes no sense.
      DataError: one report of all that is wrong.
    """
    given = {
      "images": images,
      "masks": masks,
      "image_suffix": image_suffix,
      "mask_suffix": mask_suffix,
      "listed": listed,
      "classes": classes,
      "ids": ids,
      "divisor": divisor,
      "colors": colors,
      "ignore": ignore,
    }
    settings = _settings(root, layout, split, given, masked=not unlabeled)
    report = validate.Report(settings["images"])
    meant = label_classes.resolve(
      settings["classes"],
      ids=settings.get("ids"),
      colors=settings.get("colors"),
      ignore=settings["ignore"],
      divisor=settings.get("divisor", 0),
    )
    where = Folders(*(settings.get(name, "") for name in Folders._fields))
    pairs = label_pairs.find(where, unlabeled, allow_outside_root, report)
    super().__init__(pairs, meant, Checks(max_pixels, check_images, check_masks), report)


def _settings(
  root: str, layout: str, split: str, given: Mapping[str, Any], *, masked: bool
) -> dict[str, Any]:
  """Settings as given, else as the layout has them, else by default; paths in full."""
  if layout and layout not in LAYOUTS:
    raise UsageError(f"LabelFolder: layout is {layout!r}; there are {', '.join(LAYOUTS)}.")
  chosen = {name: value for name, value in given.items() if value not in ("", (), [], 0, None)}
  if given["ignore"] is not None:
    chosen["ignore"] = given["ignore"]
  settings = {**_DEFAULTS, **LAYOUTS.get(layout, {}), **chosen}
  called = settings.get("splits", {}).get(split, split)
  for name in _IN_ROOT:
    text = settings.get(name, "")
    if not text and name != "listed" and (name != "masks" or masked):
      raise UsageError(f"LabelFolder: `{name}` is empty; name the folder, or a `layout`.")
    if "{split}" in text and not split:
      raise UsageError(f"LabelFolder: `split` is empty and `{name}` is {text!r}; say 'train'.")
    settings[name] = _path(root, text.replace("{split}", called)) if text else ""
  if isinstance(settings.get("classes", ()), str):
    settings["classes"] = _path(root, settings["classes"])
  return {"classes": (), **settings}


def _path(root: str, name: str) -> str:
  return os.path.join(os.path.expanduser(root), os.path.expanduser(name))

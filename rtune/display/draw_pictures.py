"""Restored pictures beside what was given and what is true, with a part of them enlarged.

Dimension key:
  H, W: height and width of the restored picture in pixels
  Y, X: those of all that is drawn
  C: channels, 1 or 3
"""

import numpy as np
from jaxtyping import UInt8
from PIL import Image

Picture = UInt8[np.ndarray, "h w c"]
_GAP = 4  # white pixels between pictures
_PART = 3  # the enlarged part is a third of each side, from the middle
_LOUDER = 4  # differences are shown so many times as large, around gray


def draw_pictures(
  given: Picture | None, picture: Picture, original: Picture | None
) -> UInt8[np.ndarray, "y x 3"]:
  """Given, restored, true, difference side by side; below each its middle, three times as large.

  Args:
    given: [Y, X, C]; enlarged by whole pixels where it is smaller. None: it is not shown.
    picture: [H, W, C].
    original: of the same size. None: neither it nor the difference is shown.
  """
  shown = [_colored(picture)]
  height, width = shown[0].shape[:2]
  if given is not None:
    low = Image.fromarray(_colored(given)).resize((width, height), Image.Resampling.NEAREST)
    shown.insert(0, np.asarray(low))
  if original is not None:
    wanted = _colored(original)
    difference = shown[-1].astype(np.int16) - wanted.astype(np.int16)
    shown += [wanted, np.clip(128 + _LOUDER * difference, 0, 255).astype(np.uint8)]
  if len(shown) == 1:
    return shown[0]
  return np.concatenate([_row(shown), _blank(_GAP, len(shown), width), _row(map(_middle, shown))])


def _colored(picture: Picture) -> UInt8[np.ndarray, "h w 3"]:
  return np.repeat(picture, 3, axis=-1) if picture.shape[-1] == 1 else picture


def _middle(picture: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w 3"]:
  """Its middle, as large as all of it."""
  height, width = picture.shape[:2]
  top, left = (side * (_PART // 2) // _PART for side in (height, width))
  part = picture[top : top + max(1, height // _PART), left : left + max(1, width // _PART)]
  return np.asarray(Image.fromarray(part).resize((width, height), Image.Resampling.NEAREST))


def _row(pictures) -> UInt8[np.ndarray, "h x 3"]:
  pictures = list(pictures)
  gap = np.full((pictures[0].shape[0], _GAP, 3), 255, np.uint8)
  parts = [part for picture in pictures for part in (gap, picture)]
  return np.concatenate(parts[1:], axis=1)


def _blank(height: int, count: int, width: int) -> UInt8[np.ndarray, "h x 3"]:
  return np.full((height, count * width + (count - 1) * _GAP, 3), 255, np.uint8)

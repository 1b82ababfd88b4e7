"""Data of any size without files: how long a step takes does not depend on what images show.

Images are noise; what is annotated is as much as COCO has, in numbers of classes and words too.
"""

import dataclasses
import operator
from collections.abc import Sequence
from typing import SupportsIndex

import numpy as np

from rtune.data.source import Example

_CAPTIONS, _CAPTION_WORDS = 5, 10  # of an image, of a caption


@dataclasses.dataclass(frozen=True)
class _Noise:
  """`num` square images of `size` pixels a side."""

  size: int = 640
  num: int = 64

  def __len__(self) -> int:
    return self.num

  def _example(self, index: SupportsIndex) -> tuple[Example, np.random.Generator]:
    index = operator.index(index)
    if not 0 <= index < self.num:
      raise IndexError(f"image {index} of {self.num}")
    rng = np.random.default_rng(index)
    image = rng.integers(0, 256, (self.size, self.size, 3), np.uint8)
    return {"image": image, "image_id": index}, rng


def _named(prefix: str, number: int) -> tuple[str, ...]:
  return tuple(f"{prefix}{index}" for index in range(number))


@dataclasses.dataclass(frozen=True)
class Boxes(_Noise):
  """A `DetectionSource`."""

  boxes: int = 20  # of an image
  classes: Sequence[str] = _named("class", 80)
  category_ids: Sequence[int] = tuple(range(80))

  def __getitem__(self, index: SupportsIndex) -> Example:
    example, rng = self._example(index)
    low = rng.uniform(0, 0.7 * self.size, (self.boxes, 2))
    high = low + rng.uniform(0.05 * self.size, 0.3 * self.size, (self.boxes, 2))
    boxes = np.concatenate([low, high], axis=1).astype(np.float32)
    return example | {
      "boxes": boxes,
      "labels": rng.integers(0, len(self.classes), self.boxes).astype(np.int32),
      "crowd": np.zeros(self.boxes, bool),
      "area": np.prod(boxes[:, 2:] - boxes[:, :2], axis=1),
    }


@dataclasses.dataclass(frozen=True)
class Captions(_Noise):
  """A `CaptionSource`; all `words` occur."""

  words: int = 10_000

  def references(self, limit: int = 0) -> list[tuple[str, ...]]:
    images = -(-self.words // (_CAPTIONS * _CAPTION_WORDS))
    return [self._captions(index) for index in range(min(limit or images, images))]

  def _captions(self, index: int) -> tuple[str, ...]:
    first = index * _CAPTIONS * _CAPTION_WORDS
    spoken = np.arange(first, first + _CAPTIONS * _CAPTION_WORDS) % self.words
    return tuple(
      " ".join(f"w{number}" for number in row) for row in spoken.reshape(_CAPTIONS, -1).tolist()
    )

  def __getitem__(self, index: SupportsIndex) -> Example:
    example, _ = self._example(index)
    return example | {"captions": self._captions(example["image_id"])}


@dataclasses.dataclass(frozen=True)
class Segments(_Noise):
  """A `SegmentSource`; segments are rectangles that fill the image."""

  grid: int = 4  # segments in a row and in a column
  classes: Sequence[str] = _named("class", 133)
  category_ids: Sequence[int] = tuple(range(133))
  things: Sequence[bool] = (True,) * 80 + (False,) * 53

  def __getitem__(self, index: SupportsIndex) -> Example:
    example, rng = self._example(index)
    place = np.arange(self.size) * self.grid // self.size
    segments = 1 + place[:, None] * self.grid + place[None]
    number = self.grid**2
    return example | {
      "segments": segments.astype(np.uint16),
      "labels": rng.integers(0, len(self.classes), number).astype(np.int32),
      "crowd": np.zeros(number, bool),
    }

"""What a dataset must be, and what it may offer beside: ask `isinstance(source, CaptionSource)`.

Any class with these members will do, none has to derive from here. isinstance sees members alone:
which keys an example has is a promise. What stands in front of another source has its members as
attributes, see `forward`.

Dimension key:
  C: classes
  H, W: height and width, another for each image
  I: images
  N: boxes or segments of one image
"""

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int

# One image and its annotation, as numpy arrays and plain values, before any transform.
Example = dict[str, Any]


@runtime_checkable
class Source(Protocol):
  """Random access to examples: a COCO folder, rendered scenes, a TFDS data source, a list.

  Every example has these; tasks that learn from pictures alone need no more.

  image: uint8 [H, W, 3], in RGB.
  image_id: int, which no other image of the source has.
  """

  def __len__(self) -> int: ...

  def __getitem__(self, index: int) -> Example: ...


@runtime_checkable
class Categories(Protocol):
  """What has classes: sources with labels, and tasks that have learned theirs.

  Attributes:
    classes: names; label k is `classes[k]`.
    category_ids: numbers of the classes in files, same order.
  """

  classes: Sequence[str]
  category_ids: Sequence[int]


def forward(wrapper: object, source: Source) -> None:
  """Gives a source in front of another one what else the other offers: classes, counts, ...

  No __getattr__: from Python 3.12 on the Protocols here would not see through it.
  """
  for name in dir(source):
    if not name.startswith("_") and not hasattr(wrapper, name):
      setattr(wrapper, name, getattr(source, name))


@runtime_checkable
class DetectionSource(Source, Categories, Protocol):
  """Images with boxes. Beside what every example has, there are

  boxes: float32 [N, 4] as (y0, x0, y1, x1) in pixels, within the image and with an area.
  labels: int32 [N], counted from 0.
  crowd: bool [N], whether a box is around many at once: never imitated, never counted as missed.
  area: float32 [N], pixels of the object itself, which decide on small, medium and large.
  """


@runtime_checkable
class SegmentSource(Source, Categories, Protocol):
  """Images cut into segments. Beside what every example has, there are

  segments: unsigned integers [H, W]; 0 is void, k is row k - 1 of what follows.
  labels: int32 [N], counted from 0.
  crowd: bool [N], whether a segment is of many things at once.

  Attributes:
    things: whether a class has instances, in the order of `classes`; the others are stuff.
  """

  things: Sequence[bool]


@runtime_checkable
class LabelSource(Source, Categories, Protocol):
  """Images with a class for each pixel. Beside what every example has, there is

  label_map: int16 [H, W], counted from 0; IGNORE of `rtune.predictions.labels` where nobody says.
  """


@runtime_checkable
class CaptionSource(Source, Protocol):
  """Images with captions. Beside what every example has, there are

  captions: tuple of one text or more, as people wrote them.
  """

  def references(self, limit: int = 0) -> Sequence[Sequence[str]]:
    """The captions of the first `limit` images; 0: of all, or of so many as stand for all."""
    ...


@runtime_checkable
class PairSource(Source, Protocol):
  """Degraded pictures with what they should look like. Beside what every example has, there is

  clean: uint8 [scale * H, scale * W, 3]; the image is what a model is given.

  Gray pictures have three equal channels. A `Source` that is not of pairs has clean pictures, which
  the task degrades itself.

  Attributes:
    scale: sides of clean pictures over those of images; 1 where only noise, blur, ... is removed.
  """

  scale: int


@runtime_checkable
class ClassCounts(Protocol):
  """Knows how often each class is annotated without reading images."""

  def class_counts(self) -> Int[np.ndarray, " C"]:
    """Boxes of each class, crowd regions not counted."""
    ...


@runtime_checkable
class BoxCounts(Protocol):
  """Knows how many boxes there are without reading images."""

  def box_counts(self) -> Int[np.ndarray, " I"]:
    """Boxes of each image, crowd regions not counted."""
    ...


@runtime_checkable
class SegmentCounts(Protocol):
  """Knows how many segments there are without reading images."""

  def segment_counts(self) -> Int[np.ndarray, " I"]:
    """Segments of each image."""
    ...


@runtime_checkable
class PixelCounts(Protocol):
  """Knows how many pixels each class has without reading images."""

  def pixel_counts(self) -> Int[np.ndarray, " C"]:
    """Pixels of each class, those that nobody has labeled not counted."""
    ...


@runtime_checkable
class Partial(Protocol):
  """Knows a part of each answer: enough for some rewards, too little to imitate.

  Attributes:
    unknown: what it does not know, in words.
  """

  unknown: str


@runtime_checkable
class Warns(Protocol):
  """Has looked at its files when it was opened.

  Attributes:
    warnings: what was found and put right, one line for each kind; empty if nothing was.
  """

  warnings: Sequence[str]


def warnings_of(source: Source) -> Sequence[str]:
  """What was found when a source was opened."""
  return source.warnings if isinstance(source, Warns) else ()

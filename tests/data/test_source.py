"""What sources offer is seen from outside, and kept in memory they offer the same."""

import inspect

import pytest

from rtune.data import source as sources
from rtune.data.cached import Cached
from rtune.data.scenes.captioned import CaptionedShapes
from rtune.data.scenes.clean import CleanScenes
from rtune.data.scenes.colored import ColoredShapes
from rtune.data.scenes.labeled import LabeledShapes
from rtune.data.scenes.panoptic import PanopticShapes
from rtune.data.scenes.shapes import Shapes
from rtune.data.sources.clean import CleanPictures
from rtune.data.sources.coco import CocoDetection
from rtune.data.sources.coco_captions import CocoCaptions
from rtune.data.sources.coco_labels import CocoLabels, PanopticLabels
from rtune.data.sources.coco_panoptic import CocoPanoptic
from rtune.data.sources.label_folder import LabelFolder
from rtune.data.sources.pairs import Pairs
from rtune.data.sources.photographs import Photographs
from rtune.data.sources.tfds import TfdsDetection
from rtune.data.sources.tfds_labels import TfdsLabels

KINDS = {
  name: kind
  for name, kind in vars(sources).items()
  if isinstance(kind, type) and kind.__module__ == sources.__name__
}
# isinstance sees members alone: what boxes and label maps have beside is in their examples.
LABELED = {"Source", "Categories", "DetectionSource", "LabelSource"}


def opened(kind, **attributes):
  """A source of files as it is when it has read them."""
  source = object.__new__(kind)
  vars(source).update(attributes)
  return source


FILES = {"warnings": ()}
CLASSES = {"classes": ("ant",), "category_ids": (3,)}
OFFERS = (
  (Shapes("val", 3), LABELED | {"ClassCounts"}),
  (PanopticShapes("val", 3), LABELED | {"SegmentSource"}),
  (LabeledShapes("val", 3), LABELED | {"PixelCounts"}),
  (CaptionedShapes("val", 3), {"Source", "CaptionSource"}),
  (ColoredShapes("val", 3), {"Source"}),
  (opened(CocoDetection, **FILES, **CLASSES), LABELED | {"ClassCounts", "BoxCounts", "Warns"}),
  (
    opened(CocoPanoptic, **FILES, **CLASSES, things=(True,)),
    LABELED | {"SegmentSource", "SegmentCounts", "Warns"},
  ),
  *(
    (opened(kind, **FILES, **CLASSES), LABELED | {"PixelCounts", "Warns"})
    for kind in (LabelFolder, CocoLabels, PanopticLabels)
  ),
  (opened(TfdsLabels, **CLASSES), LABELED | {"PixelCounts"}),
  (opened(CocoCaptions, **FILES), {"Source", "CaptionSource", "Warns"}),
  (opened(Photographs, **FILES), {"Source", "Warns"}),
  (CleanScenes("val", 3), {"Source"}),
  (opened(CleanPictures, **FILES), {"Source", "Warns"}),
  (opened(Pairs, **FILES, scale=2), {"Source", "PairSource", "Warns"}),
  (opened(TfdsDetection, **CLASSES), LABELED),
  ([{"image_id": 0}], {"Source"}),
)


@pytest.mark.parametrize(("source", "offered"), OFFERS, ids=lambda value: type(value).__name__)
def test_what_a_source_offers_kept_in_memory_or_not(source, offered):
  assert set(KINDS) >= offered
  for one in (source, Cached(source, 1), Cached(Cached(source, 1), 1)):
    assert {name for name, kind in KINDS.items() if isinstance(one, kind)} == offered


def test_what_is_offered_is_an_attribute():
  """From Python 3.12 on isinstance finds no members that __getattr__ makes up."""
  source = PanopticShapes("val", 3)
  cached = Cached(source, 1)
  for name in ("classes", "category_ids", "things"):
    assert inspect.getattr_static(cached, name) == getattr(source, name)
  labeled = LabeledShapes("val", 3)
  assert Cached(labeled, 1).pixel_counts().tolist() == labeled.pixel_counts().tolist()
  assert isinstance(source, sources.SegmentSource) and not isinstance(object(), sources.Source)

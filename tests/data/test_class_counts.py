"""How often classes are annotated, against counting by hand."""

import numpy as np

from rtune.data.class_counts import count, count_classes
from rtune.data.scenes.shapes import Shapes


def test_count_classes_reads_every_example_but_no_crowds():
  class Listed:
    classes = ("a", "b", "c")
    examples = (([2, 0, 2], [False, False, True]), ([], []), ([2], [False]))

    def __len__(self):
      return len(self.examples)

    def __getitem__(self, index):
      labels, crowd = self.examples[index]
      return {"labels": np.array(labels, np.int32), "crowd": np.array(crowd, bool)}

  assert count_classes(Listed()).tolist() == [1, 0, 2]


def test_count_classes_asks_the_source_first():
  class Counted:
    classes = ("a", "b")

    def __len__(self):
      return 1

    def __getitem__(self, index):
      raise AssertionError("images must not be read")

    def class_counts(self):
      return [3, 4]

  assert count_classes(Counted()).tolist() == [3, 4]


def test_count_classes_of_the_embedded_data():
  source = Shapes("train", 20)
  boxes_in_all = sum(len(source[index]["labels"]) for index in range(20))
  assert count_classes(source).sum() == boxes_in_all > 20


def test_pixels_that_nobody_has_labeled_do_not_count():
  class Maps:
    classes, category_ids = ("a", "b"), (0, 1)

    def __len__(self):
      return 2

    def __getitem__(self, index):
      label_map = np.array([[0, -1], [1, index]], np.int16)
      return {"image": np.zeros((2, 2, 3), np.uint8), "image_id": index, "label_map": label_map}

  unit, counts = count(Maps())
  assert unit == "pixels" and counts.tolist() == [3, 3]

"""mIoU and its kin against scikit-image, scikit-learn's numbers and their definition; by hand."""

import time

import numpy as np
import pytest
from PIL import Image
from skimage.metrics import contingency_table

from rtune.errors import DataError, UsageError
from rtune.metrics import labels as metric
from rtune.predictions.boundaries import boundary_f1
from rtune.predictions.labels import IGNORE

CLASSES = ("sky", "road", "car", "dog", "cup")


def pair(image_id, predicted, truth):
  return (
    {"image_id": image_id, "labels": np.array(predicted)},
    {"image_id": image_id, "label_map": np.array(truth, np.int16)},
  )


def random_pairs(seed, num=12, side=20, shown=(0, 1, 2)):
  """Blocks with noise and unlabeled pixels; of `shown` classes the last is predicted alone."""
  rng = np.random.default_rng(seed)
  pairs = []
  for image_id in rng.permutation(1000)[:num].tolist():
    truth = rng.choice(shown[:-1], (5, 5)).repeat(side // 5, 0).repeat(side // 5, 1)
    noise = rng.random(truth.shape) < 0.3
    predicted = np.where(noise, rng.choice(shown, truth.shape), truth)
    truth = np.where(rng.random(truth.shape) < 0.1, IGNORE, truth)
    pairs.append(pair(image_id, predicted.astype(np.int32), truth))
  return pairs


def collect(pairs, **settings):
  scorer = metric.segmentation(CLASSES, **settings)
  state = scorer.init()
  for prediction, truth in pairs:
    state = scorer.update(state, prediction, truth)
  return scorer, state


def score(pairs, **settings):
  scorer, state = collect(pairs, **settings)
  return scorer.compute(state)


def joined(pairs):
  """All labeled pixels of all images: (predicted, truth)."""
  predicted = np.concatenate([p["labels"].ravel() for p, _ in pairs])
  truth = np.concatenate([t["label_map"].ravel() for _, t in pairs])
  return predicted[truth != IGNORE], truth[truth != IGNORE]


@pytest.mark.parametrize("seed", range(3))
def test_is_its_definition(seed):
  pairs = random_pairs(seed)
  predicted, truth = joined(pairs)
  iou, accuracy, shares = [], [], []
  for label in range(len(CLASSES)):
    found, there = predicted == label, truth == label
    union = (found | there).sum()
    iou.append((found & there).sum() / union if union else np.nan)
    accuracy.append((found & there).sum() / there.sum() if there.any() else np.nan)
    shares.append(there.mean())
  assert iou[2] == 0 and np.isnan(iou[3]) and np.isnan(iou[4]) and np.isnan(accuracy[2])
  result = score(pairs)
  expected = {
    "mIoU": np.nanmean(iou),
    "mAcc": np.nanmean(accuracy),
    "aAcc": (predicted == truth).mean(),
    "fwIoU": np.nansum(np.array(shares) * np.array(iou)),
  }
  assert {name: result[name] for name in expected} == pytest.approx(expected, rel=1e-12)
  by_name = dict(zip(CLASSES, np.nan_to_num(iou, nan=-1), strict=True))
  scorer, state = collect(pairs)
  assert scorer.details(state) == pytest.approx(by_name, rel=1e-12)
  assert {name: result[f"IoU/{name}"] for name in CLASSES} == scorer.details(state)


def test_the_confusion_matrix_is_that_of_scikit_image():
  pairs = random_pairs(7, shown=(0, 1, 3, 4))
  _, state = collect(pairs)
  predicted, truth = joined(pairs)
  theirs = contingency_table(truth, predicted).toarray()
  found = metric.confusion(state, len(CLASSES))
  np.testing.assert_array_equal(found[: len(theirs), : theirs.shape[1]], theirs)
  assert found.sum() == theirs.sum() == len(truth)


def test_numbers_of_scikit_learn():
  """By scikit-learn 1.9.1 of `truth` and `found`, which are drawn here as they were there:

  print(confusion_matrix(truth, found).tolist())
  print(jaccard_score(truth, found, average="macro"), balanced_accuracy_score(truth, found))
  print(accuracy_score(truth, found), jaccard_score(truth, found, average="weighted"))
  """
  rng = np.random.default_rng(11)
  truth = rng.choice(4, 5000, p=(0.7, 0.2, 0.08, 0.02))
  found = np.where(rng.random(5000) < 0.7, truth, rng.integers(0, 4, 5000))
  pairs = [
    pair(k, *part)
    for k, part in enumerate(zip(found.reshape(5, 20, 50), truth.reshape(5, 20, 50), strict=True))
  ]
  scorer, state = collect(pairs, tolerance=0.0)
  counts = [[2749, 255, 268, 273], [70, 752, 80, 71], [30, 33, 309, 28], [3, 4, 10, 65]]
  assert metric.confusion(state, 5)[:4, :4].tolist() == counts
  means = {
    "mIoU": 0.4747133802150655,
    "mAcc": 0.7783771848200636,
    "aAcc": 0.775,
    "fwIoU": 0.6849199067919283,
  }
  values = scorer.compute(state)
  assert {name: values[name] for name in means} == pytest.approx(means, rel=1e-12)


def test_hand_computed():
  # Eight pixels: sky 3 of 4, road 1 of 2, one car pixel called dog, one that nobody has labeled.
  truth = [[0, 0, 0, 0, 1, 1, 2, IGNORE]]
  predicted = [[0, 0, 0, 1, 1, 0, 3, 4]]
  result = score([pair(1, predicted, truth)], tolerance=0.0)
  assert result == {
    "mIoU": pytest.approx((3 / 5 + 1 / 3 + 0 + 0) / 4),
    "mAcc": pytest.approx((3 / 4 + 1 / 2 + 0) / 3),
    "aAcc": pytest.approx(4 / 7),
    "fwIoU": pytest.approx(4 / 7 * 3 / 5 + 2 / 7 * 1 / 3),
    "IoU/sky": pytest.approx(3 / 5),
    "IoU/road": pytest.approx(1 / 3),
    "IoU/car": 0,
    "IoU/dog": 0,
    "IoU/cup": -1,
  }


def test_boundary_f1_is_a_mean_over_images_of_the_mean_over_their_classes():
  pairs = random_pairs(3, num=4)
  per_image = [
    np.nanmean(boundary_f1(p["labels"], t["label_map"], len(CLASSES), 0.05)) for p, t in pairs
  ]
  whole = pair(5000, np.zeros((4, 4), int), np.zeros((4, 4)))  # no boundary, so no say
  found = score([*pairs, whole], tolerance=0.05)["boundary_F1"]
  assert found == pytest.approx(np.mean(per_image), rel=1e-12) and 0.1 < found < 0.95
  assert score([whole])["boundary_F1"] == -1


def test_what_is_predicted_on_unlabeled_pixels_does_not_matter():
  pairs = random_pairs(4)
  other = [
    ({**p, "labels": np.where(t["label_map"] == IGNORE, 4, p["labels"])}, t) for p, t in pairs
  ]
  assert score(other) == score(pairs)


def test_nothing_labeled_and_nothing_scored():
  nothing = score([pair(1, [[0, 1]], [[IGNORE, IGNORE]])])
  assert set(nothing.values()) == {-1.0} and nothing == score([])


def test_order_of_images_changes_nothing_and_states_may_be_joined():
  pairs = random_pairs(5)
  scorer, state = collect(pairs)
  values = scorer.compute(state)
  assert score(pairs[::-1]) == pytest.approx(values, rel=1e-12)
  parts = collect(pairs[:5])[1] + collect(pairs[5:])[1]
  assert scorer.compute(parts) == pytest.approx(values, rel=1e-12)
  assert len(state) == 1  # whatever the number of images


def test_files_are_label_maps_in_the_numbers_of_the_data(tmp_path):
  prediction, _ = pair(7, [[0, 4, 2]], [[0, 0, 0]])
  ((name, picture),) = metric.segmentation(CLASSES).files(prediction).items()
  assert name == "000000000007.png" and picture.dtype == np.uint8
  np.testing.assert_array_equal(picture, [[0, 4, 2]])
  (picture,) = metric.segmentation(CLASSES, (7, 8, 26, 30, 33)).files(prediction).values()
  np.testing.assert_array_equal(picture, [[7, 33, 26]])
  (picture,) = metric.segmentation(CLASSES, (7, 8, 26, 30, 1000)).files(prediction).values()
  assert picture.dtype == np.uint16
  Image.fromarray(picture).save(tmp_path / name)
  np.testing.assert_array_equal(np.array(Image.open(tmp_path / name)), [[7, 1000, 26]])


def test_what_cannot_be_scored_is_refused():
  good, truth = pair(1, [[0, 1]], [[0, 1]])
  for (prediction, _), message in (
    (pair(2, [[0, 1]], [[0]]), "of image 2"),
    (pair(1, [[0, 1, 1]], [[0]]), r"\(1, 3\) pixels"),
    (pair(1, [[0, 5]], [[0]]), "the prediction has the class 5, but there are 5"),
    (pair(1, [[0, IGNORE]], [[0]]), "the prediction has the class -1"),
  ):
    with pytest.raises(DataError, match=message):
      score([(prediction, truth)])
  with pytest.raises(DataError, match="the truth has the class -2"):
    score([(good, pair(1, [[0]], [[0, -2]])[1])])
  with pytest.raises(DataError, match="image 1 was scored more than once"):
    score([(good, truth), (good, truth)])
  with pytest.raises(UsageError, match="5 classes, but 4 different category ids"):
    metric.segmentation(CLASSES, (1, 2, 3, 4, 4))
  with pytest.raises(UsageError, match="tolerance is -1"):
    metric.segmentation(CLASSES, tolerance=-1.0)


def street(seed):
  """Maps of 512 x 512 with 19 classes; the prediction is off by some pixels, with rough edges."""
  rng = np.random.default_rng(seed)
  blocks = rng.integers(0, 19, (16, 16)).repeat(32, 0).repeat(32, 1)
  y, x = (place + rng.integers(-1, 3, blocks.shape) for place in np.indices(blocks.shape))
  truth = np.where(rng.random((64, 64)).repeat(8, 0).repeat(8, 1) < 0.01, IGNORE, blocks)
  return pair(1, blocks[y % 512, x % 512].astype(np.int32), truth)


@pytest.mark.parametrize("noise", [0.0, 0.02, 1.0])
def test_counts_of_smooth_and_of_noisy_maps(noise):
  rng = np.random.default_rng(0)
  prediction, truth = street(1)
  noisy = rng.random((512, 512)) < noise
  found = np.where(noisy, rng.integers(0, 19, noisy.shape), prediction["labels"])
  known = truth["label_map"] != IGNORE
  theirs = contingency_table(truth["label_map"][known], found[known]).toarray()
  np.testing.assert_array_equal(metric.confusion_of(found, truth["label_map"], 19), theirs)


def milliseconds(**settings):
  scorer, (prediction, truth) = (
    metric.segmentation([str(k) for k in range(19)], **settings),
    street(0),
  )
  seconds = []
  for _ in range(40):
    start = time.thread_time()  # of this thread: others may use the machine, too
    scorer.update([], prediction, truth)
    seconds.append(time.thread_time() - start)
  return 1e3 * min(seconds)


def test_an_image_takes_no_more_than_a_millisecond():
  plain, bounded = milliseconds(tolerance=0.0), milliseconds()
  print(f"512 x 512: {plain:.2f} ms an image, {bounded:.1f} ms with boundaries")
  assert plain < 1 and bounded < 60

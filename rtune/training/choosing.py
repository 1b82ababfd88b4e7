"""Which images a person shall label: functions of what a model says of all of them.

A config names one (`adapt.choose`), or a user's own as "module:function". Each takes the images,
how many to choose, and a generator, and returns their places.

Dimension key:
  H, W: height and width in pixels
  C: classes
  N: images
  F: features of an image
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Integer
from scipy.ndimage import uniform_filter

from rtune.config.names import resolve

NAMES = ("random", "entropy", "impurity", "diverse")
_CELLS = 4  # rows and columns of the grid that features are means over
_REGION = 1 / 12  # side of a region, as a share of the image's longer side


class Looked(NamedTuple):
  """What a model says of an image.

  Attributes:
    entropy: mean over pixels, in nats.
    impurity: mean over pixels of the entropy around it, times how many classes mix there.
    features: where which class is, and how sure the model is.
  """

  entropy: float
  impurity: float
  features: Float[np.ndarray, " f"]


def look(
  labels: Integer[np.ndarray, "h w"], entropy: Float[np.ndarray, "h w"], classes: int
) -> Looked:
  """Sums up one image.

  The second score is that of RIPU (Xie et al., CVPR 2022): region impurity, the entropy of the
  labels in a square, times prediction uncertainty, the mean entropy there.
  """
  side = max(3, round(max(labels.shape) * _REGION)) | 1
  impurity = np.zeros(labels.shape)
  for label in np.unique(labels):
    share = uniform_filter((labels == label).astype(np.float64), side, mode="nearest")
    impurity -= share * np.log(np.maximum(share, 1e-12))
  around = uniform_filter(entropy.astype(np.float64), side, mode="nearest")
  return Looked(
    float(entropy.mean()), float((impurity * around).mean()), _features(labels, entropy, classes)
  )


def _features(labels, entropy, classes: int) -> Float[np.ndarray, " f"]:
  cells = []
  for rows in np.array_split(np.arange(labels.shape[0]), _CELLS):
    for columns in np.array_split(np.arange(labels.shape[1]), _CELLS):
      cell = np.ix_(rows, columns)
      share = np.bincount(labels[cell].ravel(), minlength=classes) / labels[cell].size
      cells.append(np.append(np.sqrt(share), entropy[cell].mean()))
  return np.concatenate(cells)


def random(images: Sequence[Looked], budget: int, rng: np.random.Generator) -> list[int]:
  """Any."""
  return sorted(rng.choice(len(images), budget, replace=False).tolist())


def entropy(images: Sequence[Looked], budget: int, rng: np.random.Generator) -> list[int]:
  """Those that the model is least sure of."""
  del rng
  return _largest([image.entropy for image in images], budget)


def impurity(images: Sequence[Looked], budget: int, rng: np.random.Generator) -> list[int]:
  """Those where it is unsure and many classes meet."""
  del rng
  return _largest([image.impurity for image in images], budget)


def diverse(images: Sequence[Looked], budget: int, rng: np.random.Generator) -> list[int]:
  """Those that stand for all others: each image has one like it among the chosen.

  Facility location (Wei et al., ICML 2015), greedy: the next one is that which brings the images'
  nearest chosen ones closest, in sum. Unlike the farthest point it does not pick outliers.
  """
  del rng
  features_NF = np.stack([image.features for image in images])
  squares_N = (features_NF**2).sum(axis=1)
  distance_NN = np.sqrt(
    np.maximum(squares_N[:, None] + squares_N - 2 * features_NF @ features_NF.T, 0)
  )
  nearest_N, chosen = np.full(len(images), distance_NN.max() + 1), []
  for _ in range(budget):
    left_N = np.minimum(nearest_N, distance_NN).sum(axis=1)  # of each candidate
    left_N[chosen] = np.inf
    chosen.append(int(left_N.argmin()))
    nearest_N = np.minimum(nearest_N, distance_NN[chosen[-1]])
  return sorted(chosen)


def named(name: str) -> Callable[[Sequence[Looked], int, np.random.Generator], list[int]]:
  """The function that `adapt.choose` names."""
  return resolve(name if ":" in name else f"{__name__}:{name}")


def _largest(scores: Sequence[float], budget: int) -> list[int]:
  return sorted(np.argsort(-np.asarray(scores), kind="stable")[:budget].tolist())

"""How sure a model is of each pixel's label, as whole numbers that a PNG holds and that count.

Dimension key:
  C: classes
  H, W: height and width in pixels
"""

import numpy as np
from jaxtyping import Float, Int, Integer, UInt16

LEVELS = 2**16
_A_NINE = 8192  # levels from a probability of 0.9 to one of 0.99, and on to one of 0.999


def levels_of(probability: Float[np.ndarray, "*b"]) -> UInt16[np.ndarray, "*b"]:
  """-log10(1 - p), in steps that tell 0.9999 from 0.99999: most pixels are as sure as that."""
  doubt = np.maximum(1 - probability.astype(np.float64), 1e-12)
  return np.minimum(np.rint(-np.log10(doubt) * _A_NINE), LEVELS - 1).astype(np.uint16)


def level_of(probability: float) -> int:
  """The level that stands for a probability."""
  return int(levels_of(np.array([probability]))[0])


def count_levels(
  labels: Integer[np.ndarray, "h w"], levels: UInt16[np.ndarray, "h w"], classes: int
) -> Int[np.ndarray, "c l"]:
  """Pixels of each class on each level."""
  flat = labels.ravel().astype(np.int64) * LEVELS + levels.ravel()
  return np.bincount(flat, minlength=classes * LEVELS).reshape(classes, LEVELS)


def surest(counts: Int[np.ndarray, "c l"], share: float) -> Int[np.ndarray, " c"]:
  """The level of each class from which on this share of its pixels lies, or a little more.

  Class-balanced selection (Zou et al., ECCV 2018): one level for all would leave rare classes,
  which a model is never sure of, without a label.
  """
  above = np.cumsum(counts[:, ::-1], axis=1)[:, ::-1]
  enough = above >= share * counts.sum(axis=1, keepdims=True)
  return LEVELS - 1 - np.argmax(enough[:, ::-1], axis=1)

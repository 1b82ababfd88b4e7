"""A reward of the objects in label maps: steps that no loss can follow. jit, vmap.

Dimension key:
  H, W: height and width of the model's input in pixels
  T: pixels, row by row; a region of the truth has the place of its first pixel
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from rtune.errors import UsageError
from rtune.predictions.labels import IGNORE, LabelMap, regions


class Objects(NamedTuple):
  """Regions of the truth that count; what has no region of its own at a place has a size of 0."""

  region: Int[Array, " t"]  # of each pixel
  size: Int[Array, " t"]
  present: Bool[Array, " t"]
  known: Bool[Array, " t"]  # pixels that somebody has labeled


def objects_found(
  prediction: LabelMap,
  truth: LabelMap,
  *,
  classes: Sequence[str],
  of: Sequence[str] = (),
  share: float = 0.5,
  price: float = 5.0,
  least: int = 4,
) -> dict[str, Array]:
  """How many objects were found, minus a price for wrong pixels.

  An object is a connected region of one class in the truth, and found if more than `share` of its
  pixels are right. Each counts the same, whatever its size: what a person would count. It is a sum
  of steps, flat nearly everywhere: there is nothing to differentiate, only answers to try. It is
  not divided by the number of objects, so crowded images weigh more.

  Credit is exact: it differs from the reward by what does not depend on the pixel's own class. A
  pixel that decides, with the others as they are, whether its object is found earns half of it if
  it is right and loses half if it is wrong.

  Args:
    prediction: labels [H, W].
    truth: labels [H, W].
    classes: their names.
    of: names of the classes whose regions are objects; (): all of them.
    share: of an object's pixels that must be right, 0 or more and below 1.
    price: of all labeled pixels being wrong, in objects: with 5 a false object on 2 % of them
      costs a tenth of what a true one brings. Without a price a guess would be free.
    least: regions with fewer pixels are no objects.

  Returns:
    reward; credit [T]; the numbers of objects and of those found; wrong, a share of pixels.
  """
  objects = objects_of(truth, _are_objects(classes, of), least)
  right_T = (prediction.labels == truth.labels).reshape(-1)
  hit_T = right_T.astype(jnp.float32)
  count_T = jnp.zeros_like(hit_T).at[objects.region].add(hit_T)
  need_T = share * objects.size.astype(jnp.float32)
  found_T = objects.present & (count_T > need_T)
  missing_T = (need_T - count_T)[objects.region] + hit_T  # were the pixel itself wrong
  is_decisive_T = objects.present[objects.region] & (missing_T >= 0) & (missing_T < 1)
  known = jnp.maximum(jnp.sum(objects.known, dtype=jnp.float32), 1.0)
  wrong_T = jnp.where(objects.known & ~right_T, 1.0, 0.0) / known
  # Half on either side, since siblings are no baseline for it: their other pixels are other ones.
  decides_T = jnp.where(is_decisive_T, jnp.where(right_T, 0.5, -0.5), 0.0)
  found, wrong = jnp.sum(found_T, dtype=jnp.float32), jnp.sum(wrong_T)
  return {
    "reward": found - price * wrong,
    "credit": decides_T - price * wrong_T,
    "objects": jnp.sum(objects.present, dtype=jnp.float32),
    "found": found,
    "wrong": wrong,
  }


def objects_of(truth: LabelMap, is_object_C: Bool[np.ndarray, " c"], least: int) -> Objects:
  """The objects of a truth, alike for all samples of an image."""
  labels_T = truth.labels.reshape(-1)
  known_T = labels_T != IGNORE
  region_T = regions(truth.labels).reshape(-1)
  counts_T = known_T & jnp.asarray(is_object_C)[jnp.maximum(labels_T, 0)]
  size_T = jnp.zeros_like(region_T).at[region_T].add(counts_T.astype(jnp.int32))
  return Objects(region_T, size_T, size_T >= max(least, 1), known_T)


def _are_objects(classes: Sequence[str], of: Sequence[str]) -> Bool[np.ndarray, " c"]:
  unknown = [name for name in of if name not in classes]
  if unknown:
    raise UsageError(
      f"objects_found: of names {unknown[0]!r}, which is no class; there are {', '.join(classes)}."
    )
  return np.array([not of or name in of for name in classes])

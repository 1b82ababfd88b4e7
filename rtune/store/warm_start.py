"""A model that starts from another one of its kind: more classes, longer answers, larger images.

What has the same name and shape is taken. Positions of the encoder are resized. The decoder's
vocabulary and positions are lists whose beginning means the same in both (confidences and
coordinates come before classes), so their common beginning is taken and the rest starts fresh. So
does a part that the other model does not have at all, such as a head on the same network.
"""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from rtune.errors import DataError, UsageError
from rtune.store import weights

# Leaves that are lists along one axis: of tokens, or of positions in the answer.
_LISTS = {
  "decoder/EmbedTargets/embedding": 0,
  "decoder/LogitsDense/kernel": 1,
  "decoder/LogitsDense/bias": 0,
  "decoder/pos_embedding": 1,
}


def adopt(
  params: Mapping[str, Any], loaded: Mapping[str, Any], log: weights.Log, *, sizes_at: str = ""
) -> weights.Tree:
  """Puts what fits of another model's weights into a fresh one.

  Args:
    params: the fresh model's arrays.
    loaded: what `weights.load_weights` gave.
    log: told what is resized and what starts fresh.
    sizes_at: where the config has the sizes of the model; "" where it has none.

  Returns:
    A tree as `params`, on the host.

  Raises:
    UsageError: a table of the leaves that are missing, extra or of another size.
    DataError: a value that is not finite.
  """
  fresh, found = weights.flatten(params), weights.flatten(loaded)
  fitted = {name: _fit(name, leaf, fresh, log) for name, leaf in found.items()}
  ours, theirs = ({name.partition("/")[0] for name in names} for names in (fresh, found))
  # One that shares nothing is no model of this kind: then all of it is missing.
  new = [f"{re.escape(part)}(/.*)?" for part in ours - theirs] if ours & theirs else []
  try:
    return weights.merge(fresh, fitted, allow_missing=new, sizes_at=sizes_at, log=log)
  except (UsageError, DataError) as error:
    raise type(error)(f"config.warm_start: {error}") from error


def _fit(name: str, leaf: np.ndarray, fresh: Mapping[str, Any], log: weights.Log) -> np.ndarray:
  """`leaf` in the size of the fresh leaf of that name, where only the length of a list differs."""
  axis = _LISTS.get(name)
  if axis is None or name not in fresh or leaf.shape == fresh[name].shape:
    return leaf
  shape = fresh[name].shape
  if leaf.shape[:axis] + leaf.shape[axis + 1 :] != shape[:axis] + shape[axis + 1 :]:
    return leaf
  common = min(leaf.shape[axis], shape[axis])
  log(f"weights: of {name} the first {common} of {shape[axis]} are taken, the rest starts fresh")
  part = tuple(slice(common) if i == axis else slice(None) for i in range(len(shape)))
  result = np.array(fresh[name])
  result[part] = leaf[part]
  return result

"""Weights that were trained on pixels of another scale than [-1, 1], which is this encoder's.

A model's own preprocessing takes the mean from pixels in [0, 1] and divides by the deviation. The
patch projection is linear, so that it can take the difference exactly.
"""

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from rtune.errors import DataError
from rtune.store import weight_files

_FILE = "preprocessor_config.json"
_KERNEL, _BIAS = "embedding/kernel", "embedding/bias"


def adapt(
  leaves: Mapping[str, np.ndarray], path: pathlib.Path, config: Mapping[str, Any]
) -> tuple[dict[str, np.ndarray], str]:
  """Leaves for pixels in [-1, 1], and what to say about it.

  Args:
    leaves: an encoder's, with the patch projection [P, P, 3, D].
    path: of the weights; what transformers writes beside them tells the scale.
    config: of timm, which tells it itself.

  Raises:
    DataError: mean or deviation are not three numbers, or a deviation is not positive.
  """
  table = weight_files.read_beside(path, _FILE)
  mean, std = table.get("image_mean"), table.get("image_std")
  if mean is None and isinstance(config.get("pretrained_cfg"), Mapping):
    mean, std = (config["pretrained_cfg"].get(key) for key in ("mean", "std"))
  if mean is None or std is None:
    return dict(leaves), f"no {_FILE} beside them tells how pixels are scaled; [-1, 1] is taken"
  scale = [_three(value, name, path) for name, value in (("mean", mean), ("deviation", std))]
  kernel, bias = leaves[_KERNEL], leaves[_BIAS]
  if (min(scale[1]) <= 0) or kernel.ndim != 4 or kernel.shape[2] != 3:
    raise DataError(f"{path.parent}: a mean and deviation {scale} are not of its patches' colors.")
  if scale == [[0.5] * 3] * 2:
    return dict(leaves), ""
  mean_C, std_C = (np.asarray(values, np.float32) for values in scale)
  kernel = kernel.astype(np.float32) / std_C[:, None]  # of pixels in [0, 1] less the mean
  shift = np.einsum("pqcd,c->d", kernel, 0.5 - mean_C)
  adapted = {_KERNEL: kernel / 2, _BIAS: bias.astype(np.float32) + shift}
  said = (
    f"their pixels have mean {scale[0]} and deviation {scale[1]}; the patch projection takes it"
  )
  return {**leaves, **adapted}, said


def _three(value: Any, name: str, path: pathlib.Path) -> list[float]:
  values = value if isinstance(value, list) else [value] * 3
  if len(values) != 3 or not all(type(x) in (int, float) and abs(x) < 1e6 for x in values):
    raise DataError(
      f"{path.parent}: the {name} of its preprocessing is not three numbers; mend {_FILE} or take "
      "it away."
    )
  return [float(x) for x in values]

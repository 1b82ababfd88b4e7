"""Published weights of RDUNet as parameters of `models.rdunet`.

The published files are PyTorch's, which can run code. Convert them once, where PyTorch is:

  state = torch.load("model_gray.pth", weights_only=True)
  safetensors.torch.save_file(state, "model_gray.safetensors")

and then for a policy over pictures, which finds them by its names:

  tree = {"restorer": load_rdunet("model_gray.safetensors")}
  weights.save_weights("rdunet.safetensors", tree, {"format": "rtune"})

They need filters=128, blocks=2 and as many channels as the file: 1 for gray, 3 for color.
"""

import os
from collections.abc import Mapping

import numpy as np

from rtune.errors import UsageError
from rtune.store import weights
from rtune.store.unreadable import shown

_BLOCKS = ("input_block", "output_block", "dn_block_", "downsample_", "upsample_")


def load_rdunet(path: str | os.PathLike[str]) -> weights.Tree:
  """Parameters of a `rtune.models.rdunet:rdunet` from a file with the published names.

  Args:
    path: .safetensors or .npz, names joined by ".".

  Raises:
    UsageError: no such file, or its names are not those of an RDUNet.
    DataError: the file is damaged.
  """
  flat = weights.flatten(weights.load_weights(path))
  try:
    return rdunet_from_published(flat)
  except UsageError as error:
    raise UsageError(f"weights {path}: {error}") from error


def rdunet_from_published(flat: Mapping[str, np.ndarray]) -> weights.Tree:
  """The same for arrays by their published names; see models/rdunet.py for the differences.

  Raises:
    UsageError: a name that no RDUNet has.
  """
  leaves = {}
  for name, value in flat.items():
    path = name.removeprefix("module.").split(".")
    kind = path[-1]
    if len(path) != 3 or not path[0].startswith(_BLOCKS) or kind not in ("weight", "bias"):
      raise UsageError(
        f"{shown(name)} is not a name of RDUNet's; convert the file of one, unchanged."
      )
    layer = path[1]
    if kind == "weight" and value.ndim == 4:
      axes = (0, 2, 3, 1) if layer == "conv_t" else (2, 3, 1, 0)
      kind, value = "kernel", value.transpose(axes)
    elif kind == "weight":
      kind = "slope"
    leaves[f"{path[0]}/{layer}/{kind}"] = value
  return weights.nest(leaves)

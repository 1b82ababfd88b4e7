"""Published weights of UViM (2205.10337) as ours: stage I is a code model, stage II a policy.

Files are the .npz that big_vision's README of UViM lists, and what its trainers write.
"""

import logging
import os
from collections.abc import Mapping
from typing import Any

from rtune.errors import UsageError
from rtune.store import vit_weights, weights

_log = logging.getLogger(__name__)
_OLD = {"Encoder": "encoder", "Decoder": "decoder"}  # of the first files


def load_codes(
  path: str | os.PathLike[str], template: Mapping[str, Any], log: weights.Log = _log.info
) -> weights.Tree:
  """Variables {"params", "state"} of a code model, from UViM's stage I or from `codes.safetensors`.

  Args:
    path: .npz or .safetensors.
    template: variables of the code model that a config describes.
    log: told what is resized.

  Raises:
    UsageError: the file is not a code model's, or a table of what is not of the config's model.
    DataError: the file is damaged.
  """
  loaded = weights.load_weights(path)
  if "params" not in loaded or "dictionary" not in loaded.get("state", {}):
    names = ", ".join(list(weights.flatten(loaded))[:3])
    raise UsageError(
      f"weights {path} are not a code model's: state/dictionary is not there, but {names}, ... "
      "Give UViM's stage I (.npz) or the codes.safetensors of a run."
    )
  params = {_OLD.get(name, name): tree for name, tree in loaded["params"].items()}
  try:
    return weights.merge(template, {"params": params, "state": loaded["state"]}, log=log)
  except UsageError as error:
    raise UsageError(f"code model {path} (see config.task.args.codes): {error}") from error


def load_policy(path: str | os.PathLike[str], log: weights.Log = _log.info) -> weights.Tree:
  """Parameters of a policy, ours or UViM's stage II, with our names.

  Raises:
    UsageError: there is no such file, or it is of a kind that is not read.
    DataError: the file is damaged.
  """
  loaded = weights.load_weights(path)
  return policy_from_uvim(loaded, log) if "EmbedPatches" in loaded else loaded


def policy_from_uvim(loaded: Mapping[str, Any], log: weights.Log = _log.info) -> weights.Tree:
  """UViM's stage II under our names; what is not in it will be missed when it is merged."""
  names = {
    "embedding": "EmbedPatches",
    "pos_embedding": "pos_embedding_encoder",
    "Transformer": "encoder",
  }
  encoder = {ours: loaded[theirs] for ours, theirs in names.items() if theirs in loaded}
  encoder.setdefault("Transformer", {})
  decoder = dict(loaded.get("decoder", {}))
  if "pos_embedding_decoder" in loaded:
    decoder["pos_embedding"] = loaded["pos_embedding_decoder"]
  return {"encoder": vit_weights.vit_from_big_vision(encoder, log), "decoder": decoder}

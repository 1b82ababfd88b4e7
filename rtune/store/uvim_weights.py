"""Published weights of UViM (2205.10337) as ours: stage I is a code model, stage II a policy.

Files are the .npz that big_vision's README of UViM lists, and what its trainers write.
"""

import logging
import os
from collections.abc import Mapping
from typing import Any

from rtune.errors import DataError, UsageError
from rtune.store import fitting, torch_names, vit_weights, weights

_log = logging.getLogger(__name__)
_CODES = "config.task.args.codes"  # where a config has the sizes of a code model
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
  state, params = loaded.get("state"), loaded.get("params")
  if not isinstance(params, Mapping) or not isinstance(state, Mapping) or "dictionary" not in state:
    names = ", ".join(list(weights.flatten(loaded))[:3])
    raise UsageError(
      f"weights {path} are not a code model's: state/dictionary is not there, but {names}, ... "
      "Give UViM's stage I (.npz) or the codes.safetensors of a run."
    )
  params = {_OLD.get(name, name): tree for name, tree in params.items()}
  variables = {"params": params, "state": state}
  try:
    return weights.merge(template, variables, log=log)
  except (UsageError, DataError) as error:
    given = weights.flatten(template), weights.flatten(variables)
    fit = fitting.code_knobs(*given, _CODES) if isinstance(error, UsageError) else ""
    raise type(error)(f"code model {path} (see {_CODES}): {error}{fit}") from error


def load_policy(path: str | os.PathLike[str], log: weights.Log = _log.info) -> weights.Tree:
  """Parameters of a policy, ours or UViM's stage II, with our names.

  Raises:
    UsageError: there is no such file, or it is of a kind that is not read.
    DataError: the file is damaged.
  """
  loaded = weights.load_weights(path)
  return policy_from_uvim(loaded, log) if "EmbedPatches" in loaded else loaded


def load_params(
  path: str | os.PathLike[str],
  shapes: Mapping[str, Any],
  log: weights.Log = _log.info,
  sizes_at: str = "",
) -> weights.Tree:
  """All parameters of a policy from a file of them, as `shapes` has them.

  Raises:
    UsageError: as `load_policy`, or a table of what does not fit; `sizes_at` as in `weights.merge`.
    DataError: the file is damaged, or not all of its values are finite.
  """
  loaded = load_policy(path, log)
  try:
    return weights.merge(shapes, loaded, sizes_at=sizes_at, log=log)
  except (UsageError, DataError) as error:
    alone = {"embedding", "Transformer"} <= set(loaded) or any(
      name.endswith(torch_names.PATCHES) for name in loaded
    )
    said = "they are of an encoder alone. Give a ViT as config.encoder_init." if alone else error
    raise type(error)(f"weights {path}: {said}") from error


def policy_from_uvim(loaded: Mapping[str, Any], log: weights.Log = _log.info) -> weights.Tree:
  """UViM's stage II under our names; what is not in it will be missed when it is merged."""
  names = {
    "embedding": "EmbedPatches",
    "pos_embedding": "pos_embedding_encoder",
    "Transformer": "encoder",
  }
  encoder = {ours: loaded[theirs] for ours, theirs in names.items() if theirs in loaded}
  encoder.setdefault("Transformer", {})
  decoder = dict(loaded["decoder"]) if isinstance(loaded.get("decoder"), Mapping) else {}
  if "pos_embedding_decoder" in loaded:
    decoder["pos_embedding"] = loaded["pos_embedding_decoder"]
  return {"encoder": vit_weights.vit_from_big_vision(encoder, log), "decoder": decoder}

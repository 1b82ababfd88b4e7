"""The networks of policies: those that are given by name, and backbones of encoders."""

from collections.abc import Mapping
from typing import Any

from rtune import config as configs
from rtune.config import build, names
from rtune.errors import UsageError
from rtune.models.conv_encoder import ConvEncoder
from rtune.policies.policy import Backbone

PATH = "config.policy.args"


def network_of(network: Mapping[str, Any] | configs.Part, kind: type, channels: int) -> Any:
  """What a Part names, for so many channels or classes.

  Args:
    kind: what it must be, such as a `Dense` or a `Restorer`.

  Raises:
    UsageError: it cannot be made, or is something else.
  """
  part = build.as_kind(configs.Part, network, f"{PATH}.network")
  make = names.resolve(part.fn)
  names.check_args(make, part.args, "policy.args.network", given=1)
  made = make(channels, **{key: names.as_tuples(value) for key, value in part.args.items()})
  if not isinstance(made, kind):
    raise UsageError(
      f"{PATH}.network.fn: {part.fn} returned {type(made).__name__}; it must return a "
      f"{kind.__name__} of {kind.__module__}."
    )
  return made


def backbone_of(model: Any) -> Backbone | None:
  """That of the `encoder` of a Flax module, if it rests on one; the module says its `features`."""
  if not isinstance(model.encoder, ConvEncoder):
    return None

  def features(params, images):
    return model.apply({"params": params}, images, method="features")

  return Backbone("encoder/backbone/", features)

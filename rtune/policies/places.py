"""A policy over the places of a grid: at each there is an object or none, each drawn by itself.

The network sees an image once, whatever the number of samples. A decision is all that is said of a
place: whether there is something, and if so its class and its box.

Dimension key:
  B: batch of images
  S: samples for each image
  T: places, row by row
  K: classes
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from rtune.errors import UsageError
from rtune.models import encoders
from rtune.models.place_net import PlaceNet, Seen
from rtune.models.sizes import Encoder
from rtune.policies import heads
from rtune.policies.networks import PATH, backbone_of
from rtune.policies.pictures import check_least
from rtune.policies.policy import Policy, Sampled, Scored
from rtune.policies.space import Places

_LOG_SCALES = (-3.5, 0.5)  # what is learned stays between 0.03 and 1.6 places


def places(
  space: Places,
  *,
  encoder: Encoder = Encoder(),  # noqa: B008, frozen
  dtype: str = "auto",
  remat: bool = False,
  scan_layers: bool = False,
  head_width: int = 128,
  head_depth: int = 2,
  scale: float = 0.0,
  at_least: float = 0.5,
) -> Policy:
  """The policy of a `PlaceNet`; the first four arguments are those of `rtune.models.sizes.Model`.

  Its inputs are images [B, I, I, 3] uint8, or features of its backbone. Outputs are {"present":
  logits [B, 1, T], "label": logits [B, 1, T, K], "box": `heads.Normal` of [B, 1, T, 4]}, one for
  all samples of an image, hence the 1.

  Args:
    head_width, head_depth: channels and number of the head's 3 x 3 convolutions.
    scale: standard deviation of a box's numbers, in places; 0: it is learned.
    at_least: `best` has an object where its probability is this at least. 0.5 is the likeliest
      answer; less also lists what is doubted, as average precision wants it.

  Raises:
    UsageError: a setting out of its range.
  """
  check_least(1, head_width=head_width, head_depth=head_depth)
  check_least(0, scale=scale)
  if not 0 < at_least < 1:
    raise UsageError(f"{PATH}.at_least is {at_least}; it must be between 0 and 1.")
  net = encoders.build(encoder, dtype, remat, scan_layers)
  model = PlaceNet(net, space.rows, space.columns, space.classes, head_width, head_depth)

  def check(images) -> None:
    encoders.check_image_size(net, images.shape[1])
    side = images.shape[1] // net.patch_size
    if (side, side) != (space.rows, space.columns):
      raise UsageError(
        f"An image has {side} x {side} patches of config.model.encoder.patch_size="
        f"{net.patch_size}, and {space.rows} x {space.columns} places of config.task.args.place; "
        "make these two equal."
      )

  return _policy(model, check, scale, at_least)


def _policy(
  model: PlaceNet, check: Callable[[Array], None], scale: float, at_least: float
) -> Policy:
  """See `places`; `check` raises where images do not fit the grid."""

  def init(key, images):
    check(images)
    return model.init(key, images)["params"]

  def look(params, images, key=None):
    rngs = None if key is None else {"dropout": key}
    seen = model.apply({"params": params}, images, rngs is None, rngs=rngs)
    return _outputs(seen, scale)

  def sample(params, images, key, num_samples: int) -> Sampled:
    outputs = look(params, images)
    keys = jax.random.split(key, 3)
    shared = jax.tree.map(lambda x: x[:, 0], outputs)
    drawn = {
      "present": heads.categorical.sample(keys[0], _both(shared["present"]), num_samples) > 0,
      "label": heads.categorical.sample(keys[1], shared["label"], num_samples),
      "box": heads.normal.sample(keys[2], shared["box"], num_samples),
    }
    actions = jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), drawn)
    return Sampled(actions, _log_prob(outputs, actions))

  def score(params, images, actions, key=None) -> Scored:
    outputs = look(params, images, key)
    log_prob_BST = _log_prob(outputs, actions)
    return Scored(log_prob_BST, jnp.ones_like(log_prob_BST), outputs)

  def best(params, images, effort: int = 1):
    outputs = jax.tree.map(lambda x: x[:, 0], look(params, images))
    return {
      "present": jax.nn.sigmoid(outputs["present"]) >= at_least,
      "label": heads.categorical.mode(outputs["label"]),
      "box": heads.normal.mode(outputs["box"]),
    }

  return Policy(
    init,
    sample,
    score,
    best,
    entropy=_entropy,
    divergence=_kl,
    describe=_describe,
    sequential=False,
    backbone=backbone_of(model),
  )


def _outputs(seen: Seen, scale: float) -> dict[str, Array | heads.Normal]:
  if scale:
    scales = jnp.full_like(seen.box, scale)
  else:
    low, high = _LOG_SCALES
    # Smooth, so that a scale at its limit can come back.
    scales = jnp.exp(low + (high - low) * jax.nn.sigmoid(seen.log_scale))
  said = {"present": seen.present, "label": seen.label, "box": heads.Normal(seen.box, scales)}
  return jax.tree.map(lambda x: x[:, None], said)


def _log_prob(outputs, actions) -> Float[Array, "b s t"]:
  """Of what is said of each place; class and box do not count where there is nothing."""
  logit, present = outputs["present"], actions["present"]
  whether = jnp.where(present, jax.nn.log_sigmoid(logit), jax.nn.log_sigmoid(-logit))
  label = heads.categorical.log_prob(outputs["label"], actions["label"])
  box = jnp.sum(heads.normal.log_prob(outputs["box"], actions["box"]), axis=-1)
  return whether + jnp.where(present, label + box, 0.0)


def _entropy(scored: Scored) -> Float[Array, "b s t"]:
  """Of whether, and of class and box as often as there is something."""
  outputs = scored.outputs
  share = jax.nn.sigmoid(outputs["present"])
  more = heads.categorical.entropy(outputs["label"])
  more += jnp.sum(heads.normal.entropy(outputs["box"]), axis=-1)
  whether = heads.categorical.entropy(_both(outputs["present"]))
  return jnp.broadcast_to(whether + share * more, scored.mask.shape)


def _kl(scored: Scored, reference: Scored) -> Float[Array, "b s t"]:
  ours, theirs = scored.outputs, reference.outputs
  more = heads.categorical.kl(ours["label"], theirs["label"])
  more += jnp.sum(heads.normal.kl(ours["box"], theirs["box"]), axis=-1)
  whether = heads.categorical.kl(*(_both(x["present"]) for x in (ours, theirs)))
  kl = whether + jax.nn.sigmoid(ours["present"]) * more
  return jnp.broadcast_to(kl, scored.mask.shape)


def _both(logit: Float[Array, "*n"]) -> Float[Array, "*n 2"]:
  """Logits of none and of something."""
  return jnp.stack([jnp.zeros_like(logit), logit], axis=-1)


def _describe(scored: Scored) -> dict[str, Float[Array, "b s"]]:
  """How many objects are expected."""
  expected = jnp.sum(jax.nn.sigmoid(scored.outputs["present"]), axis=-1)
  return {"expected": jnp.broadcast_to(expected, scored.mask.shape[:2])}

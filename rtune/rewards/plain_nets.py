"""AlexNet and VGG16 as functions of their weights: what LPIPS sees with, and encoders may rest on.

Sizes and weights are those of torchvision, as `rtune.data.files.lpips_weights` holds them.

Dimension key:
  B: batch
  H, W: height and width of the picture in pixels
  Y, X: those of a layer
  C: channels
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

# Of pixels in [-1, 1]: the mean and deviation that torchvision's networks were trained with.
_SHIFT = np.array([-0.030, -0.088, -0.188], np.float32)
_SCALE = np.array([0.458, 0.448, 0.450], np.float32)
LEAST = {"alex": 31, "vgg": 16}  # pixels of a side that leave the last layer a place
# (stride, padding) of each layer; after these layers the map is made smaller.
_STEPS = {"alex": ((4, 2), (1, 2), (1, 1), (1, 1), (1, 1)), "vgg": ((1, 1),) * 13}
_POOLED = {"alex": (0, 1), "vgg": (1, 3, 6, 9)}
_WINDOW = {"alex": 3, "vgg": 2}
# Pixels of the picture for one place of a map -> the last layer that has such maps.
LAYER_AT = {"alex": {4: 0, 8: 1, 16: 4}, "vgg": {1: 1, 2: 3, 4: 6, 8: 9, 16: 12}}


def standardized(image_BHWC: Float[Array, "b h w 3"]) -> Float[Array, "b h w 3"]:
  """Pixels in [-1, 1] as networks of torchvision want them."""
  shift, scale = (x.astype(image_BHWC.dtype)[None, None, None] for x in (_SHIFT, _SCALE))
  return (image_BHWC - shift) / scale


def features(
  image_BHWC: Float[Array, "b h w 3"],
  weights: Mapping[str, Array | np.ndarray],
  net: str,
  last: int,
  precision: jax.lax.Precision | None = None,
) -> list[Float[Array, "b _y _x _c"]]:
  """What each layer says of a picture, behind its ReLU, up to the layer `last`.

  Args:
    image_BHWC: standardized.
    weights: kernel_0 [K, K, I, O], bias_0 [O], ...
    net: "alex" or "vgg".
  """
  x, found = image_BHWC, []
  for layer, (stride, padding) in enumerate(_STEPS[net][: last + 1]):
    x = jax.lax.conv_general_dilated(
      x,
      weights[f"kernel_{layer}"],
      (stride, stride),
      ((padding, padding), (padding, padding)),
      dimension_numbers=("NHWC", "HWIO", "NHWC"),
      precision=precision,
    )
    x = jax.nn.relu(x + weights[f"bias_{layer}"][None, None, None])
    found.append(x)
    if layer in _POOLED[net] and layer < last:
      window = (1, _WINDOW[net], _WINDOW[net], 1)
      x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, window, (1, 2, 2, 1), "VALID")
  return found

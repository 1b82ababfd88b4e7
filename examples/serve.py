"""Serves an exported model over HTTP with jax, flatbuffers, numpy and Pillow: no rtune.

python examples/serve.py exported 8000
curl --data-binary @photo.jpg http://localhost:8000
"""

import http.server
import io
import json
import pathlib
import sys

import jax
import numpy as np
from PIL import Image

FOLDER, PORT = pathlib.Path(sys.argv[1]), int(sys.argv[2])
ABOUT = json.loads((FOLDER / "model.json").read_text())
CALL = jax.jit(jax.export.deserialize((FOLDER / "model.stablehlo").read_bytes()).call)
INPUT = ABOUT["input"]


def gray_of(rgb):
  """What the model is given in place of colors, of values from 0 to 1."""
  if INPUT["gray"] != "lightness":
    return rgb @ np.array(INPUT["gray"], np.float32)
  linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
  luminance = linear @ (0.212671, 0.715160, 0.072169)
  curve = 1.055 * luminance ** (1 / 2.4) - 0.055
  return np.where(luminance <= 0.0031308, 12.92 * luminance, curve)


def canvas_of(picture):
  """The model's input, and how much larger the picture is on it, down and across."""
  height, width, channels = INPUT["shape"][1:]
  zooms = height / picture.height, width / picture.width
  if INPUT["resize"] != "stretch":
    zooms = (min(zooms) if INPUT["resize"] == "fit" else 1,) * 2
  shown = max(1, round(picture.height * zooms[0])), max(1, round(picture.width * zooms[1]))
  resized = picture.resize(shown[::-1], Image.Resampling.BILINEAR)
  pixels = np.asarray(resized).astype(np.float32) / 255
  if INPUT["gray"]:
    pixels = np.repeat(gray_of(pixels)[..., None], channels, axis=-1)
  beside = (0, height - shown[0]), (0, width - shown[1]), (0, 0)
  if INPUT["resize"] == "none":
    pixels = np.pad(pixels, beside, "symmetric")
  else:
    pixels = np.pad(pixels, beside, constant_values=INPUT["fill"] / 255)
  whole = INPUT["dtype"] == "uint8"
  return (np.rint(255 * pixels) if whole else pixels).astype(INPUT["dtype"]), zooms


class Handler(http.server.BaseHTTPRequestHandler):
  def do_POST(self):
    body = self.rfile.read(int(self.headers["Content-Length"]))
    try:
      canvas, zooms = canvas_of(Image.open(io.BytesIO(body)).convert("RGB"))
    except (OSError, ValueError) as error:  # no picture, or one that is larger than the canvas
      return self.send_error(400, str(error))
    answer = {name: np.asarray(x)[0].tolist() for name, x in CALL(canvas[None]).items()}
    self.send_response(200)
    self.end_headers()
    self.wfile.write(json.dumps({**answer, "zoom": zooms, "read": ABOUT["read"]}).encode())


if __name__ == "__main__":
  http.server.ThreadingHTTPServer(("localhost", PORT), Handler).serve_forever()

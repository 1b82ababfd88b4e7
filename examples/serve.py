"""Serves an exported model over HTTP with jax, numpy and Pillow alone: no rtune.

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


def canvas_of(picture):
  """The model's input, and how much larger the picture is on it, down and across."""
  height, width = ABOUT["input"]["shape"][1:3]
  zooms = height / picture.height, width / picture.width
  if ABOUT["input"]["resize"] == "fit":
    zooms = (min(zooms),) * 2
  shown = max(1, round(picture.height * zooms[0])), max(1, round(picture.width * zooms[1]))
  canvas = np.full((height, width, 3), ABOUT["input"]["fill"], np.uint8)
  resized = picture.resize(shown[::-1], Image.Resampling.BILINEAR)
  canvas[: shown[0], : shown[1]] = np.asarray(resized)
  return canvas, zooms


class Handler(http.server.BaseHTTPRequestHandler):
  def do_POST(self):
    body = self.rfile.read(int(self.headers["Content-Length"]))
    canvas, zooms = canvas_of(Image.open(io.BytesIO(body)).convert("RGB"))
    answer = {name: np.asarray(x)[0].tolist() for name, x in CALL(canvas[None]).items()}
    self.send_response(200)
    self.end_headers()
    self.wfile.write(json.dumps({**answer, "zoom": zooms, "read": ABOUT["read"]}).encode())


if __name__ == "__main__":
  http.server.ThreadingHTTPServer(("localhost", PORT), Handler).serve_forever()

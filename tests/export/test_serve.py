"""The example serves an exported file where there is no rtune."""

import contextlib
import http.client
import io
import json
import pathlib
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from rtune.config.names import resolve
from rtune.export import __main__ as command
from rtune.export import formats, write
from rtune.export.program import program_of, sidecar_of
from rtune.inference.model import load
from rtune.tasks.task import view
from rtune.training.open_data import open_source

ANSWERS = pathlib.Path(__file__).with_name("answers.py")
random_model, fields_of, assert_close, ROOT, SIZE, RESTORERS = (
  resolve(f"{ANSWERS}:{name}")
  for name in ("random_model", "fields_of", "assert_close", "ROOT", "SIZE", "RESTORERS")
)


def free_port() -> int:
  with socket.socket() as one:
    one.bind(("localhost", 0))
    return one.getsockname()[1]


def test_the_example_serves_it_without_rtune(boxes_run, tmp_path):
  out = tmp_path / "exported"
  assert command.main(["--workdir", str(boxes_run), "--out", str(out)]) == 0
  model = load(boxes_run)
  source = open_source(model.run)
  # Higher than wide: what is on the canvas beside it must not matter.
  images = [np.concatenate([source[k]["image"]] * 2) for k in range(8)]
  answers = zip(images, model.predict(images), strict=True)
  image, own = max(answers, key=lambda pair: len(pair[1].record["boxes"]))
  with serving(out) as post:
    status, answer = post(png_of(image))
    assert status == 200
  present = np.array(answer["present"])
  boxes = np.array(answer["boxes"])[present] * 48 / np.tile(answer["zoom"], 2)
  boxes = np.clip(boxes, 0, np.tile(image.shape[:2], 2))  # as "read" says
  np.testing.assert_allclose(boxes, own.record["boxes"], atol=1e-3)
  assert np.array(answer["labels"])[present].tolist() == own.record["labels"].tolist()
  assert len(boxes) > 0


@pytest.mark.parametrize("name", [*RESTORERS, "colorization_vivid"])
@pytest.mark.slow
def test_the_example_serves_pictures(name, tmp_path):
  model = random_model(name)
  program = program_of(model, SIZE if name in RESTORERS else None)
  (tmp_path / "model.stablehlo").write_bytes(formats.stablehlo(program))
  record = sidecar_of(model, program, view(model.run.task).served)
  (tmp_path / write.SIDECAR).write_text(json.dumps(record))
  # In colors, and smaller than the canvas.
  image = np.random.default_rng(0).integers(0, 256, (29, 41, 3), np.uint8)
  with serving(tmp_path) as post:
    status, answer = post(png_of(image))
    assert status == 200
    for field, wanted in fields_of(model.predict([image])).items():
      assert_close(np.array(answer[field], wanted.dtype), wanted[0])
    assert post(b"no picture")[0] == 400
    if name in RESTORERS:
      assert post(png_of(np.zeros((33, 41, 3), np.uint8)))[0] == 400


def png_of(image: np.ndarray) -> bytes:
  with io.BytesIO() as file:
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


@contextlib.contextmanager
def serving(folder: pathlib.Path):
  """The example at work without rtune: a function from a body to the answer's status and JSON."""
  port = free_port()
  code = "import sys, runpy; sys.modules['rtune'] = None; del sys.argv[0]; "
  code += "runpy.run_path(sys.argv[0], run_name='__main__')"
  command_line = [sys.executable, "-c", code, str(ROOT / "examples" / "serve.py"), str(folder)]
  server = subprocess.Popen([*command_line, str(port)], stderr=subprocess.DEVNULL)
  try:
    yield lambda body: posted(port, body, server)
  finally:
    server.kill()
    server.wait()


def posted(port: int, body: bytes, server: subprocess.Popen) -> tuple[int, dict]:
  """The answer to an image, once the server is up."""
  for _ in range(600):
    assert server.poll() is None
    try:
      connection = http.client.HTTPConnection("localhost", port, timeout=300)
      connection.request("POST", "/", body)
      response = connection.getresponse()
      text = response.read()
      return response.status, json.loads(text) if response.status == 200 else {}
    except ConnectionRefusedError:
      time.sleep(0.5)
  raise AssertionError("the server never came up")

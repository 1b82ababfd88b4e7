"""An exported file answers as `predict` does, for any batch size and without rtune."""

import http.client
import importlib.util
import json
import pathlib
import socket
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from PIL import Image

from rtune.config.load import load_config
from rtune.devices import processes
from rtune.errors import UsageError
from rtune.export import __main__ as command
from rtune.export import formats, write
from rtune.export.program import program_of, sidecar_of
from rtune.inference.model import Model, load
from rtune.tasks.task import view
from rtune.training import code_weights
from rtune.training.open_data import open_source
from rtune.training.restore import Restored
from rtune.training.setup import first_inputs, prepare

ROOT = pathlib.Path(__file__).resolve().parents[2]
SIZE = (32, 48)  # of pictures of tasks that take each as it is
SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in (
  *("captioning_cider", "colorization_vivid", "panoptic_pq", "superres_ssim"),
  *("denoising_ssim", "restoration_recursive"),
)]  # fmt: skip
pytestmark = pytest.mark.usefixtures("quick_compiles")


@pytest.fixture(autouse=True)
def symbols():
  """A batch of any size has a symbol for its size, which annotations of shapes cannot compare."""
  jaxtyping.config.update("jaxtyping_disable", True)
  yield
  jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
  """Commands start up as in one process of many tests: without settings that outlast them."""
  monkeypatch.setattr(processes, "start", lambda auto=False: None)


def random_model(name: str) -> Model:
  """An untrained model of the tiny variant of a config, with weights that answers depend on."""
  config = load_config(f"{ROOT / 'configs' / name}.py:tiny")
  setup = prepare(config)
  keys = iter(jax.random.split(jax.random.key(0), 1000))

  def drawn(x):
    if not jnp.issubdtype(x.dtype, jnp.floating):
      return jnp.zeros(x.shape, x.dtype)
    return 0.3 * jax.random.normal(next(keys), x.shape, x.dtype)

  frozen = jax.tree.map(drawn, code_weights.shapes(setup.task))
  start = setup.policy.init(next(keys), first_inputs(setup))
  params = jax.tree.map(lambda x: x + 0.2 * drawn(x), start)
  given = setup.config, setup.task, setup.policy, frozen, setup.mesh
  return Model(Restored(pathlib.Path("none"), *given), "reward", params, True)


def images_for(model: Model, number: int) -> list[np.ndarray]:
  rng = np.random.default_rng(0)
  own = view(model.run.task).own_size
  sizes = [SIZE if own else rng.integers(20, 90, 2) for _ in range(number)]
  return [rng.integers(0, 256, (*size, 3), np.uint8) for size in sizes]


def canvases(model: Model, images: list[np.ndarray]) -> np.ndarray:
  """What the file is given: images on the model's canvas, as model.json describes it."""
  seen = view(model.run.task)
  examples = [model.run.task.example(seen.unlabeled(image, 0), None) for image in images]
  return np.stack([example["image"] for example in examples])


def assert_same(found, answers):
  """Whole numbers alike, others to 1e-4 of the largest: random weights make bright pictures."""
  stacked = jax.tree.map(lambda *x: np.stack(x), *[answer.prediction for answer in answers])
  leaves = jax.tree_util.tree_leaves_with_path(stacked)
  named = {jax.tree_util.keystr(path, simple=True): leaf for path, leaf in leaves}
  assert named.keys() == found.keys()
  for name, wanted in named.items():
    values = found[name]
    assert values.shape == wanted.shape and values.dtype == wanted.dtype
    if wanted.dtype.kind == "f":
      scale = max(1.0, float(np.abs(wanted).max()))
      np.testing.assert_allclose(values, wanted, atol=1e-4 * scale, rtol=0)
    else:
      np.testing.assert_array_equal(values, wanted)


@pytest.mark.parametrize("name", ["detection_recall", "segmentation_miou", *SLOW])
def test_answers_are_those_of_predict(name):
  model = random_model(name)
  own = view(model.run.task).own_size
  program = program_of(model, SIZE if own else None)
  exported = jax.export.deserialize(bytearray(formats.stablehlo(program)))
  assert exported.platforms == formats.PLATFORMS
  images = images_for(model, 50 if name == "detection_recall" else 4)
  batch = canvases(model, images)
  assert {batch.shape[1:]} == {program.image.shape} and batch.dtype == program.image.dtype
  answers = model.predict(images)
  found = {name: np.asarray(x) for name, x in exported.call(batch).items()}
  assert_same(found, answers)
  one = {name: np.asarray(x) for name, x in exported.call(batch[:1]).items()}
  assert_same(one, answers[:1])
  # These answers are not all alike, so something was compared.
  assert any(len(np.unique(values)) > 1 for values in found.values())
  record = sidecar_of(model, program, view(model.run.task).served)
  assert list(record["outputs"]) == list(found) and record["read"]
  assert json.loads(json.dumps(record)) == record


@pytest.mark.parametrize("name", ["detection_recall", "segmentation_miou"])
@pytest.mark.slow
def test_onnx_answers_alike(name):
  runtime = pytest.importorskip("onnxruntime", reason="needs the optional onnxruntime")
  pytest.importorskip("jax2onnx", reason="needs the optional jax2onnx")
  model = random_model(name)
  program = program_of(model)
  session = runtime.InferenceSession(formats.onnx(program))
  images = images_for(model, 3)
  answers = model.predict(images)
  for number in (1, 3):
    found = session.run(list(program.outputs), {"image": canvases(model, images[:number])})
    assert_same(dict(zip(program.outputs, found, strict=True)), answers[:number])


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
  Image.fromarray(image).save(tmp_path / "photo.png")
  port = free_port()
  code = "import sys, runpy; sys.modules['rtune'] = None; del sys.argv[0]; "
  code += "runpy.run_path(sys.argv[0], run_name='__main__')"
  command_line = [sys.executable, "-c", code, str(ROOT / "examples" / "serve.py"), str(out)]
  server = subprocess.Popen([*command_line, str(port)], stderr=subprocess.DEVNULL)
  try:
    answer = posted(port, (tmp_path / "photo.png").read_bytes(), server)
  finally:
    server.kill()
    server.wait()
  present = np.array(answer["present"])
  boxes = np.array(answer["boxes"])[present] * 48 / np.tile(answer["zoom"], 2)
  boxes = np.clip(boxes, 0, np.tile(image.shape[:2], 2))  # as "read" says
  np.testing.assert_allclose(boxes, own.record["boxes"], atol=1e-3)
  assert np.array(answer["labels"])[present].tolist() == own.record["labels"].tolist()
  assert len(boxes) > 0


def posted(port: int, body: bytes, server: subprocess.Popen) -> dict:
  """The answer to an image, once the server is up."""
  for _ in range(600):
    assert server.poll() is None
    try:
      connection = http.client.HTTPConnection("localhost", port, timeout=300)
      connection.request("POST", "/", body)
      return json.loads(connection.getresponse().read())
    except ConnectionRefusedError:
      time.sleep(0.5)
  raise AssertionError("the server never came up")


def test_the_sidecar_says_how_to_feed_and_read_it(boxes_run, tmp_path):
  write.write(boxes_run, tmp_path)
  record = json.loads((tmp_path / write.SIDECAR).read_text())
  assert record["input"]["shape"] == ["batch", 48, 48, 3] and record["input"]["resize"] == "fit"
  assert len(record["classes"]) == 6 and record["format"] == "stablehlo"
  assert set(record["outputs"]) == {"boxes", "labels", "present", "scores"}


def test_sizes_are_for_tasks_that_take_images_as_they_are(boxes_run, tmp_path, capsys):
  flags = ["--workdir", str(boxes_run), "--out", str(tmp_path), "--size", "32,48"]
  assert command.main(flags) == 2
  assert "scales every image to (48, 48)" in capsys.readouterr().err
  assert command.main([*flags[:-1], "32"]) == 2
  assert "--size" in capsys.readouterr().err


def test_what_reads_more_than_pixels_is_refused(boxes_run, monkeypatch):
  model = load(boxes_run)
  task = model.run.task
  decode = type(task).decode

  def reads_content(self, frozen, actions, batch, scored=None):
    found = decode(self, frozen, actions, batch, scored)
    return found._replace(boxes=found.boxes * batch["content"][:, None, None, 2:3])

  monkeypatch.setattr(type(task), "decode", reads_content)
  with pytest.raises(UsageError, match="depend on content"):
    program_of(model)


@pytest.mark.skipif(
  importlib.util.find_spec("jax2onnx") is not None, reason="the optional jax2onnx is there"
)
def test_onnx_names_the_extra_that_is_missing(boxes_run, tmp_path):
  with pytest.raises(UsageError, match=r"pip install 'rtune\[onnx\]'"):
    write.write(boxes_run, tmp_path, form="onnx")

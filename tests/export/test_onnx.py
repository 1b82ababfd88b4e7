"""An ONNX file answers as `predict` does, or is refused; the extra is named where it is missing."""

import importlib.util
import pathlib

import jax
import numpy as np
import pytest

from rtune.config.names import resolve
from rtune.errors import UsageError
from rtune.export import formats, write
from rtune.export.program import Program, program_of

ANSWERS = pathlib.Path(__file__).with_name("answers.py")
random_model, images_for, canvases, assert_same, SIZE, RESTORERS = (
  resolve(f"{ANSWERS}:{name}")
  for name in ("random_model", "images_for", "canvases", "assert_same", "SIZE", "RESTORERS")
)
DETECTION = ("detection_recall", "detection_map", "detection_places")
DENSE = ("segmentation_miou", "panoptic_pq", "colorization_vivid")

# jax2onnx calls what flax and numpy warn of.
pytestmark = pytest.mark.filterwarnings("default")


@pytest.fixture(autouse=True)
def usual_promotion():
  """What jax2onnx traces in place of layers promotes ranks and types, as jax allows by default."""
  with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
    yield


@pytest.mark.parametrize("name", [*DETECTION, *DENSE, "captioning_cider", "denoising_ssim"])
@pytest.mark.slow
def test_onnx_answers_alike(name):
  runtime = pytest.importorskip("onnxruntime", reason="needs the optional onnxruntime")
  pytest.importorskip("jax2onnx", reason="needs the optional jax2onnx")
  model = random_model(name)
  program = program_of(model, SIZE if name in RESTORERS else None)
  session = runtime.InferenceSession(formats.onnx(program))
  images = images_for(model, 3)
  answers = model.predict(images)
  for number in (1, 3):
    found = session.run(list(program.outputs), {"image": canvases(model, images[:number])})
    named = dict(zip(program.outputs, found, strict=True))
    if name == "colorization_vivid":
      assert_same_colors(named["rgb"], answers[:number])
    else:
      assert_same(named, answers[:number])


def assert_same_colors(rgb, answers):
  """To the same step of the search for chroma, but where rounding decides between two."""
  wanted = np.stack([answer.prediction.rgb for answer in answers])
  np.testing.assert_allclose(rgb, wanted, atol=1e-3, rtol=0)
  assert np.mean(np.abs(rgb - wanted) > 1e-4) < 1e-3


@pytest.mark.parametrize("name", ["superres_ssim", "restoration_recursive"])
@pytest.mark.slow
def test_what_onnx_cannot_say_is_refused(name):
  pytest.importorskip("jax2onnx", reason="needs the optional jax2onnx")
  with pytest.raises(UsageError, match=r"jax2onnx cannot write .* --format stablehlo takes every"):
    formats.onnx(program_of(random_model(name), SIZE))


def test_a_file_that_answers_otherwise_is_refused():
  answers = {"labels": np.arange(200).reshape(1, 200), "scores": np.linspace(0, 1, 200)[None]}
  specs = {name: jax.ShapeDtypeStruct(x.shape[1:], x.dtype) for name, x in answers.items()}
  many = lambda images: {name: np.tile(x, (len(images), 1)) for name, x in answers.items()}  # noqa: E731
  program = Program(many, jax.ShapeDtypeStruct((2, 2, 3), np.dtype(np.uint8)), specs)

  def run(images, name="", change=None):
    found = many(images)
    if change is not None:
      found[name] = change(found[name])
    return list(found.values())

  check = formats.check_answers
  check(program, run)
  check(program, lambda images: run(images, "labels", lambda x: np.where(x == 7, 8, x)))
  check(program, lambda images: run(images, "scores", lambda x: x + 0.9e-4))
  for name, change in (
    ("labels", lambda x: np.where(x < 9, 8, x)),
    ("scores", lambda x: x + 1.1e-4),
    ("scores", lambda x: x[:1]),
  ):
    with pytest.raises(ValueError, match=name):
      check(program, lambda images, given=(name, change): run(images, *given))


@pytest.mark.skipif(
  importlib.util.find_spec("jax2onnx") is not None, reason="the optional jax2onnx is there"
)
def test_onnx_names_the_extra_that_is_missing(boxes_run, tmp_path):
  with pytest.raises(UsageError, match=r"pip install 'rtune\[onnx\]'"):
    write.write(boxes_run, tmp_path, form="onnx")

"""Tiny models of every config, and how answers of a file are compared with those of `predict`."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from rtune.config.load import load_config
from rtune.inference.model import Model
from rtune.tasks.task import view
from rtune.training import code_weights
from rtune.training.restore import Restored
from rtune.training.setup import first_inputs, prepare

ROOT = pathlib.Path(__file__).resolve().parents[2]
SIZE = (32, 48)  # of pictures of tasks that take each as it is
RESTORERS = ("superres_ssim", "denoising_ssim", "restoration_recursive")


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
  named = fields_of(answers)
  assert named.keys() == found.keys()
  for name, wanted in named.items():
    assert found[name].dtype == wanted.dtype
    assert_close(found[name], wanted)


def fields_of(answers) -> dict[str, np.ndarray]:
  """The arrays of predictions, stacked, by the names that a file has for them."""
  stacked = jax.tree.map(lambda *x: np.stack(x), *[answer.prediction for answer in answers])
  fields = {name: value for name, value in stacked._asdict().items() if value is not None}
  return {{"image": "made_image"}.get(name, name): value for name, value in fields.items()}


def assert_close(values, wanted):
  assert values.shape == wanted.shape
  if wanted.dtype.kind == "f":
    scale = max(1.0, float(np.abs(wanted).max()))
    np.testing.assert_allclose(values, wanted, atol=1e-4 * scale, rtol=0)
  else:
    np.testing.assert_array_equal(values, wanted)

"""From a trained model to one function of pixels: what is exported, whatever the format.

Dimension key:
  B: batch of images
  H, W: height and width of the model's input
  C: channels
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rtune.data.source import Example
from rtune.errors import UsageError
from rtune.inference.model import Model
from rtune.policies.policy import Policy
from rtune.tasks.task import Features, Served, view
from rtune.training.phases import phase_of

IMAGE = "image"  # the feature that is the model's input
MADE = "made_image"  # what a field of predictions is called that has the same name
_ANY = (61, 97)  # height and width of an image that no canvas has


class Program(NamedTuple):
  """What is exported.

  Attributes:
    call: image [B, H, W, C] -> {name: array [B, ...]}, the fields of the task's prediction, jit
      with the weights inside. A field named as the input is called `MADE`: ONNX wants two names.
    image: shape of one image and dtype, as `call` takes it.
    outputs: those of one prediction.
  """

  call: Callable[[Any], dict[str, Any]]
  image: jax.ShapeDtypeStruct
  outputs: dict[str, jax.ShapeDtypeStruct]


def program_of(model: Model, size: tuple[int, int] | None = None) -> Program:
  """The greedy prediction of a model.

  Args:
    size: height and width in pixels of the images, for tasks that take each in its own size.

  Raises:
    UsageError: predictions depend on more than the pixels, or the size is missing or not wanted.
  """
  task, served = model.run.task, view(model.run.task).served
  if (size is None) == view(task).own_size:
    raise UsageError(
      "this task takes each image in its own size; say for which one with --size HEIGHT,WIDTH."
      if size is None
      else f"--size: this task scales every image to {served.size if served else 'its own size'}."
    )
  examples = [features_of(model, shape) for shape in ((size or _ANY), (size or _ANY[::-1]))]
  whole = _answers(model)
  _check_inputs(whole, *examples)
  others = {name: value for name, value in examples[0].items() if name != IMAGE}

  def call(image):
    batch = image.shape[0]
    rest = {name: jnp.broadcast_to(x[None], (batch, *x.shape)) for name, x in others.items()}
    return whole({IMAGE: image, **rest})

  image = examples[0][IMAGE]
  one = jax.ShapeDtypeStruct(image.shape, image.dtype)
  outputs = jax.eval_shape(call, jax.ShapeDtypeStruct((1, *one.shape), one.dtype))
  shapes = {name: jax.ShapeDtypeStruct(x.shape[1:], x.dtype) for name, x in outputs.items()}
  return Program(jax.jit(call), one, shapes)


def features_of(model: Model, shape: tuple[int, int]) -> Features:
  """What an image of this size that nobody has annotated becomes, as arrays."""
  raw: Example = view(model.run.task).unlabeled(np.zeros((*shape, 3), np.uint8), 0)
  return {k: np.asarray(v) for k, v in model.run.task.example(raw, None).items()}


def _answers(model: Model) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
  """Features [B, ...] -> the arrays of the predictions; weights are constants of it."""
  run = model.run
  frozen, params = jax.tree.map(np.asarray, (run.frozen, model.params))
  policy: Policy = run.policy._replace(compiler_options=None)  # of a program on this machine
  predict = inspect.unwrap(phase_of(model.phase).predict(run.task, policy))

  def answers(batch: Mapping[str, Any]) -> dict[str, Any]:
    given = jax.tree.map(jnp.asarray, (frozen, params))
    _, predictions = predict(*given, batch)
    return named(predictions)

  return answers


def named(predictions: Any) -> dict[str, Any]:
  """The arrays of predictions, by the names that a file has for them."""
  leaves = jax.tree_util.tree_leaves_with_path(predictions)
  names = [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in leaves]
  names = [MADE if name == IMAGE else name for name in names]
  return {name: leaf for name, (_, leaf) in zip(names, leaves, strict=True)}


def _check_inputs(whole: Callable[..., Any], first: Features, second: Features) -> None:
  """UsageError where predictions read what is not the same for all images."""
  flat, tree = jax.tree.flatten(dict(first))
  specs = [jax.ShapeDtypeStruct((1, *x.shape), x.dtype) for x in flat]
  traced = jax.export.export(jax.jit(whole), platforms=["cpu"])(jax.tree.unflatten(tree, specs))
  names = sorted(first)
  read = {names[place] for place in traced.module_kept_var_idx} - {IMAGE}
  varies = [name for name in sorted(read) if not np.array_equal(first[name], second[name])]
  if varies or IMAGE not in first:
    raise UsageError(
      f"predictions of this task depend on {', '.join(varies) or 'no image'}, not on pixels alone, "
      "so they cannot be exported."
    )


def sidecar_of(model: Model, program: Program, served: Served | None) -> dict[str, Any]:
  """What a program without rtune must know, as JSON has it."""
  if served is None:
    served = Served("none", program.image.shape[:2], "as the task's `decode` gives them")
  one = program.image
  return {
    "task": model.run.config.task.fn,
    "phase": model.phase,
    "weights": model.run.weights,
    "input": {
      "name": IMAGE,
      "shape": ["batch", *one.shape],
      "dtype": str(one.dtype),
      "values": "RGB, 0 to 255" if one.dtype == np.uint8 else "0 to 1",
      "normalization": "inside the file",
      "resize": served.resize,
      "resampling": "bilinear",
      "fill": served.fill,
      "gray": served.gray if isinstance(served.gray, str) else list(served.gray),
    },
    "outputs": {
      name: {"shape": ["batch", *spec.shape], "dtype": str(spec.dtype)}
      for name, spec in program.outputs.items()
    },
    "read": served.read,
    **{name: list(values) for name, values in served.names.items()},
  }

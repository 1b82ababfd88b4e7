"""What a backbone says of training images, kept while it is not trained.

With a fixed number of views of each image (`config.data.views`) a backbone that no phase trains
says the same of them again and again. It is asked once; a file has what it said, which all phases
of a run read, and other runs that are given the folder (`config.data.features`).

Dimension key:
  B: batch
  R: rows of a file, a view of an example each
  N, C: places and channels of features
"""

import contextlib
import hashlib
import json
import math
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float16

from rtune import config as configs
from rtune.data import loader
from rtune.data.unreadable import left_out
from rtune.data.views import Views
from rtune.devices import sharding
from rtune.display import console
from rtune.display.progress import Progress
from rtune.errors import DataError, UsageError
from rtune.store import weights
from rtune.store.rows_file import RowsFile
from rtune.training.optim import trainable
from rtune.training.phases import Phase
from rtune.training.setup import Setup, first_inputs
from rtune.training.stopping import StopRequest
from rtune.training.update import FEATURES, Batch

FOLDER = "features"
Features = Callable[[Batch], Float16[Array, "b n c"]]
_TOLERANCE = 0.02  # of the largest feature: another batch, another machine


def views_of(
  setup: Setup, phase: Phase, params: Any, folder: pathlib.Path, stop: StopRequest
) -> Views | None:
  """How a phase sees its training data; with the backbone's features where they are kept.

  Args:
    params: of the policy, at the start of the phase.
    folder: the workdir.

  Raises:
    Preempted: asked to stop; what is computed is kept.
    StorageError: there is no room for the features.
  """
  data = setup.config.data
  if not data.views:
    return None
  # The same in all phases, whose orders of the data are not.
  views = Views(data.views, setup.config.seed)
  if not _stays(setup, phase, params):
    return views
  inputs = first_inputs(setup)
  row = jax.eval_shape(setup.policy.backbone.features, params, inputs).shape[1:]
  shape = (len(setup.train) * data.views, *row)
  megabytes = 2e-6 * math.prod(shape)
  if megabytes > data.features_mb:
    console.say(
      f"{phase.name}: the backbone's features of {len(setup.train)} examples in {data.views} views "
      f"would take {megabytes:,.0f} MB, more than config.data.features_mb={data.features_mb}: they "
      "are computed in every step"
    )
    return views
  name = f"{_digest(setup, params)}.npy"
  where = pathlib.Path(data.features).expanduser() if data.features else folder / FOLDER
  file = RowsFile(where / name, shape, np.float16)
  _fill(file, setup, params, views, folder, stop)
  kept = file.rows(len(setup.train) * data.views)

  def beside(index: int, view: int) -> dict[str, np.ndarray]:
    return {FEATURES: kept[index * views.count + view]}

  return views._replace(beside=beside)


def _stays(setup: Setup, phase: Phase, params: Any) -> bool:
  """Whether a phase leaves the policy's backbone as it is, and sees the training data alone."""
  backbone, settings = setup.policy.backbone, getattr(setup.config, phase.name)
  adapts = getattr(settings, "adapt", configs.Adapt()).by
  if backbone is None or not phase.learns.answers or adapts or jax.process_count() > 1:
    return False
  trained = weights.flatten(trainable(settings.optim, params))
  return not any(trains for name, trains in trained.items() if name.startswith(backbone.path))


def _digest(setup: Setup, params: Any) -> str:
  """Differs where features would: the backbone, what it is shown, and in which views.

  Not with what else a model is made of, so that runs of several sizes share what takes minutes.
  """
  config, path = setup.config, setup.policy.backbone.path
  tree, model = configs.as_json(config), config.model
  said = [tree["task"], tree["policy"]["fn"], tree["seed"]]
  said += [model.encoder.backbone, model.encoder.patch_size, model.dtype]
  said += [tree["data"][key] for key in ("train", "views")] + [len(setup.train)]
  digest = hashlib.sha256(json.dumps(said, sort_keys=True).encode())
  for name, leaf in sorted(weights.flatten(params).items()):
    if name.startswith(path):
      digest.update(name.encode() + np.asarray(leaf).tobytes())
  return digest.hexdigest()[:16]


def _fill(
  file: RowsFile, setup: Setup, params: Any, views: Views, folder: pathlib.Path, stop: StopRequest
) -> None:
  """Computes the rows that are not there, once those that are have been looked at."""
  size, _ = sharding.eval_batch(setup.config.data.eval_batch_size, setup.mesh)
  params, total = sharding.gather(params, setup.mesh), file.shape[0]

  @jax.jit
  def features(batch):
    return setup.policy.backbone.features(params, setup.task.inputs(batch)).astype(np.float16)

  done = file.done if file.done == total else file.done // size * size
  if done and not _same(file.rows(done), setup, views, features, size):
    console.say("The features that are kept are of other images; they are computed again.")
    done = 0
  if done == total:
    return
  console.stage(f"features of {len(setup.train)} examples in {views.count} views, kept for later")
  batches = _batches(setup, views, folder, size, done)
  with contextlib.closing(batches), Progress(total, "features", "view", start=done) as progress:
    for rows, batch in batches:
      after = min(done + size, total)
      found = np.zeros((after - done, *file.shape[1:]), np.float16)
      if rows:
        computed = np.asarray(features(sharding.put_batch(setup.mesh, batch)))
        found[np.array(rows) - done] = computed[: len(rows)]
        _check_range(found)
      file.write(done, found)
      done = after
      progress.update(done)
      if stop.signal is not None:
        raise stop.preempted(f"the features of {done} of {total} views are kept")


def _batches(setup: Setup, views: Views, folder: pathlib.Path, size: int, first: int):
  data = setup.config.data
  return loader.view_batches(
    setup.train,
    setup.task.example,
    views,
    batch_size=size,
    first=first,
    num_threads=data.threads,
    prefetch=data.prefetch,
    unreadable=left_out(data, "the training data", setup.train, folder),
    timeout_s=data.timeout_s,
  )


def _check_range(found: Float16[np.ndarray, "r n c"]) -> None:
  if not np.isfinite(found).all():
    raise UsageError(
      "Some of the backbone's features are too large for half precision; set "
      "config.data.features_mb=0, and they are computed in every step."
    )


def _same(
  kept: Float16[np.ndarray, "r n c"], setup: Setup, views: Views, features: Features, size: int
) -> bool:
  """Whether some of the rows that are there, a batch of them, are what would be computed now."""
  rows, examples = [], []
  for row in np.linspace(0, len(kept) - 1, size).astype(int).tolist():
    index, view = divmod(row, views.count)
    # One that is left out has nothing to compare.
    with contextlib.suppress(DataError):
      examples.append(setup.task.example(setup.train[index], views.rng(index, view)))
      rows.append(row)
  examples += examples[-1:] * (size - len(rows))
  batch = {name: np.stack([one[name] for one in examples]) for name in examples[0]}
  computed = np.asarray(features(sharding.put_batch(setup.mesh, batch)), np.float32)[: len(rows)]
  return bool(np.abs(computed - kept[rows]).max() <= _TOLERANCE * np.abs(computed).max())

"""Shape annotations of rtune are executed in every test; real data lie beside the checkout."""

import contextlib
import logging
import os
import pathlib
import shutil
import tempfile
from importlib.metadata import version

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# What jax would silently convert or broadcast is an error here, in commands that tests start too.
os.environ["JAX_NUMPY_DTYPE_PROMOTION"] = "strict"
os.environ["JAX_NUMPY_RANK_PROMOTION"] = "raise"

import pytest
from jaxtyping import install_import_hook

install_import_hook("rtune", "beartype.beartype")


def _stay_on_one_core():
  """Of several workers each has a core: XLA's threads wait for each other by spinning."""
  worker = os.environ.get("PYTEST_XDIST_WORKER", "")
  on_cpu = os.environ["JAX_PLATFORMS"] == "cpu"  # else they compile, with as many as there are
  if worker and on_cpu and hasattr(os, "sched_setaffinity"):
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[int(worker.removeprefix("gw")) % len(cores)]})


def _compile_quickly():
  """XLA's older code for CPUs takes half the time to compile; slow tests have what users have."""
  on_cpu, known = os.environ["JAX_PLATFORMS"] == "cpu", version("jaxlib").startswith("0.10.")
  if on_cpu and known:  # of a flag that it does not know XLA dies
    quick = "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
    os.environ["XLA_FLAGS"] = f"{quick} {os.environ.get('XLA_FLAGS', '')}".strip()


def pytest_configure(config):
  """Tests build the same small programs again and again, also in processes of their own."""
  _stay_on_one_core()
  if config.option.markexpr == "not slow" and not hasattr(config, "workerinput"):
    _compile_quickly()  # workers are started with it
  folder = tempfile.mkdtemp(prefix="rtune_compiled_")
  config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))
  os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", folder)
  os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")
  # What code a person trusts is remembered in their own folder; tests have another.
  os.environ["XDG_CONFIG_HOME"] = folder


@pytest.fixture(autouse=True)
def own_logging():
  """Leaves rtune's logger as it was: a command that starts in this process takes it over."""
  logger = logging.getLogger("rtune")
  before = logger.propagate, logger.level, [*logger.handlers]
  yield
  logger.propagate, logger.level, logger.handlers = before


@contextlib.contextmanager
def _optimized(value: bool):
  import jax

  before = jax.config.values["jax_disable_most_optimizations"]
  jax.config.update("jax_disable_most_optimizations", not value)
  yield
  jax.config.update("jax_disable_most_optimizations", before)


@pytest.fixture(scope="module")
def quick_compiles():
  """For modules whose last bits do not matter: they compile in half the time."""
  with _optimized(False):
    yield


@pytest.fixture
def compiled():
  """Seconds of each compilation from here on, as they come."""
  import jax

  found = []

  def listen(event, seconds, **_):
    if event == "/jax/core/compile/backend_compile_duration":
      found.append(seconds)

  jax.monitoring.register_event_duration_secs_listener(listen)
  yield found
  jax.monitoring.unregister_event_duration_listener(listen)


@pytest.fixture(scope="session")
def shared_data() -> pathlib.Path:
  """The folder of real images and annotations; tests that need it skip where it is absent."""
  path = pathlib.Path(__file__).resolve().parents[2] / "shared" / "data"
  if not path.is_dir():
    pytest.skip(f"needs real images in {path}, which is not there")
  return path


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory) -> pathlib.Path:
  """The workdir of a finished run: evaluations and checkpoints of steps 10, 20, 30. Read only."""
  from rtune.config.load import load_config
  from rtune.training import loop

  config = pathlib.Path(__file__).resolve().parents[1] / "configs" / "detection_recall.py"
  folder = tmp_path_factory.mktemp("tiny_run")
  with _optimized(True):  # whatever the module says that comes first: others are compared with it
    loop.run(load_config(f"{config}:tiny", [("checkpoints.keep_every", "10")]), str(folder))
  return folder


@pytest.fixture(scope="session")
def boxes_run(tiny_run, tmp_path_factory) -> pathlib.Path:
  """A copy of `tiny_run` that draws boxes, other ones in every image and phase. Read only.

  Its weights are made by hand: a strong code in the position embeddings says which field of a box
  comes next, and random weights on what the image adds decide the rest.
  """
  import shutil

  import numpy as np

  from rtune.store import manifest, run_files, weights
  from rtune.training import evaluation, open_data, restore
  from rtune.training.setup import metrics_of

  folder = tmp_path_factory.mktemp("boxes_run") / "run"
  shutil.copytree(tiny_run, folder)
  for seed, phase in enumerate(("mle", "reward")):
    path = run_files.weights_path(folder, phase)
    leaves = weights.flatten(weights.load_weights(path))
    rng = np.random.default_rng(1 + seed)
    positions, width = leaves["decoder/pos_embedding"].shape[1:]
    code = np.linalg.qr(rng.normal(size=(width, 6)))[0].T
    # Tokens: 0 ends, 1 and 2 are confidences, 3 to 51 coordinates, then six classes.
    fields = [range(3, 28), range(3, 28), range(28, 52), range(28, 52), range(52, 58), (1, 2)]
    kernel = 4 * rng.normal(size=(width, 58))
    for field, tokens in enumerate(fields):
      kernel[:, list(tokens)] += 20 * code[field][:, None]
    kernel[:, 0] = kernel[:, 3] + 0.5 * rng.normal(size=width)
    changed = {
      "decoder/pos_embedding": 8 * code[np.arange(positions) % 6][None],
      "decoder/LogitsDense/kernel": kernel,
      "decoder/LogitsDense/bias": np.zeros(58),
      "decoder/EmbedTargets/embedding": 0.1 * leaves["decoder/EmbedTargets/embedding"],
    }
    for name, value in changed.items():
      assert value.shape == leaves[name].shape, name
      leaves[name] = value.astype(np.float32)
    for name in leaves:
      if name.startswith("decoder/") and "CrossAttn" in name and name.endswith("kernel"):
        leaves[name] = np.float32(1.5) * leaves[name]
    weights.save_weights(path, weights.nest(leaves), {"phase": phase, "format": "rtune"})
    manifest.add(path)
  run = restore.restore(folder)
  predict, metrics = evaluation.predictor(run), metrics_of(run.config, run.task)
  for phase in restore.finished(run):
    source = open_data.open_source(run)
    values = evaluation.evaluate_phase(run, phase, predict, source, metrics, 0).values
    named = {f"val/{name}": value for name, value in values.items()}
    run_files.add_results(folder, phase, named, 60.0)
  return folder

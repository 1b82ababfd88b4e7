"""The training state on disk: orbax writes it in the background, a manifest proves it whole.

A step is a folder `<step>/` with `state/` (orbax), `meta/metadata` (JSON) and `manifest.json` (size
and SHA-256 of their files). orbax writes to a temporary folder and renames it, so that a step is
there or is not. But it reads a flipped bit back as wrong numbers, and at a truncated file it stops
instead of turning to the step before. So the manifest is made before the rename, checked on load.
"""

import os
import pathlib
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from rtune import disk
from rtune.devices import peers
from rtune.display import console
from rtune.errors import RtuneError, StorageError, UsageError
from rtune.store import manifest, steps, weights
from rtune.store.save_log import SaveLog

_META = pathlib.PurePath("meta", "metadata")
_OVERHEAD = 2**20  # bytes of a step beside its arrays, at most
_FAILED = -2  # what the first process tells the others instead of a step


class Checkpoints:
  """Saves and restores the training state of one run; all processes make the same calls.

  Opening it removes what an interrupted save left behind and looks for the newest whole step.
  Damaged steps are renamed `<step>.corrupt`, never deleted.

  Args:
    directory: a folder of its own on storage that all processes share; made if it is not there.
    keep_last: newest steps that stay.
    keep_every: steps whose multiples stay for good; 0 for none.
    on_error: "stop": a save that fails is raised; "warn": it is told, and the next one tries again.

  Raises:
    StorageError: the folder cannot be used, or has steps of which none is whole.
    UsageError: the newest step was written by a newer rtune.
  """

  def __init__(
    self,
    directory: str | os.PathLike[str],
    keep_last: int = 2,
    keep_every: int = 0,
    on_error: str = "stop",
  ):
    self._directory = pathlib.Path(directory).absolute()
    self._warns = on_error == "warn"
    self._failed: StorageError | None = None  # of the newest save, where it is only told
    self._latest = _newest_for_all(self._directory)
    self._saving = (0, 0)  # step and bytes of the save that runs in the background
    keep = [ocp.checkpoint_managers.LatestN(keep_last)]
    if keep_every:
      keep.append(ocp.checkpoint_managers.EveryNSteps(keep_every))
    # Compressing costs time and saves little: parameters and moments look like noise.
    handler = ocp.PyTreeCheckpointHandler(use_ocdbt=True, use_compression=False)
    registry = ocp.DefaultCheckpointHandlerRegistry()
    registry.add("state", ocp.args.PyTreeSave, handler)
    registry.add("state", ocp.args.PyTreeRestore, handler)
    options = ocp.CheckpointManagerOptions(
      preservation_policy=ocp.checkpoint_managers.AnyPreservationPolicy(keep),
      async_options=ocp.AsyncOptions(post_finalization_callback=self._seal),
      save_root_metadata=False,
    )
    self._log = SaveLog(self._directory.with_suffix(".log"))
    self._log.start()
    self._manager = ocp.CheckpointManager(
      self._directory, options=options, handler_registry=registry
    )

  def save(self, step: int, state: Any, meta: dict[str, Any]) -> None:
    """Starts to save; returns when the arrays are copied, so that the caller may donate them.

    Waits for the save before it. A step that is already there stays as it is.

    Args:
      step: steps done since the start of the run.
      state: pytree of jax arrays.
      meta: JSON that is needed before the state can be read, such as the phase.

    Raises:
      StorageError: this save could not start, or the one before it failed.
    """
    self.wait()
    self._failed = None
    if step in self._manager.all_steps():
      return
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(state)) + _OVERHEAD
    self._saving = (step, size)
    # Told now, this is one line; told by threads in the middle of writing it is pages.
    if disk.free_bytes(self._directory) < size:
      self._fail(OSError("the disk is full"))
      return
    args = ocp.args.Composite(state=ocp.args.PyTreeSave(state), meta=ocp.args.JsonSave(meta))
    try:
      self._manager.save(step, args=args, force=True)
    except (OSError, ValueError, RuntimeError) as error:
      self._fail(error)

  def latest_meta(self) -> dict[str, Any] | None:
    """The meta of the newest whole step at opening; None if there was no step."""
    return self._latest and self._latest[1]

  def restore_latest(self, template: Any) -> tuple[int, Any, dict[str, Any]] | None:
    """Reads the newest whole step at opening into the layout of `template`.

    Args:
      template: pytree of arrays or `jax.ShapeDtypeStruct`s, each with the sharding to read into,
        which need not be the one it was saved with.

    Returns:
      (step, state, meta); None if there was no step.

    Raises:
      UsageError: the step holds other leaves than the template.
      StorageError: the step could not be read.
    """
    if self._latest is None:
      return None
    step, meta = self._latest
    self.check_fits(template)
    try:
      args = ocp.args.PyTreeRestore(
        template, restore_args=ocp.checkpoint_utils.construct_restore_args(template)
      )
      state = self._manager.restore(step, args=ocp.args.Composite(state=args))["state"]
    except (OSError, ValueError, KeyError, RuntimeError) as error:
      raise self._unreadable(error) from error
    return step, state, meta

  def check_fits(self, template: Any) -> None:
    """UsageError, with a table, where the newest step holds other leaves than `template`.

    Raises:
      StorageError: the step could not be read.
    """
    if self._latest is None:
      return
    step = self._latest[0]
    try:
      saved = self._manager.item_metadata(step)["state"].tree
    except (OSError, ValueError, KeyError, RuntimeError) as error:
      raise self._unreadable(error) from error
    table = weights.differences(_shapes(template), _shapes(saved))
    if table:
      raise UsageError(
        f"checkpoint {self._directory / str(step)} does not fit this config; go back to the "
        f"config that it was made with or give another --workdir.\n{table}"
      )

  def _unreadable(self, error: Exception) -> StorageError:
    folder = self._directory / str(self._latest[0])
    return StorageError(
      f"checkpoint {folder} could not be read: {_first_line(error)}. "
      "Move it away to go on from the one before."
    )

  def check_errors(self) -> None:
    """Raises the StorageError of a save that failed in the background; cheap, for every step."""
    if not self._manager.is_saving_in_progress():
      self.wait()

  def wait(self) -> None:
    """Returns when the last save is on disk; StorageError if it failed."""
    try:
      self._manager.wait_until_finished()
    except Exception as error:  # Whatever ended the background thread.
      self._fail(error)

  def settle(self) -> None:
    """Returns when the last save is on disk; StorageError if it failed, told already or not."""
    self.wait()
    if self._failed is not None:
      raise self._failed

  def close(self) -> None:
    """Waits for the last save and ends the background threads; StorageError if it failed."""
    try:
      self.wait()
    finally:
      self._manager.close()

  def _seal(self) -> None:
    """Writes the manifest; called by orbax in the first process, when all files are written."""
    step = self._saving[0]
    folder, *_ = [*self._directory.glob(f"{step}.*-tmp*"), self._directory / str(step)]
    manifest.write(folder)

  def _fail(self, error: Exception) -> None:
    """Clears up after a failed save, so that the next one can succeed, and raises or tells it."""
    step, size = self._saving
    lost = peers.lost_by(error)
    if lost is not None:
      raise lost from error
    if jax.process_index() == 0:
      steps.remove_unfinished(self._directory)
    self._manager.reload()  # It has forgotten the steps that this one was to replace.
    free = disk.free_bytes(self._directory)
    self._failed = StorageError(
      f"step {step} could not be saved in {self._directory}: {_first_line(error)} "
      f"({free:,} bytes free, {size:,} needed). The checkpoints before it are intact: mend the "
      "storage and run the same command again."
    )
    if not self._warns:
      raise self._failed from error
    console.warn(f"{self._failed} Training goes on, and the next save tries again.")


def _newest_for_all(directory: pathlib.Path) -> tuple[int, dict[str, Any]] | None:
  """`steps.newest`, decided by the first process: the others may see the shared folder later."""
  step, failure = steps.NONE, None
  if jax.process_index() == 0:
    try:
      step = steps.newest(directory)
    except RtuneError as error:
      step, failure = _FAILED, error
  step = int(multihost_utils.broadcast_one_to_all(np.int32(step)))
  if step == _FAILED:
    raise failure or StorageError(f"{directory}: no checkpoint to go on from; see process 0.")
  if step == steps.NONE:
    return None
  return step, disk.parse_json((directory / str(step) / _META).read_bytes())


def _shapes(tree: Any) -> dict[str, str]:
  """Leaves by path as "float32 [4, 3]"; random keys as the numbers they are stored as."""
  shapes = {}
  for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
    name = jax.tree_util.keystr(path, simple=True, separator="/")
    if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
      leaf = jax.eval_shape(jax.random.key_data, leaf)
    shapes[name] = f"{leaf.dtype} {list(leaf.shape)}"
  return shapes


def _first_line(error: Exception) -> str:
  return str(error).strip().partition("\n")[0][:300] or type(error).__name__

"""Parameters of steps gone by, out of a folder of checkpoints that is only read.

`Checkpoints` is for the run itself: opening it clears up. This may look on while a run writes.
"""

import pathlib
from typing import Any

import jax
import orbax.checkpoint as ocp

from rtune.disk import parse_json
from rtune.errors import StorageError
from rtune.store import manifest


def kept_steps(workdir: pathlib.Path) -> dict[int, str]:
  """The steps that have a whole checkpoint, rising, each with its phase."""
  folders = [path for path in (workdir / "checkpoints").glob("*") if path.name.isdigit()]
  steps = {}
  for folder in sorted(folders, key=lambda path: int(path.name)):
    if manifest.problem(folder) is None:
      steps[int(folder.name)] = parse_json((folder / "meta" / "metadata").read_text())["phase"]
  return steps


def read_params(workdir: pathlib.Path, step: int, template: Any) -> Any:
  """The parameters of a checkpoint, without the rest of the training state.

  Args:
    template: parameters of the same model, placed as these shall be.

  Raises:
    StorageError: the checkpoint is not there any more, or cannot be read.
  """
  folder = workdir.absolute() / "checkpoints" / str(step)
  shapes = {"params": jax.tree.map(_shape, template)}
  args = ocp.args.PyTreeRestore(
    shapes,
    restore_args=ocp.checkpoint_utils.construct_restore_args(shapes),
    partial_restore=True,  # the optimizer's moments may be twice as large as the parameters
  )
  try:
    with ocp.PyTreeCheckpointer() as reader:
      return reader.restore(folder / "state", args=args)["params"]
  except (OSError, ValueError, KeyError) as error:
    first_line = str(error).strip().partition("\n")[0][:300]
    raise StorageError(f"checkpoint {folder} could not be read: {first_line}") from error


def _shape(leaf: jax.Array) -> jax.ShapeDtypeStruct:
  return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)

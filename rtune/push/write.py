"""The folder of a model as a hub has it: a workdir that predicts, and its card."""

import os
import pathlib
import shutil
from collections.abc import Sequence

from rtune import commands
from rtune.disk import write_whole
from rtune.errors import UsageError
from rtune.push.card import card
from rtune.store import best_weights, manifest, run_files
from rtune.tasks.task import knowledge
from rtune.training import code_weights, restore
from rtune.training.restore import Restored

CARD = "README.md"


def write(
  workdir: str | os.PathLike[str],
  out: str | os.PathLike[str],
  repo: str,
  compare: str = "",
  phases: Sequence[str] = (),
  license: str = "",
) -> None:
  """Fills the folder `out`, which is made, and must be empty.

  Args:
    repo: user/name, for the card.
    compare: workdir of another run, such as the control, whose numbers stand in the card.
    phases: whose weights; (): all that are finished.
    license: of the weights, as the hub names it; "": the card says that there is none.

  Raises:
    UsageError: no such weights; `out` holds something; `compare` was judged by other data.
    StorageError: the weights were altered.
  """
  run = restore.restore(workdir)
  other = restore.restore(compare) if compare else None
  chosen = _chosen(run, phases)
  if other is not None and other.config.data.val != run.config.data.val:
    raise UsageError(f"--compare {compare}: it was judged by other data than {workdir}.")
  folder = commands.make_folder(out)
  if any(folder.iterdir()):
    raise UsageError(f"{folder} is not empty; give a new folder.")
  run_files.write_config(folder, run.config)
  for name in (run_files.RESULTS, run_files.FOUND):
    if (run.folder / name).is_file():
      shutil.copyfile(run.folder / name, folder / name)
  knowledge(run.task).save(folder)
  (folder / "weights").mkdir()
  for phase in chosen:
    _copy(run_files.weights_path(run.folder, phase), folder)
    best = best_weights.find(run.folder, phase)
    if best is not None:
      _copy(best.path, folder)
  write_whole(folder / CARD, card(run, repo, other, license))


def _chosen(run: Restored, phases: Sequence[str]) -> list[str]:
  """The phases whose weights lie in the workdir, and are wanted; the code model always is."""
  there = [
    name for name in restore.finished(run) if run_files.weights_path(run.folder, name).is_file()
  ]
  for name in phases:
    if name not in there:
      found = f"there is {', '.join(there)}" if there else "no phase is finished"
      raise UsageError(f"--phase {name}: {run.folder} has no weights of it; {found}.")
  if not there:
    raise UsageError(f"{run.folder} has no weights to send; no phase is finished.")
  return [name for name in there if not phases or name in (*phases, code_weights.NAME)]


def _copy(weights: pathlib.Path, folder: pathlib.Path) -> None:
  path = folder / "weights" / weights.name
  shutil.copyfile(run_files.whole(weights), path)
  manifest.add(path)

"""What a run tells in tables: of what its models consist, and what its phases came to."""

import pathlib
from typing import Any

import jax
from clu import parameter_overview

from rtune import config as configs
from rtune.display import console
from rtune.store import run_files


def say_parameters(folder: pathlib.Path, config: configs.Config, phase: str, params: Any) -> None:
  """Parameters of each part of the code model and of the policy, each once in a run.

  parameters.txt and parameters_codes.txt have every array.
  """
  first = next((name for name in config.phases if name != "codes"), "")
  if phase not in ("codes", first) and not config.init_from:
    return
  parts = {f"{a}/{b}": params[a][b] for a in params for b in params[a]}
  rows = [(name, sum(x.size for x in jax.tree.leaves(part))) for name, part in parts.items()]
  total = ("total", sum(count for _, count in rows))
  console.say(console.table([*rows, total], ("part", "parameters")))
  overview = parameter_overview.get_parameter_overview(params, include_stats=False)
  file = "parameters_codes.txt" if phase == "codes" else "parameters.txt"
  run_files.write_whole(folder / file, overview + "\n")


def results_table(results: dict[str, Any], headline: tuple[str, ...]) -> str:
  """The phases side by side."""
  phases = [name for name in results if name != "seconds"]
  known = {key for name in phases for key in results[name]}
  columns = [key for key in (*headline, "reward") if f"val/{key}" in known]
  rows = [
    [name, *(results[name].get(f"val/{key}") for key in columns), results["seconds"][name]]
    for name in phases
  ]
  return console.table(rows, ["phase", *columns, "seconds"])

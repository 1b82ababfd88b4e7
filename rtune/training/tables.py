"""What a run tells in tables: of what its models consist, and what its phases came to."""

import pathlib
from typing import Any

from clu import parameter_overview

from rtune import config as configs
from rtune.display import console
from rtune.store import run_files, weights
from rtune.training.phases import Phase, phase_of


def say_parameters(folder: pathlib.Path, config: configs.Config, phase: Phase, params: Any) -> None:
  """Parameters of each part of what a phase trains, each once in a run.

  parameters.txt has every array of the policy, parameters_<phase>.txt those of another network.
  """
  same = [name for name in config.phases if phase_of(name).learns is phase.learns]
  if phase.name != same[0] and not config.init_from:
    return
  parts: dict[str, int] = {}
  for name, leaf in weights.flatten(params).items():
    part = "/".join(name.split("/")[:2])
    parts[part] = parts.get(part, 0) + leaf.size
  rows = list(parts.items())
  total = ("total", sum(count for _, count in rows))
  console.say(console.table([*rows, total], ("part", "parameters")))
  overview = parameter_overview.get_parameter_overview(params, include_stats=False)
  file = "parameters.txt" if phase.learns.answers else f"parameters_{phase.name}.txt"
  run_files.write_whole(folder / file, overview + "\n")


def results_table(results: dict[str, Any], headline: tuple[str, ...]) -> str:
  """The phases side by side."""
  phases = [name for name in results if name != "seconds"]
  known = {key for name in phases for key in results[name]}
  # A task that says nothing of what matters most shows all there is.
  headline = headline or sorted(k.removeprefix("val/") for k in known if k.startswith("val/"))
  columns = [key for key in dict.fromkeys((*headline, "reward")) if f"val/{key}" in known]
  rows = [
    [name, *(results[name].get(f"val/{key}") for key in columns), results["seconds"][name]]
    for name in phases
  ]
  return console.table(rows, ["phase", *columns, "seconds"])

"""All commands behind one name: `rtune COMMAND [flags]`, or `python -m rtune COMMAND [flags]`.

A command is a module; `rtune evaluate` does what `python -m rtune.evaluate` does.
"""

import difflib
import runpy
import sys
from collections.abc import Sequence

from rtune import commands
from rtune.errors import UsageError

# Names in order of use, their modules, and what each does.
COMMANDS = {
  "train": ("rtune.main", "train a model and tune it, as a config says"),
  "evaluate": ("rtune.evaluate", "score a trained model"),
  "predict": ("rtune.predict", "predict on images and draw the predictions"),
  "report": ("rtune.report", "one page about a run"),
  "compare": ("rtune.compare", "runs side by side"),
  "analyze": ("rtune.analyze", "what tuning did to a model"),
  "export": ("rtune.export", "one file that predicts without rtune"),
  "push": ("rtune.push", "a trained model to the Hugging Face Hub, with its card"),
  "class_weights": ("rtune.class_weights", "how often each class occurs, and weights"),
  "plan": ("rtune.plan", "what a config needs on other machines"),
  "benchmark": ("rtune.benchmark", "how fast this machine is"),
  "doctor": ("rtune.doctor", "what is installed, and what is wrong with a workdir"),
  "completion": ("rtune.completion", "completion of commands and flags for a shell"),
}


def usage() -> str:
  """What there is, one command a line."""
  lines = ["usage: rtune COMMAND [flags]; rtune COMMAND --help says which", ""]
  lines += [f"  {name:<14} {about}" for name, (_, about) in COMMANDS.items()]
  example = "rtune train --config configs/detection_recall.py --workdir runs/recall"
  return "\n".join([*lines, "", f"example: {example}"])


def main(args: Sequence[str] | None = None) -> int:
  """Runs a command as if its module had been; returns, or exits with, its exit code."""
  given = sys.argv[1:] if args is None else args
  name, *rest = given or ["--help"]

  def run() -> None:
    if name in ("--help", "-h"):
      print(usage())
      return
    if name not in COMMANDS:
      near = difflib.get_close_matches(name, COMMANDS, n=1)
      hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(COMMANDS)}."
      raise UsageError(f"rtune has no command {name!r}; {hint}")
    module, _ = COMMANDS[name]
    sys.argv = [f"rtune {name}", *rest]
    runpy.run_module(module, run_name="__main__", alter_sys=True)

  return commands.guarded(run)


if __name__ == "__main__":
  sys.exit(main())

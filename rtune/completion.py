"""Completion of commands and flags in a shell.

rtune completion bash >> ~/.bash_completion
rtune completion zsh >> ~/.zshrc
"""

import contextlib
import importlib.util
import io
import re
import sys
import types
from collections.abc import Sequence

from rtune import commands
from rtune.__main__ import COMMANDS

_BASH = """\
_rtune() {{
  local word=${{COMP_WORDS[COMP_CWORD]}} words
  if [ "$COMP_CWORD" -eq 1 ]; then
    words="{names}"
  else
    case ${{COMP_WORDS[1]}} in
{cases}
    esac
  fi
  COMPREPLY=($(compgen -W "$words" -- "$word"))
}}
complete -o default -F _rtune rtune
"""
_ZSH = "autoload -U +X compinit && compinit\nautoload -U +X bashcompinit && bashcompinit\n"


def main(args: Sequence[str]) -> int:
  """The command; returns its exit code."""
  about = "Prints a script that completes commands and flags."
  parser = commands.Parser("rtune.completion", about, "rtune completion bash >> ~/.bash_completion")
  parser.add_argument("shell", choices=("bash", "zsh"))
  return commands.guarded(lambda: print(script(parser.parse_args(args).shell), end=""))


def script(shell: str) -> str:
  """For "bash" or "zsh". Flags are looked up now, so that completing them starts nothing."""
  others = [name for name in COMMANDS if name != "completion"]
  cases = [f'      {name}) words="{" ".join(flags_of(COMMANDS[name][0]))}" ;;' for name in others]
  cases.append('      completion) words="bash zsh" ;;')
  bash = _BASH.format(names=" ".join(COMMANDS), cases="\n".join(cases))
  return (_ZSH if shell == "zsh" else "") + bash


def flags_of(module: str) -> list[str]:
  """The flags that a command's own help names."""
  with contextlib.redirect_stdout(io.StringIO()) as text, contextlib.suppress(SystemExit):
    module_of(module).main(["--help"])
  return sorted(set(re.findall(r"(?<![\w-])--[a-z]\w*", text.getvalue())))


def module_of(command: str) -> types.ModuleType:
  """What `python -m <command>` runs."""
  is_package = importlib.util.find_spec(command).submodule_search_locations is not None
  return importlib.import_module(f"{command}.__main__" if is_package else command)


if __name__ == "__main__":
  sys.exit(main(sys.argv[1:]))

"""Writes docs/knobs.md from the dataclasses of rtune/config/knobs.py and rtune/models/sizes.py.

python docs/make_knobs.py
"""

import ast
import pathlib
import re
from collections.abc import Iterator

ROOT = pathlib.Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "knobs.md"
# Class -> where its settings stand.
PLACES = {
  "Config": "config",
  "Data": "config.data",
  "Imitate": "config.mle, config.control, config.pseudo, config.active",
  "Reward": "config.reward",
  "ActorCritic": "config.actor_critic",
  "Coding": "config.codes",
  "Optim": "config.PHASE.optim",
  "Adapt": "config.PHASE.adapt",
  "Checkpoints": "config.checkpoints",
  "Model": "config.model",
  "Encoder": "config.model.encoder",
  "Decoder": "config.model.decoder",
  "CodeSizes": "config.task.args.codes",
  "Part": "a Part: code by name",
  "Weighted": "a Weighted: one of several",
}
_HEAD = """# All knobs

Each is set on the command line, `--config.mle.optim.lr=1e-3`, or in a config file. The page is made
of the dataclasses that hold them (`python docs/make_knobs.py`).
"""


def page() -> str:
  """The page's text."""
  classes = {}
  for path in ("rtune/config/knobs.py", "rtune/models/sizes.py"):
    source = (ROOT / path).read_text()
    classes |= {
      node.name: (node, source.splitlines())
      for node in ast.parse(source).body
      if isinstance(node, ast.ClassDef)
    }
  parts = [_HEAD]
  for name, place in PLACES.items():
    node, lines = classes[name]
    summary = (ast.get_docstring(node) or "").partition("\n")[0]
    parts.append(f"## {place}\n\n{summary}\n\n| setting | default | |\n|---|---|---|")
    parts.append("\n".join(_rows(node, lines)) + "\n")
  return "\n".join(parts)


def _rows(node: ast.ClassDef, lines: list[str]) -> Iterator[str]:
  for field in node.body:
    if not isinstance(field, ast.AnnAssign):
      continue
    default = ast.unparse(field.value) if field.value else ""
    default = default.replace("field(default_factory=dict)", "{}")
    default = re.sub(r"field\(default_factory=(\w+)\)", r"\1()", default)
    text = _comment(field, lines).replace("|", "\\|")
    yield f"| `{field.target.id}` | `{default}` | {text} |"


def _comment(field: ast.AnnAssign, lines: list[str]) -> str:
  """What stands behind a field, or in the lines above it."""
  behind = re.search(r"#\s(.*)$", lines[field.end_lineno - 1])
  if behind:
    return behind[1]
  above, row = [], field.lineno - 2
  while lines[row].lstrip().startswith("# "):
    above.append(lines[row].strip()[2:])
    row -= 1
  return " ".join(reversed(above))


if __name__ == "__main__":
  PAGE.write_text(page())

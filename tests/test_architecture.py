"""The rooms of the package; imports point down, as docs/architecture.md says."""

import ast
import pathlib

ROOT = pathlib.Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "rtune"
# From the top down; what stands in one line may not import each other.
FLOORS = (
  ("completion",),
  ("__main__",),
  ("main",),
  (
    *("evaluate", "predict", "class_weights", "analyze", "compare", "plan"),
    *("doctor", "export", "push"),
  ),
  ("inference",),
  ("benchmark",),
  ("report",),
  ("training",),
  ("store",),
  ("tasks",),
  ("policies", "metrics"),
  ("models",),
  ("rewards",),
  ("text",),
  ("data",),
  ("predictions",),
  ("commands",),
  ("display", "config"),
  ("devices",),
  ("disk",),
  ("errors",),
)
# Modules that stand on another floor than their room, and why.
ELSEWHERE = {
  # What a step costs: benchmark counts with it, and training says it where memory runs out.
  "plan.counts": "policies",
  "plan.memory": "policies",
  "models.sizes": "devices",  # plain dataclasses, which the config holds
  "display.console": "errors",  # everybody may speak
}


def room(module: str) -> str:
  """The room of rtune.<module>."""
  return module.split(".")[0]


def floor(module: str) -> int:
  """How far down a module stands."""
  for name, other in ELSEWHERE.items():
    if module == name or module.startswith(f"{name}."):
      return next(level for level, rooms in enumerate(FLOORS) if other in rooms)
  return next(level for level, rooms in enumerate(FLOORS) if room(module) in rooms)


def imports(path: pathlib.Path) -> set[str]:
  """The modules of rtune that a file imports, anywhere in it, without "rtune."."""
  found = set()
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "rtune":
      for alias in node.names:
        full = f"{node.module}.{alias.name}".removeprefix("rtune.")
        file = PACKAGE / full.replace(".", "/")
        known = file.with_suffix(".py").is_file() or file.is_dir()
        found.add(full if known else node.module.removeprefix("rtune").lstrip("."))
  return found - {""}


def modules() -> dict[str, pathlib.Path]:
  """All modules without "rtune.", with their files."""
  files = (path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")
  names = {str(p.relative_to(PACKAGE).with_suffix("")).replace("/", "."): p for p in files}
  return {name.removesuffix(".__init__"): path for name, path in names.items()}


def test_every_room_has_a_floor():
  rooms = {room(name) for name in modules()}
  listed = [name for level in FLOORS for name in level]
  assert sorted(listed) == sorted(rooms)


def test_imports_point_down():
  wrong = []
  for name, path in modules().items():
    for other in imports(path):
      if room(other) != room(name) and floor(other) <= floor(name):
        wrong.append(f"{name} -> {other}")
      if room(other) == room(name) and floor(other) < floor(name):
        wrong.append(f"{name} -> {other}")
  assert not wrong


def test_rewards_metrics_and_predictions_know_no_task():
  for name, path in modules().items():
    if room(name) in ("rewards", "metrics", "predictions"):
      above = {"tasks", "policies", "models", "training", "config", "store"}
      assert not {other for other in imports(path) if room(other) in above}, name


def test_flax_stays_in_the_models():
  for name, path in modules().items():
    text = path.read_text()
    assert ("flax" not in text.replace("Flax", "")) or room(name) in ("models", "store"), name

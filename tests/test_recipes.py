"""The recipes of docs/architecture.md, each tried as it is written."""

import pathlib
import re
import shlex

import jax
import pytest

from rtune import main
from rtune.store import run_files

ROOT = pathlib.Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "architecture.md").read_text()
FILES = {"reward": 1, "task": 2, "policy": 1, "data source": 1}


def recipe(kind: str) -> tuple[dict[str, str], list[str]]:
  """The files of a recipe by name, and the arguments of its command."""
  section = re.search(rf"^### A new {kind}:.*?(?=^### )", PAGE, re.MULTILINE | re.DOTALL)[0]
  blocks = re.findall(r"^```python\n# (\S+)\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
  command = re.search(r"^```bash\npython -m rtune.main (.*?)\n```$", section, re.MULTILINE)[1]
  return dict(blocks), shlex.split(command)


@pytest.mark.parametrize("kind", FILES)
def test_number_of_files(kind):
  files, _ = recipe(kind)
  assert len(files) == FILES[kind]


@pytest.mark.slow
@pytest.mark.parametrize("kind", FILES)
def test_recipe_runs_as_written(kind, tmp_path, monkeypatch):
  files, args = recipe(kind)
  for name, text in files.items():
    (tmp_path / name).write_text(text)
  (tmp_path / "configs").symlink_to(ROOT / "configs")
  monkeypatch.chdir(tmp_path)
  # What a user writes need not be strict.
  with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
    assert main.main(args) == 0
  workdir = tmp_path / args[args.index("--workdir") + 1]
  results = run_files.read_results(workdir)
  assert {"mle", "reward"} <= set(results)
  assert (workdir / "report.html").is_file()

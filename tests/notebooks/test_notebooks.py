"""Notebooks run from a clean kernel, and can be read as they are stored.

The fast test runs one with a few steps: the values in the cell tagged `parameters` are replaced.
The slow ones run them as they are.
"""

import copy
import os
import pathlib
import re
import shutil
import sys
import tomllib

import pytest

nbformat = pytest.importorskip("nbformat", reason="needs nbformat: pip install 'rtune[test]'")

ROOT = pathlib.Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "notebooks").glob("*.ipynb"))
NAMES = [path.stem for path in FILES]
FAST = [path for path in FILES if path.stem[:2] == "01"]  # the others take a minute each
MOST_BYTES = 600_000
# More steps than those in which the learning rate rises.
SHORT = {"code_steps": 60, "imitation_steps": 60, "tuning_steps": 30, "images": 8}
# Folders of one machine: /home/me, /root, /tmp/x, /content of Colab, C:\Users\me.
OF_A_MACHINE = re.compile(
  r"(?<![\w.:/-])/(?:home|root|tmp|Users|work|content|mnt)/|\b[A-Z]:\\Users"
)


def read(path: pathlib.Path):
  return nbformat.read(path, as_version=4)


def code_cells(notebook) -> list:
  return [cell for cell in notebook.cells if cell.cell_type == "code"]


def parameters(notebook):
  """The cell that says how much is trained."""
  (cell,) = [x for x in notebook.cells if "parameters" in x.metadata.get("tags", ())]
  return cell


def shortened(notebook):
  """The notebook with other numbers in its parameters cell, and nothing else changed."""
  notebook = copy.deepcopy(notebook)
  cell = parameters(notebook)
  *comments, line = cell.source.splitlines()
  names = [name.strip() for name in line.partition("=")[0].split(",")]
  values = ", ".join(str(SHORT[name]) for name in names)
  cell.source = "\n".join([*comments, f"{', '.join(names)} = {values}"])
  return notebook


def execute(notebook, folder: pathlib.Path, monkeypatch) -> None:
  """Runs all cells in a new kernel, in a folder that is laid out as the repository."""
  nbclient = pytest.importorskip("nbclient", reason="needs nbclient: pip install 'rtune[test]'")
  pytest.importorskip("ipykernel", reason="needs ipykernel: pip install 'rtune[test]'")
  binaries = pathlib.Path(sys.executable).parent
  if not (binaries / "rtune").exists():
    pytest.skip(f"needs the command rtune in {binaries}: pip install -e .")
  (folder / "notebooks").mkdir(exist_ok=True)
  for name in ("configs", "docs"):
    if not (folder / name).exists():
      shutil.copytree(ROOT / name, folder / name)
  monkeypatch.setenv("PATH", f"{binaries}{os.pathsep}{os.environ['PATH']}")
  # As users have it: that notebooks pass strict promotion is no promise.
  for name in ("JAX_NUMPY_DTYPE_PROMOTION", "JAX_NUMPY_RANK_PROMOTION"):
    monkeypatch.delenv(name, raising=False)
  where = {"metadata": {"path": str(folder / "notebooks")}}
  nbclient.NotebookClient(notebook, kernel_name="python3", timeout=1800, resources=where).execute()


def test_each_family_of_tasks_has_one():
  assert len(FILES) == len({name[:2] for name in NAMES})
  assert NAMES[:3] == ["01_tour", "02_your_metric", "03_read_a_run"]


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_opens_in_colab(path):
  project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
  repository = project["urls"]["Repository"].removeprefix("https://github.com/")
  notebook = read(path)
  place = f"https://colab.research.google.com/github/{repository}/blob/main/notebooks/{path.name}"
  badge = "https://colab.research.google.com/assets/colab-badge.svg"
  assert f"[![Open in Colab]({badge})]({place})" in notebook.cells[0].source
  first = code_cells(notebook)[0].source
  assert first.startswith("try:\n  import rtune\nexcept ImportError:")
  assert f"git clone -q --depth 1 https://github.com/{repository}\n" in first


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_is_stored_with_its_outputs(path):
  notebook = read(path)
  nbformat.validate(notebook)
  assert path.stat().st_size < MOST_BYTES
  cells = code_cells(notebook)
  assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
  outputs = [output for cell in cells for output in cell.outputs]
  assert not [output for output in outputs if output.output_type == "error"]
  pictures = [output for output in outputs if "image/png" in output.get("data", {})]
  assert len(pictures) >= 2
  assert notebook.metadata["kernelspec"]["name"] == "python3"


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_names_no_folder_of_a_machine(path):
  texts = [cell.source for cell in read(path).cells]
  for cell in code_cells(read(path)):
    for output in cell.outputs:
      data = output.get("data", {})
      texts += [output.get("text", ""), *(data[name] for name in data if name.startswith("text/"))]
  assert not [found for text in texts for found in OF_A_MACHINE.findall(text)]


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_links_lead_somewhere(path):
  text = "\n".join(cell.source for cell in read(path).cells if cell.cell_type == "markdown")
  for link in re.findall(r"\]\(([^)]+)\)", text):
    if not link.startswith("https://"):
      assert (path.parent / link).exists(), link


def test_shortening_changes_the_parameters_alone():
  for path in FILES:
    notebook = read(path)
    short = shortened(notebook)
    both = zip(notebook.cells, short.cells, strict=True)
    changed = [old.source for old, new in both if old.source != new.source]
    assert changed == [parameters(notebook).source]


@pytest.mark.parametrize("path", FAST, ids=[path.stem for path in FAST])
def test_runs_in_short(path, tmp_path, monkeypatch):
  monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "true")  # half the time to compile
  execute(shortened(read(path)), tmp_path, monkeypatch)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_runs_as_stored(path, tmp_path, monkeypatch):
  execute(read(path), tmp_path, monkeypatch)

"""Tables that tests run, and the page of the docs that shows them."""

import os
import pathlib
from collections.abc import Sequence

import numpy as np
import pytest

_ROOT = pathlib.Path(__file__).resolve().parents[2]
_PAGE = _ROOT / "docs" / "odd_files_weights.md"
_GOLDEN = _ROOT / "tests" / "golden" / "vit.npz"


@pytest.fixture(scope="session")
def golden_vits():
  """(array name) -> array, and () -> all names, of tests/golden/vit.py, in single precision."""
  with np.load(_GOLDEN) as file:
    return {name: file[name].astype(np.float32) for name in file.files}


@pytest.fixture(scope="session")
def vit_arrays(golden_vits):
  """(model, kind) -> its arrays by the names of its own files, or by those of today's modules."""

  def arrays(model: str, kind: str = "weights") -> dict[str, np.ndarray]:
    prefix = f"{model}/{kind}/"
    return {n.removeprefix(prefix): x for n, x in golden_vits.items() if n.startswith(prefix)}

  return arrays


@pytest.fixture
def on_page():
  """(heading, rows) checks that the page has this table; RTUNE_WRITE_PAGES=1 writes it there."""

  def check(heading: str, columns: tuple[str, str], rows: Sequence[tuple[str, str]]) -> None:
    lines = [f"| {' | '.join(cells)} |" for cells in (columns, ("---", "---"), *rows)]
    section = f"## {heading}\n\n" + "\n".join(lines) + "\n"
    page = _PAGE.read_text()
    if os.environ.get("RTUNE_WRITE_PAGES"):
      start = page.index(f"## {heading}\n")
      end = page.find("\n## ", start)
      page = page[:start] + section + (page[end:] if end > 0 else "")
      _PAGE.write_text(page)
    assert section in page, f"{_PAGE} differs: RTUNE_WRITE_PAGES=1 pytest tests/store writes it"

  return check

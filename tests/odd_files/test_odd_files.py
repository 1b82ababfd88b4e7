"""Files as people have them, one by one, and the page that says what rtune does with them."""

import pathlib
import sys

import pytest

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import odd_table  # noqa: E402


@pytest.mark.parametrize("row", odd_table.ROWS, ids=lambda row: row.odd)
def test_odd_file(row, tmp_path):
  row.check(tmp_path)


def test_the_page_is_made_of_this_table():
  page = HERE.parents[1] / "docs" / "odd_files.md"
  assert page.read_text(encoding="utf-8") == odd_table.page(), f"run {HERE}/odd_table.py"

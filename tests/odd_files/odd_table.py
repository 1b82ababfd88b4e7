"""All odd files, and docs/odd_files.md made of them: python tests/odd_files/odd_table.py"""

import pathlib

import odd_boxes
import odd_bytes
import odd_captions
import odd_folders
import odd_ids
import odd_masks
import odd_tools

ROWS = [
  *odd_boxes.ROWS,
  *odd_masks.ROWS,
  *odd_captions.ROWS,
  *odd_folders.ROWS,
  *odd_ids.ROWS,
  *odd_bytes.ROWS,
  *odd_tools.ROWS,
]

_HEAD = """# What rtune does with odd files

Files come as people and tools wrote them. None of the oddities here ends in a wrong result without
a word: what can be read exactly is read, what is left out or put right is counted and told in one
warning, and what makes training or a score meaningless is an error before training starts. Warnings
are those of every command (`main`, `evaluate`, `analyze`, `report`, `class_weights`), and the first
page of the report has them, too.

This page is made of the table that the tests run (`python tests/odd_files/odd_table.py`).
"""


def page() -> str:
  """The page, one table a kind."""
  parts = [_HEAD]
  for kind in dict.fromkeys(row.kind for row in ROWS):
    rows = [f"| {row.odd} | {row.does} |" for row in ROWS if row.kind == kind]
    parts.append(f"## {kind}\n\n| oddity | what rtune does |\n|---|---|\n" + "\n".join(rows) + "\n")
  return "\n".join(parts)


if __name__ == "__main__":
  path = pathlib.Path(__file__).resolve().parents[2] / "docs" / "odd_files.md"
  path.write_text(page(), encoding="utf-8")

"""docs/reliability.md: every case has its result and its tests, and these are there."""

import ast
import pathlib
import re

import pytest

TESTS = pathlib.Path(__file__).resolve().parent
TEXT = (TESTS.parent / "docs" / "reliability.md").read_text()
CASES = {"C": 19, "S": 9, "D": 14, "N": 18, "U": 9}
ROWS = {row[0]: row for row in (
  [cell.strip() for cell in line.strip("|").split("|")]
  for line in TEXT.splitlines() if re.match(r"\| [CSDNU]\d+ \|", line)
)}  # fmt: skip


def functions_of(file: pathlib.Path) -> dict[str, bool]:
  """The tests of a file by name, and whether each is slow."""
  tree = ast.parse(file.read_text())
  marks = [node for node in tree.body if isinstance(node, ast.Assign)
           and any(getattr(name, "id", "") == "pytestmark" for name in node.targets)]  # fmt: skip
  all_slow = any("mark.slow" in ast.unparse(node.value) for node in marks)
  found = {}
  for node in ast.walk(tree):
    if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
      # A mark of a parameter makes some cases slow, not the test.
      own = any(ast.unparse(mark) == "pytest.mark.slow" for mark in node.decorator_list)
      found[node.name] = all_slow or own
  return found


def named(cell: str) -> list[tuple[pathlib.Path, str, bool]]:
  """(file, test or "" for all of it, whether it is called slow); a test stands in the last file."""
  found, file = [], None
  for text, slow in re.findall(r"`([^`]+)`( \(slow)?", cell):
    module, _, test = text.rpartition(": ")
    in_file = file is not None and text in functions_of(file)
    if not module and not in_file and _file(text).is_file():
      module, test = text, ""
    file = _file(module) if module else file
    found.append((file, test, bool(slow)))
  return found


def _file(module: str) -> pathlib.Path:
  return TESTS / f"{module}.py"


def test_all_cases_are_there():
  assert [*ROWS] == [f"{kind}{n}" for kind, count in CASES.items() for n in range(1, count + 1)]


@pytest.mark.parametrize("case", ROWS)
def test_every_case_has_a_result_and_tests(case):
  _, fault, what, result, tests = ROWS[case]
  assert fault and what and result
  names = named(tests)
  assert names
  for file, test, slow in names:
    assert file.is_file(), file
    there = functions_of(file)
    assert there, file
    if test:
      assert test in there, f"{file.name} has no {test}"
      assert there[test] == slow, f"{test}: the table says {slow}, it is slow: {there[test]}"


def test_other_tests_that_the_page_names_are_there():
  rest = [line for line in TEXT.splitlines() if not re.match(r"\| [CSDNU]\d+ \|", line)]
  for text in re.findall(r"`((?:tests/)?(?:\w+/)?test_\w+)(?:\.py)?`", "\n".join(rest)):
    assert _file(text.removeprefix("tests/")).is_file(), text

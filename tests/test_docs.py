"""Pages that are made of code are as the code is, and every page is in the site."""

import pathlib
import re

import pytest

from rtune.config.names import resolve

ROOT = pathlib.Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"


def test_all_knobs_are_on_their_page():
  page = resolve(f"{DOCS / 'make_knobs.py'}:page")()
  assert (DOCS / "knobs.md").read_text() == page, "python docs/make_knobs.py writes it"
  assert not re.findall(r"\| `\w+` \| `.*` \|  \|", page), "a knob without a comment"
  assert "| `lr` |" in page and "`num_samples`" in page


def test_every_page_is_in_the_site():
  named = re.findall(r": (\w+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)
  assert sorted(named) == sorted(path.name for path in DOCS.glob("*.md"))


def test_the_site_is_built_without_a_warning(tmp_path):
  commands = pytest.importorskip("mkdocs.commands.build", reason="pip install 'rtune[docs]'")
  config = pytest.importorskip("mkdocs.config")
  commands.build(config.load_config(str(ROOT / "mkdocs.yml"), site_dir=str(tmp_path / "site")))
  assert (tmp_path / "site" / "results" / "index.html").is_file()

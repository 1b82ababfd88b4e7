"""Pages that are made of code are as the code is, and every page is in the site."""

import pathlib
import re

import pytest

from rtune.config.names import resolve

ROOT = pathlib.Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
HELPERS = ROOT / "tests" / "browser.py"
too_wide, needs_browser = (resolve(f"{HELPERS}:{name}") for name in ("too_wide", "needs_browser"))


def test_all_knobs_are_on_their_page():
  page = resolve(f"{DOCS / 'make_knobs.py'}:page")()
  assert (DOCS / "knobs.md").read_text() == page, "python docs/make_knobs.py writes it"
  assert not re.findall(r"\| `\w+` \| `.*` \|  \|", page), "a knob without a comment"
  assert "| `lr` |" in page and "`num_samples`" in page


def test_every_page_is_in_the_site():
  named = re.findall(r": (\w+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)
  assert sorted(named) == sorted(path.name for path in DOCS.glob("*.md"))


@pytest.fixture(scope="module")
def site(tmp_path_factory):
  """The documents as a site; mkdocs.yml makes every warning an error."""
  commands = pytest.importorskip("mkdocs.commands.build", reason="pip install 'rtune[docs]'")
  config = pytest.importorskip("mkdocs.config")
  folder = tmp_path_factory.mktemp("site")
  commands.build(config.load_config(str(ROOT / "mkdocs.yml"), site_dir=str(folder)))
  return folder


def test_the_site_is_built_without_a_warning(site):
  assert (site / "results" / "index.html").is_file()
  assert not [*site.rglob("*.py")]


@needs_browser
@pytest.mark.parametrize("width", [400, 1200])
@pytest.mark.parametrize("page", ["index.html", "results/index.html", "export/index.html"])
def test_pages_fit_their_window(site, page, width):
  # The drawers of the theme lie beside the window until they are opened.
  assert too_wide(site, page, width, of=".md-content *") == []

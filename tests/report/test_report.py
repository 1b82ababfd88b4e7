"""The report opens in a real browser, asks for nothing, and says what the run says."""

import html.parser
import json
import math
import pathlib
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from rtune.config import names
from rtune.devices import processes
from rtune.report import __main__ as report
from rtune.report import page as page_html
from rtune.report import phase_view, write
from rtune.report.curves import read_branches, seconds_by_part
from rtune.report.phase_view import Phase
from rtune.store import run_files
from rtune.tasks.detection import Detection
from rtune.tasks.task import view
from rtune.training.evaluation import Evaluation, Judged
from rtune.training.phases import phase_of

HELPERS = pathlib.Path(__file__).resolve().parents[1] / "browser.py"
browse, too_wide, needs_browser = (
  names.resolve(f"{HELPERS}:{name}") for name in ("browse", "too_wide", "needs_browser")
)


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
  """Commands start up as in one process of many tests: without settings that outlast them."""
  monkeypatch.setattr(processes, "start", lambda auto=False: None)


@pytest.fixture(scope="module")
def workdir(boxes_run, tmp_path_factory):
  """A finished run of one's own, with its report."""
  folder = tmp_path_factory.mktemp("report") / "my & <run>"
  shutil.copytree(boxes_run, folder)
  write.write_report(folder)
  return folder


class Page(html.parser.HTMLParser):
  """Tables, headings and attributes of a page."""

  def __init__(self, path: pathlib.Path):
    super().__init__()
    self.tables, self.headings, self.images, self.loads = [], [], [], []
    self.tags, self._cell, self._heading = set(), False, False
    self.feed(path.read_text())

  def handle_starttag(self, tag, attributes):
    self.tags.add(tag)
    values = dict(attributes)
    self.loads += [values[k] for k in ("src", "href", "action", "xlink:href") if k in values]
    assert not any(name.startswith("on") for name in values)
    self._heading = tag in ("h1", "h2")
    if tag == "table":
      self.tables.append([])
    elif tag == "tr":
      self.tables[-1].append([])
    elif tag in ("td", "th"):
      self.tables[-1][-1].append("")
      self._cell = True
    elif tag == "img":
      self.images.append(values["alt"])

  def handle_endtag(self, tag):
    self._cell = self._cell and tag not in ("td", "th")
    self._heading = False

  def handle_data(self, data):
    if self._cell:
      self.tables[-1][-1][-1] += data
    if self._heading:
      self.headings.append(data)

  def table(self, corner: str) -> dict[str, list[str]]:
    (found,) = [t for t in self.tables if t and t[0][0] == corner]
    return {row[0]: row[1:] for row in found}


@needs_browser
@pytest.mark.parametrize("size", ["1280,2400", "500,2400"])
def test_browser_shows_it_without_error_or_request(workdir, tmp_path, size):
  assert browse(workdir / "report.html", tmp_path, size) == []
  with Image.open(tmp_path / "shot.png") as shot:
    pixels = np.asarray(shot.convert("RGB")).astype(int)
  # It is a page with curves, not a blank one or one that is wider than the window.
  colored = (pixels.max(axis=2) - pixels.min(axis=2)) > 60
  assert colored.mean() > 1e-3 and len(np.unique(pixels.reshape(-1, 3), axis=0)) > 100
  assert not colored[:, -4:].any()


@needs_browser
@pytest.mark.parametrize("width", [400, 1200])
def test_nothing_scrolls_sideways_or_is_cut(workdir, tmp_path, width):
  shutil.copy(workdir / "report.html", tmp_path)
  assert too_wide(tmp_path, "report.html", width) == []
  wide = '<div style="width:1300px">wide</div><p class="cut"><b>cut</b></p>'
  wide += "<style>.cut {width:9em; overflow:hidden} .cut b {display:block; width:20em}</style>"
  text = (tmp_path / "report.html").read_text()
  (tmp_path / "bad.html").write_text(text.replace("</body>", f"{wide}</body>"))
  found = too_wide(tmp_path, "bad.html", width)
  assert [line.partition(" ")[0] for line in found] == ["page", "DIV", "P.cut"]


@needs_browser
def test_browser_would_have_complained(workdir, tmp_path):
  """The test above can fail: the page's own policy makes every request an error."""
  bad = tmp_path / "bad.html"
  text = (workdir / "report.html").read_text()
  for extra in ('<img src="http://127.0.0.1:9/a.png">', "<script>console.log(1)</script>"):
    bad.write_text(text.replace("</body>", f"{extra}</body>"))
    (message,) = browse(bad, tmp_path, "500,500")
    assert "Content Security Policy" in message


def test_page_holds_all_it_needs(workdir):
  page = Page(workdir / "report.html")
  assert all(load.startswith("data:") for load in page.loads) and len(page.loads) > 12
  assert page.tags.isdisjoint({"script", "iframe", "object", "embed", "form"})
  text = (workdir / "report.html").read_text()
  assert not re.search(r"(src|href|url\()\s*=?\s*[\"']?(https?:|//|file:)", text)
  assert page.headings[0] == "my & <run>"
  assert {"Results", "Curves", "Validation images", "Time", "Config"} <= set(page.headings)
  assert len(text) < 5_000_000


def test_numbers_are_those_of_the_run(workdir):
  page, results = Page(workdir / "report.html"), run_files.read_results(workdir)
  metrics = page.table("validation")
  assert metrics["validation"] == ["MLE", "tuned", "tuned - MLE"]
  for name in ("AR", "AP", "boxes", "reward"):
    mle, tuned = (results[phase][f"val/{name}"] for phase in ("mle", "reward"))
    assert [float(x) for x in metrics[name]] == pytest.approx([mle, tuned, tuned - mle], abs=1e-3)
  assert metrics["APl"] == ["\N{EN DASH}"] * 3  # no such objects
  by_class = page.table("class")
  assert list(by_class) == ["class", "rectangle", "ellipse", "triangle", "diamond", "cross", "ring"]
  phases = page.table("phase")
  assert phases["MLE"][:2] == ["20", "8"] and phases["tuned"][:3] == ["10", "4", "3"]
  assert "finished" in phases["tuned"]
  changed = page.table("key")
  assert changed["mle.steps"] == ["20", "1000"]
  assert len(page.images) >= 12 * 3


def test_branches_share_their_start(workdir, tmp_path):
  config = run_files.read_config(workdir)
  mle, tuned = read_branches(workdir, config)
  assert (mle.start, tuned.start) == (0, 20)
  assert [row["step"] for row in tuned.rows] == [25, 30]
  assert seconds_by_part(tuned)["update"] > 0
  sampled = [row["seconds/sample"] * 5 for row in tuned.rows]
  assert sum(sampled) == pytest.approx(seconds_by_part(tuned)["sample"])


def make_phase(name: str, rewards: list[float], boxes_at: int) -> Phase:
  def one(index, reward):
    box = np.array([[boxes_at, boxes_at, boxes_at + 9, boxes_at + 9]], np.float32)
    record = {"image_id": index, "boxes": box, "labels": np.array([0])}
    return Judged(index, {**record, "scores": np.array([0.5])}, {}, reward)

  judged = [one(index, reward) for index, reward in enumerate(rewards)]
  values = {"AR": float(np.nanmean(rewards)), "boxes": 3.0 + boxes_at, "APl": -1.0}
  seen = Evaluation(name, values, {"<b>cat</b>": values["AR"]}, judged, [])
  return Phase(name, phase_of(name).label, True, values, seen, 60.0)


def test_largest_gains_and_losses():
  before = [0.5, 0.1, 0.9, 0.4, 0.3, math.nan]
  after = [0.5, 0.8, 0.2, 0.5, 0.2, 0.7]
  phases = [make_phase("mle", before, 0), make_phase("reward", after, 5)]
  task = Detection(classes=("cat",), category_ids=(1,))
  source = [view(task).unlabeled(np.zeros((16, 16, 3), np.uint8), 10 + i) for i in range(6)]
  grid, gains, losses = phase_view.pictures(task, phases, source)
  order = re.compile(r"<span>image (\d+)</span>")
  assert [int(i) for i in order.findall(grid)] == [10, 11, 12, 13, 14, 15]
  assert order.findall(gains) == ["11", "13"] and order.findall(losses) == ["12", "14"]
  assert "2 of 6 images gained, 2 lost" in gains
  assert gains.index("MLE, reward 0.10") < gains.index("tuned, reward 0.80")
  assert '<span class="good">+0.700</span>' in gains and "-0.700" in losses
  only = phase_view.pictures(task, phases[:1], source)
  assert len(only) == 1 and "tuned" not in only[0]


def test_measures_after_each_pass_are_curves():
  values = {"PSNR_given": 20.0, "PSNR_pass2": 23.5, "PSNR_pass1": 22.5, "PSNR": 23.5}
  phases = [make_phase(name, [0.2], 0)._replace(values=values) for name in ("mle", "reward")]
  (figure,) = phase_view.charts_by_pass(phases)
  assert "<b>PSNR</b>" in figure and "tuned" in figure
  for style in ("s0", "s1"):  # what was given, and two passes
    assert figure.count(f'<circle class="{style}"') == 3
  assert phase_view.charts_by_pass([make_phase("mle", [0.2], 0)]) == []


def test_tables_escape_and_color():
  phases = [make_phase("mle", [0.2], 0), make_phase("control", [0.3], 0)]
  phases.append(make_phase("reward", [0.25], 2))
  by_class = phase_view.class_table(phases)
  assert "&lt;b&gt;cat&lt;/b&gt;" in by_class and "<b>" not in by_class
  table = phase_view.metric_table(phases)
  assert "<th>tuned - MLE</th><th>tuned - control</th>" in table
  assert '<span class="good">+0.050</span></td><td><span class="bad">-0.050</span>' in table
  assert '<span class="soft">+2.000</span>' in table  # more boxes are not better
  assert phase_view.headline_tiles(phases, ("AR",)).count("tile") == 2
  every = phase_view.headline_tiles(phases, ())  # a task that does not say what matters
  assert all(f"{name}, tuned" in every for name in phases[-1].values)


def test_control_of_another_run(workdir, boxes_run, tmp_path):
  other = tmp_path / "other"
  shutil.copytree(boxes_run, other)
  config = json.loads((other / "config.json").read_text())
  config["phases"] = ["mle", "control"]
  (other / "config.json").write_text(json.dumps(config))
  (other / "weights" / "reward.safetensors").rename(other / "weights" / "control.safetensors")
  results = json.loads((other / "results.json").read_text())
  results["control"] = {**results.pop("reward"), "val/AR": 0.1234}
  (other / "results.json").write_text(json.dumps(results))
  run = tmp_path / "run"
  shutil.copytree(workdir, run)
  assert report.main(["--workdir", str(run), "--compare", str(other), "--limit", "8"]) == 0
  page = Page(run / "report.html")
  metrics = page.table("validation")
  assert metrics["validation"][:3] == ["MLE", "control", "tuned"]
  assert metrics["AR"][1] == "0.123"
  text = (run / "report.html").read_text()
  assert "Classes: the first 8 of 12 images." in text
  assert '<i class="soft dash0"></i>control' in text
  # Runs of other classes cannot stand side by side.
  config["task"]["args"]["category_ids"] = [1, 2, 3, 4, 5, 7]
  (other / "config.json").write_text(json.dumps(config))
  assert report.main(["--workdir", str(run), "--compare", str(other)]) == 2


def test_what_is_odd_about_the_data_stands_on_the_page(workdir, tmp_path):
  run = tmp_path / "run"
  shutil.copytree(workdir, run)
  assert "Odd in the data" not in Page(write.write_report(run)).headings
  run_files.write_found(run, ("a.json: boxes <twice> (3). Left out",))
  page = Page(write.write_report(run))
  assert "Odd in the data" in page.headings
  assert "a.json: boxes &lt;twice&gt; (3). Left out" in (run / "report.html").read_text()


def test_run_without_its_data(workdir, tmp_path):
  run = tmp_path / "run"
  shutil.copytree(workdir, run)
  config = json.loads((run / "config.json").read_text())
  config["data"]["val"] = {
    "fn": "rtune.data.sources.coco:CocoDetection",
    "args": {"annotations": "/gone/val.json"},
  }
  (run / "config.json").write_text(json.dumps(config))
  page = Page(write.write_report(run))
  assert page.table("validation")["validation"] == ["MLE", "tuned", "tuned - MLE"]
  assert page.images == [] and "Validation images" not in page.headings
  assert "/gone/val.json" in (run / "report.html").read_text()


def test_run_that_has_hardly_begun(workdir, tmp_path):
  run = tmp_path / "run"
  run.mkdir()
  shutil.copy(workdir / "config.json", run)
  page = Page(write.write_report(run))
  assert page.table("phase")["MLE"][-1] == "not finished" and "Curves" not in page.headings
  (run / "metrics.jsonl").write_text('{"step": 5, "loss": 2.0, "skipped": 3.0, "nll": "NaN"}\n')
  page = Page(write.write_report(run))
  assert "Curves" in page.headings
  assert "3 updates were not finite" in (run / "report.html").read_text()


def test_wrong_flags(tmp_path, capsys):
  assert report.main(["--workdir", str(tmp_path)]) == 2
  assert report.main([]) == 2
  assert report.main(["--workdir", "x", "--compere", "y"]) == 2
  errors = capsys.readouterr().err.splitlines()
  assert len(errors) == 3 and "not a workdir" in errors[0] and "--compere" in errors[2]


def test_large_pictures_are_shrunk():
  case = page_html.Case("h", [("c", np.zeros((900, 1200, 3), np.uint8))])
  assert 'width="480" height="360"' in page_html.cases([case])

"""The command on workdirs: groups, table, curves, files, each against numbers by hand."""

import dataclasses
import html.parser
import math
import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from PIL import Image

from rtune.compare import curves, final, groups, runs, write
from rtune.compare.curves import Drawing
from rtune.compare.final import Spread
from rtune.report import page


class Page(html.parser.HTMLParser):
  """Text, tags and addresses of a page."""

  def __init__(self, text: str):
    super().__init__()
    self.open, self.tags, self.loads, self.text = [], set(), [], ""
    self.feed(text)
    self.close()

  def handle_starttag(self, tag, attributes):
    self.tags.add(tag)
    self.loads += [value for key, value in attributes if key in ("src", "href", "action")]
    if tag not in ("meta", "link", "i", "br"):
      self.open.append(tag)

  def handle_endtag(self, tag):
    if tag != "i":
      assert self.open.pop() == tag

  def handle_data(self, data):
    self.text += data


def test_mean_and_deviation_are_numpys(six, call, made):
  assert call(f"{six}/plain?", f"{six}/kl?")[0] == 0
  table = {(r["group"], r["phase"]): r for r in made.csv(six / "out" / "table.csv")}
  assert list(table) == [(g, p) for g in ("kl=0", "kl=0.5") for p in ("MLE", "tuned")]
  plain = np.array([0.3 + seed / 1000 for seed in range(3)])
  tuned = plain + 0.25 + 0.01 * np.arange(3)
  row = table["kl=0.5", "tuned"]
  assert (row["metric"], row["runs"], row["pairs"]) == ("AR", "3", "3")
  assert row["from"] == "tuned of kl=0"
  found = [float(row[k]) for k in ("mean", "deviation", "difference", "difference_deviation")]
  wanted = [tuned.mean(), tuned.std(ddof=1), (tuned - plain).mean(), (tuned - plain).std(ddof=1)]
  assert found == pytest.approx(wanted)
  assert table["kl=0", "tuned"]["difference"] == ""  # it is what others are compared with


def test_text_of_numbers():
  assert Spread(0.4361, 0.0221, 3).text() == "0.436 ± 0.022"
  assert Spread(0.1431, 0.0, 3).text("+") == "+0.143 ± 0.000"
  assert Spread(-0.5, None, 1).text("+") == "-0.500"
  assert final.spread([0.1 + 0.2, 0.3]).deviation == 0.0  # rounding is no deviation


def test_single_group_is_compared_with_its_first_phase(made, tmp_path, call):
  made.run(tmp_path / "run")
  code, out, _ = call(tmp_path / "run")
  assert code == 0 and "Differences from MLE" in out
  assert re.search(r"run +tuned +1 +0\.300 +\+0\.100\n", out)


def test_without_a_common_seed_means_are_subtracted(made, tmp_path, call):
  made.run(tmp_path / "a", made.config(0))
  other = made.config(4, reward=dataclasses.replace(made.config().reward, kl=0.5))
  made.run(tmp_path / "b", other)
  code, out, _ = call(tmp_path / "a", tmp_path / "b")
  assert code == 0 and "+0.004 *" in out and "no seed in common" in out


def test_csv_holds_what_was_logged(six, call, made):
  assert call(f"{six}/plain0", f"{six}/kl0")[0] == 0
  losses, metrics = (made.csv(six / "out" / f"{name}.csv") for name in ("losses", "metrics"))
  assert list(losses[0]) == ["group", "run", "seed", "phase", "step", "loss", "lr"]
  assert list(metrics[0]) == ["group", "run", "seed", "phase", "step", "AR"]
  own = [row for row in losses if row["run"].endswith("plain0")]
  assert [(int(r["step"]), float(r["loss"])) for r in own] == [
    (row["step"], row["loss"]) for row in made.rows(0, 30)
  ]
  assert [r["phase"] for r in own] == ["MLE"] * 20 + ["tuned"] * 10
  assert [float(r["AR"]) for r in metrics if r["group"] == "kl=0"] == [0.1, 0.2, 0.3]


def test_lines_written_twice_or_torn_count_once(made, tmp_path, call):
  rows = made.rows(0, 30)
  whole = made.run(tmp_path / "whole", rows=rows)
  made.run(tmp_path / "resumed", rows=[*rows[:25], *rows[18:]])  # resumed from step 18
  with open(tmp_path / "resumed" / "metrics.jsonl", "a") as file:
    file.write('{"step": 31, "lo')
  code, _, err = call(whole, tmp_path / "resumed")
  assert code == 0 and "could not be read" not in err
  losses = made.csv(tmp_path / "out" / "losses.csv")
  by_run = [[r["loss"] for r in losses if r["run"].endswith(n)] for n in ("whole", "resumed")]
  assert by_run[0] == by_run[1] and len(by_run[0]) == 30


def test_unfinished_phase_shows_its_last_evaluation(made, tmp_path, call):
  run = made.run(tmp_path / "run", rows=made.rows(0, 25), results={"mle": {"val/AR": 0.2}})
  code, out, err = call(run)
  assert code == 0 and "tuned" not in out
  made.log(run / "metrics.jsonl", [*made.rows(0, 25), {"step": 26, "val/AR": 0.9}])
  code, out, err = call(run)
  assert "tuned is not finished" in err and re.search(r"tuned +1 +0\.900", out)


def test_page_is_whole_and_asks_for_nothing(six, call):
  flags = ("--names", "one & <b>,two", "--smoothing", ".6", "--regression", "--trend", "first,last")
  code, _, err = call(f"{six}/plain?", f"{six}/kl?", *flags)
  assert code == 0
  text = (six / "out" / "comparison.html").read_text()
  seen = Page(text)
  assert seen.open == []
  for word in ("one & <b>", "two", "reward.kl", "AR", "loss", "Slopes", "w = 0.6"):
    assert word in seen.text
  assert seen.tags.isdisjoint({"script", "iframe", "object", "img"})
  assert all(load.startswith("data:") for load in seen.loads)
  assert "prefers-color-scheme:dark" in text and all(color in text for color in page.COLORS)
  figures = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
  for figure in figures:
    paths = [p.get("class") for p in ElementTree.fromstring(figure).iter("path")]
    assert any("shade" in p for p in paths) and any("thin" in p for p in paths)
  assert len(figures) == 2 and err.splitlines()[-1] == (
    f"6 runs in 2 groups, written to {six / 'out'}: comparison.html, losses.csv, metrics.csv, "
    "table.csv and 2 pictures (PNG)"
  )
  for name in ("loss.png", "val.AR.png"):
    with Image.open(six / "out" / name) as picture:
      assert len(picture.convert("RGB").getcolors(2**24)) > 50


def test_curves_are_means_of_smoothed_runs(six):
  found = groups.make_groups(runs.read_runs([f"{six}/plain?"]))
  (picture,) = curves.pictures(found, ["loss"], Drawing(smoothing=0.5, regression=True))
  imitation, tuning = picture.curves
  lines = [10 / np.arange(1, 21) + seed for seed in range(3)]
  weights = 0.5 ** np.arange(20)[::-1]
  last = np.mean([(weights * line).sum() / weights.sum() for line in lines])
  assert imitation.mean.values[-1] == pytest.approx(last)
  assert imitation.mean.deviation == pytest.approx(np.ones(20))
  slope, _ = np.polyfit(np.tile(np.arange(21, 31), 3), np.concatenate(
    [10 / np.arange(21, 31) + seed for seed in range(3)]), 1)  # fmt: skip
  assert tuning.fit.slope == pytest.approx(slope)
  (rolled,) = curves.pictures(found, ["loss"], Drawing(rolling=5))
  assert rolled.curves[0].mean.steps.tolist() == list(range(3, 19))


def test_tuning_begins_where_imitation_ended(six):
  found = groups.make_groups(runs.read_runs([f"{six}/plain0"]))
  (picture,) = curves.pictures(found, ["val/AR"], Drawing(trend=curves.parse_trend("first,21")))
  assert [c.raw[0].steps.tolist() for c in picture.curves] == [[10, 20], [20, 30]]
  assert picture.trends[0].ends == ((10.0, 0.1), (20.0, 0.2))  # 21 is nearest to 20
  assert picture.trends[0].slope == pytest.approx(0.01)
  ends = curves.parse_trend("40000:79.1, 80000:79.3")
  (given,) = curves.pictures(found, ["val/AR"], Drawing(trend=ends))[0].trends
  assert given.ends == ((40000, 79.1), (80000, 79.3))


def test_nothing_to_count_is_no_value(made, tmp_path, call):
  rows = [row | ({"val/APl": -1.0} if "val/AR" in row else {}) for row in made.rows(0, 30)]
  results = {"mle": {"val/AR": 0.2, "val/APl": -1.0}, "reward": {"val/AR": math.nan}}
  made.run(tmp_path / "run", rows=rows, results=results)
  code, out, _ = call(tmp_path / "run", "--metrics", "AR,APl")
  assert code == 0 and re.search(r"MLE +1 +0\.200 +-\n", out)
  assert not (tmp_path / "out" / "val.APl.png").exists()
  assert (tmp_path / "out" / "val.AR.png").exists()


def test_a_real_run(tiny_run, call):
  code, out, _ = call(tiny_run, "--metrics", "AR,loss")
  assert code == 0 and "AR" in out and "tuned" in out


def test_code_models_stand_apart(made, tmp_path):
  config = made.config(phases=("codes", "mle"))
  config = dataclasses.replace(config, codes=dataclasses.replace(config.codes, steps=20))
  rows = [{"step": s, "loss": 1 / s, "val/PQ": s / 100} for s in range(1, 41)]
  made.run(tmp_path / "run", config, rows, {"codes": {"val/PQ": 0.2}, "mle": {"val/PQ": 0.4}})
  found = groups.make_groups(runs.read_runs([str(tmp_path / "run")]))
  answers, coded = curves.pictures(found, ["loss"], Drawing())
  assert (answers.title, coded.title) == ("loss", "code model: loss")
  assert answers.curves[0].raw[0].values[0] == 1 / 21 and coded.curves[0].raw[0].values[0] == 1.0
  assert [write.draw.file_name(p) for p in (answers, coded)] == ["loss.png", "codes.loss.png"]
  rows = final.table(found, ["val/PQ"])
  assert [(row.phase, row.against) for row in rows] == [("reconstruction", ""), ("MLE", "")]

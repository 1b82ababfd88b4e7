"""The curves of a run are the numbers of its log, each phase a line."""

import numpy as np
import pytest

from rtune.display.logs import read_metrics
from rtune.errors import UsageError
from rtune.report.plot import curves


def test_lines_are_what_the_log_says(tiny_run):
  figure = curves(tiny_run, ["val/AR", "loss", "reward/mean", "entropy"])
  titles = [axes.get_title() for axes in figure.axes]
  assert titles == ["val/AR", "loss", "reward/mean", "entropy"]
  rows = read_metrics(tiny_run)
  for axes, lines in zip(figure.axes, (2, 2, 1, 2), strict=True):
    name = axes.get_title()
    expected = np.array([(row["step"], row[name]) for row in rows if name in row])
    drawn = np.concatenate([line.get_xydata() for line in axes.get_lines()])
    np.testing.assert_allclose(drawn, expected)
    assert len(axes.get_lines()) == lines
  assert [text.get_text() for text in figure.axes[0].get_legend().get_texts()] == ["MLE", "tuned"]


def test_names_that_the_log_does_not_have(tiny_run):
  with pytest.raises(UsageError, match=r"no 'val/AP0'; it has .*val/AR"):
    curves(tiny_run, ["val/AP0"])
  with pytest.raises(UsageError, match="give some of"):
    curves(tiny_run, [])

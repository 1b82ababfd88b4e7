"""How good pictures are after each pass, for each way to restore them, as a picture."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from rtune.metrics.passes import passes_of

# Okabe and Ito's colors, which color-blind eyes tell apart too, and a dash for those that repeat.
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")


def draw_by_pass(
  rows: Sequence[Mapping[str, Any]], measures: Sequence[str], path: pathlib.Path
) -> None:
  """A panel for each measure, a line for each row."""
  figure = Figure(figsize=(4.6 * len(measures), 4.2), layout="constrained", dpi=120)
  panels = figure.subplots(1, len(measures), squeeze=False)[0]
  for axes, measure in zip(panels, measures, strict=True):
    for number, row in enumerate(rows):
      places = passes_of(row, measure)
      style = "-" if number < len(_COLORS) else "--"
      axes.plot(
        [place for place, _ in places],
        [row[name] for _, name in places],
        style,
        color=_COLORS[number % len(_COLORS)],
        marker="o",
        markersize=3,
        label=row["name"],
      )
    axes.set_xlabel("pass; 0 is what was given")
    axes.set_ylabel(f"{measure} in dB" if measure == "PSNR" else measure)
    axes.set_xticks(range(len(passes_of(rows[0], measure))))
    axes.spines[["top", "right"]].set_visible(False)
  panels[-1].legend(frameon=False, fontsize=8)
  figure.savefig(path)

"""The pictures of an analysis. matplotlib without pyplot: no global state, no display.

Dimension key:
  I: images
  S: samples for each image
  N: numbers of draws
"""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rtune.analyze.pools import Pool

# Okabe and Ito's colors, which color-blind eyes tell apart too.
COLORS = {"mle": "#0072B2", "control": "#8A8A8A", "reward": "#D55E00"}
LABELS = {"mle": "MLE", "control": "control", "reward": "tuned"}
_BINS = 40
_MAX_IMAGES = 40  # of the panel that shows each image
_EXAMPLES = 6


class BestOfN(NamedTuple):
  """What one gets by drawing N answers and keeping one, for each image.

  Attributes:
    by_reward: keeping the one with the highest reward, as only an oracle can.
    by_likelihood: keeping the one that the model finds most likely.
  """

  counts: Int[np.ndarray, " n"]
  by_reward: Float[np.ndarray, "i n"]
  by_likelihood: Float[np.ndarray, "i n"]


def bin_edges(pools: Sequence[Pool], images: Any = slice(None)) -> Float[np.ndarray, " edges"]:
  """Common bins for the rewards of all phases, of all or of some images.

  Many rewards are multiples of something; then every bin holds as many of these as the others,
  else a histogram has gaps and towers that mean nothing.
  """
  rewards = np.concatenate([pool.reward[images].ravel() for pool in pools])
  rewards = rewards[np.isfinite(rewards)].astype(np.float64)
  values = np.unique(rewards.round(4))
  spread, step = values[-1] - values[0], np.diff(values).min(initial=np.inf)
  steps = (values - values[0]) / step
  if len(values) < 2 or steps[-1] > 2000 or (abs(steps - steps.round()) > 0.1).any():
    return np.histogram_bin_edges(rewards, _BINS)
  width = step * np.ceil((steps[-1] + 1) / _BINS)
  return values[0] - step / 2 + width * np.arange(np.ceil((spread + step) / width - 1e-6) + 1)


def shares(rewards: Float[np.ndarray, "*any"], edges: np.ndarray) -> Float[np.ndarray, " bins"]:
  """The share of the samples that falls into each bin."""
  finite = rewards[np.isfinite(rewards)]
  return np.histogram(finite, edges)[0] / max(finite.size, 1)


def draw_distribution(pools: Sequence[Pool], path: pathlib.Path) -> None:
  """All samples' rewards, and the range of each image."""
  figure = _figure(13.0, 4.6)
  left, right = figure.subplots(1, 2, width_ratios=(1, 1.7))
  _histogram(left, pools, slice(None))
  left.set_title(f"Rewards of {pools[0].reward.size:,} samples of {len(pools[0].images)} images")
  left.legend(frameon=False, fontsize=9)
  order = np.argsort(np.nanmean(pools[0].reward, axis=1))
  order = order[np.unique(np.linspace(0, len(order) - 1, _MAX_IMAGES).round().astype(int))]
  places = np.arange(len(order))
  for number, pool in enumerate(pools):
    x = places + 0.28 * (number - (len(pools) - 1) / 2)
    color, rewards = COLORS[pool.phase], pool.reward[order]
    expected, top = np.nanmean(rewards, axis=1), np.nanpercentile(rewards, 99, axis=1)
    right.vlines(x, expected, top, color=color, linewidth=2, alpha=0.45)
    right.scatter(x, expected, 16, color=color, label=f"{LABELS[pool.phase]}: expected")
    right.scatter(x, top, 34, color=color, marker="_", label=f"{LABELS[pool.phase]}: top 1 %")
    label = f"{LABELS[pool.phase]}: greedy"
    right.scatter(
      x, pool.greedy[order], 26, facecolors="none", edgecolors=color, marker="D", label=label
    )
  right.set_title(f"Each image, by the expected reward of {LABELS[pools[0].phase]}")
  right.set_xlabel("image")
  right.set_xticks([])
  right.set_ylabel("reward")
  right.legend(frameon=False, fontsize=8, ncols=len(pools), loc="upper left")
  right.set_ylim(top=_with_headroom(right, 0.22))
  figure.savefig(path)


def draw_examples(pools: Sequence[Pool], path: pathlib.Path) -> None:
  """The distributions of single images, from the lowest expected reward to the highest."""
  order = np.argsort(np.nanmean(pools[0].reward, axis=1))
  chosen = order[np.unique(np.linspace(0, len(order) - 1, _EXAMPLES).round().astype(int))]
  columns = min(3, len(chosen))
  rows = -(-len(chosen) // columns)
  figure = _figure(1.0 + 4 * columns, 0.6 + 2.8 * rows)
  for place, row in enumerate(chosen):
    axes = figure.add_subplot(rows, columns, place + 1)
    _histogram(axes, pools, slice(row, row + 1))
    for pool in pools:
      top = np.nanpercentile(pool.reward[row], 99)
      axes.axvline(top, color=COLORS[pool.phase], linestyle=":", linewidth=1.4)
    axes.set_title(f"image {pools[0].images[row]}", fontsize=10)
    axes.set_xlabel("reward" if place >= len(chosen) - columns else "")
    axes.set_ylabel("share of samples" if place % columns == 0 else "")
  handles, labels = figure.axes[0].get_legend_handles_labels()
  figure.legend(
    handles,
    [f"{label} (dashed: expected, dotted: top 1 %)" for label in labels],
    frameon=False,
    loc="outside upper center",
    ncols=2,
    fontsize=9,
  )
  figure.savefig(path)


def draw_best_of_n(best: Mapping[str, BestOfN], pools: Sequence[Pool], path: pathlib.Path) -> None:
  """Means over images with their standard error; greedy decoding as a level line."""
  figure = _figure(9.2, 4.8)
  axes = figure.subplots()
  for pool in pools:
    color, label, one = COLORS[pool.phase], LABELS[pool.phase], best[pool.phase]
    series = (("best by reward", one.by_reward, "-"), ("most likely", one.by_likelihood, "--"))
    for name, values, style in series:
      mean, error = mean_and_error(values)
      axes.plot(one.counts, mean, style, color=color, linewidth=2, label=f"{label}: {name} of N")
      axes.fill_between(
        one.counts, mean - error, mean + error, color=color, alpha=0.12, linewidth=0
      )
    axes.axhline(
      np.nanmean(pool.greedy), color=color, linestyle=":", linewidth=1.6, label=f"{label}: greedy"
    )
  axes.set_xscale("log")
  axes.xaxis.set_major_formatter("{x:g}")
  axes.set_xlabel("N, answers drawn for each image")
  axes.set_ylabel("reward of the answer that is kept")
  axes.set_title(f"Best of N, mean of {len(pools[0].images)} images (band: standard error)")
  figure.legend(frameon=False, loc="outside right center", fontsize=9)
  figure.savefig(path)


def mean_and_error(
  values: Float[np.ndarray, "i n"],
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
  """Mean over images and its standard error, 0 where there is one image only."""
  error = values.std(axis=0, ddof=1) / np.sqrt(len(values)) if len(values) > 1 else 0 * values[0]
  return values.mean(axis=0), error


def draw_progression(
  rows: Sequence[Mapping[str, Any]],
  found: Sequence[Mapping[str, Any]],
  metrics: Sequence[str],
  path: pathlib.Path,
) -> None:
  """Reward and metrics over training, and below each metric over the reward.

  Args:
    rows: evaluations in order of step.
    found: correlations, one for each phase and metric.
  """
  figure = _figure(3.5 * (1 + len(metrics)), 6.4)
  grid = figure.subplots(2, 1 + len(metrics), squeeze=False)
  for column, name in enumerate(("reward", *metrics)):
    _path_of_phases(grid[0, column], rows, "step", name)
    grid[0, column].set_title(f"{name} over training")
  for column, name in enumerate(metrics, 1):
    _path_of_phases(grid[1, column], rows, "reward", name)
    texts = [
      f"{LABELS.get(entry['phase'], 'all')}: Pearson {entry['pearson']:.2f}, "
      f"Spearman {entry['spearman']:.2f}"
      for entry in found
      if entry["metric"] == name
    ]
    grid[1, column].set_title("\n".join([f"{name} against reward", *texts]), fontsize=9)
  grid[1, 0].axis("off")
  handles, labels = grid[0, 0].get_legend_handles_labels()
  grid[1, 0].legend(handles, labels, frameon=False, loc="center", title="evaluations of")
  figure.savefig(path)


def _path_of_phases(axes: Axes, rows: Sequence[Mapping[str, Any]], x: str, y: str) -> None:
  """Evaluations in the order of training, later ones more opaque; all begin where MLE ended."""
  starts = [row for row in rows if row["phase"] == "mle"][-1:]
  for phase in dict.fromkeys(row["phase"] for row in rows):
    own = [row for row in rows if row["phase"] == phase]
    joined = own if phase == "mle" else starts + own
    color, alphas = COLORS[phase], np.linspace(0.35, 1, len(own))
    axes.plot(
      *([row[key] for row in joined] for key in (x, y)), color=color, linewidth=1, alpha=0.5
    )
    axes.scatter(*([row[key] for row in own] for key in (x, y)), 18, color=color, alpha=alphas)
    axes.plot([], [], color=color, marker="o", label=LABELS[phase])  # opaque, for the legend
  axes.locator_params(axis="x", nbins=4)
  axes.set_xlabel(x)
  axes.set_ylabel(y)


def _histogram(axes: Axes, pools: Sequence[Pool], images: slice) -> None:
  """Shares of the samples by reward, and the mean as a dashed line."""
  edges = bin_edges(pools, images)
  for pool in pools:
    color, rewards = COLORS[pool.phase], pool.reward[images]
    axes.stairs(
      shares(rewards, edges), edges, fill=True, color=color, alpha=0.4, label=LABELS[pool.phase]
    )
    axes.axvline(np.nanmean(rewards), color=color, linestyle="--", linewidth=1.4)
  axes.set_xlabel("reward (dashed: mean)")
  axes.set_ylabel("share of samples")


def _with_headroom(axes: Axes, share: float) -> float:
  """The upper limit that leaves room above the data, for a legend."""
  low, high = axes.get_ylim()
  return high + share * (high - low)


def _figure(width: float, height: float) -> Figure:
  return Figure(figsize=(width, height), dpi=130, layout="constrained")

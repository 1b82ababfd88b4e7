"""Boxes of each class in a COCO file, and what the mAP reward makes of rare ones.

python -m rtune.class_weights --annotations train.json [--smoothing 0.05]
"""

import argparse
import sys
from collections.abc import Sequence

from rtune import commands
from rtune.data.sources.coco import CocoDetection
from rtune.display import console
from rtune.errors import UsageError
from rtune.rewards.boxes import balanced_weights, count_classes


def main(args: Sequence[str]) -> int:
  """Prints the table; returns the exit code."""
  return commands.guarded(lambda: _print_table(_parse(args)))


def _parse(args: Sequence[str]) -> argparse.Namespace:
  parser = commands.Parser("rtune.class_weights", "Counts boxes and shows the reward's weights.")
  parser.add_argument("--annotations", required=True, help="COCO-format JSON")
  parser.add_argument("--smoothing", type=float, default=0.05, help="share of all boxes added")
  flags = parser.parse_args(args)
  if flags.smoothing < 0:
    raise UsageError(f"--smoothing is {flags.smoothing}; it must not be negative.")
  return flags


def _print_table(flags: argparse.Namespace) -> None:
  source = CocoDetection(flags.annotations, check_images=False)
  counts = count_classes(source)
  rows = zip(
    source.classes, counts.tolist(), balanced_weights(counts, flags.smoothing), strict=True
  )
  console.say(console.table(list(rows), ("class", "boxes", "weight")), stream=sys.stdout)


if __name__ == "__main__":
  sys.exit(main(sys.argv[1:]))

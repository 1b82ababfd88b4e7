"""A trained model as one file that runs without rtune: from pixels to the task's answer.

python -m rtune.export --workdir W --out D [--phase P] [--weights best] [--format stablehlo|onnx]

D/model.stablehlo or D/model.onnx  greedy prediction, weights inside, for any batch size
D/model.json                       how to feed it and read it: sizes, names of classes, decoding

examples/serve.py serves the first with nothing but jax, flatbuffers, numpy and Pillow.
"""

import argparse
import contextlib
import os
import sys
from collections.abc import Sequence

from rtune import commands
from rtune.store import reading


def main(args: Sequence[str]) -> int:
  """The command; returns its exit code."""
  parser = commands.Parser(
    "rtune.export",
    "Writes a trained model as one file that runs without rtune.",
    "rtune export --workdir runs/recall --out exported",
  )
  add = parser.add_argument
  add("--workdir", required=True, help="folder of the run")
  add("--out", required=True, help="folder to write to")
  add("--phase", default="", help="whose weights; default: the last phase that is finished")
  parser.add_weights()
  add("--format", choices=("stablehlo", "onnx"), default="stablehlo", help="of the file")
  add("--size", type=_size, help="HEIGHT,WIDTH of images, where a task takes them as they are")
  return reading.run(parser, args, _command, lambda flags: [flags.workdir], fetch=True)


def _size(text: str) -> tuple[int, int]:
  try:
    height, width = (commands.positive(part) for part in text.split(","))
  except ValueError as error:
    raise argparse.ArgumentTypeError(f"{text!r} is not HEIGHT,WIDTH, such as 256,384") from error
  return height, width


def _command(flags: argparse.Namespace) -> None:
  # What is traced elsewhere may hold kernels of that device alone.
  os.environ["JAX_PLATFORMS"] = "cpu"
  from rtune.devices import processes
  from rtune.display import console
  from rtune.export.write import write

  out = commands.make_folder(flags.out)
  processes.start()
  given = {"phase": flags.phase, "weights": flags.weights, "trust": flags.trust}
  path = write(flags.workdir, out, form=flags.format, size=flags.size, **given)
  console.say(f"written to {path} ({path.stat().st_size / 2**20:.1f} MiB)")


if __name__ == "__main__":
  with contextlib.suppress(BrokenPipeError):
    sys.exit(main(sys.argv[1:]))

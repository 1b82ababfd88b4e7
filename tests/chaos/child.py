"""A run in a world that others can trouble: clock and disk obey two files in the first argument.

`clock` has the seconds that `time.time` is wrong by, `slow` those that each sync or rename takes
longer.
"""

import os
import pathlib
import runpy
import sys
import time

_WORLD = pathlib.Path(sys.argv.pop(1))
_right = time.time


def _number(name: str) -> float:
  try:
    return float((_WORLD / name).read_text())
  except (OSError, ValueError):
    return 0.0


def _slow(call):
  def later(*args, **kwargs):
    time.sleep(_number("slow"))
    return call(*args, **kwargs)

  return later


time.time = lambda: _right() + _number("clock")
for _name in ("fsync", "rename", "replace"):
  setattr(os, _name, _slow(getattr(os, _name)))
runpy.run_module("rtune.main", run_name="__main__", alter_sys=True)

"""A run that is looked at from inside: memory, files, threads, and what is compiled.

python child.py CONFIG.json WORKDIR SECONDS SAMPLES.jsonl: trains, asks itself to stop after so many
seconds, and leaves with what it saw. Lines are samples, the last one the compilations.
"""

import json
import os
import pathlib
import re
import signal
import sys
import threading
import time

import jax

from rtune import config as configs
from rtune.errors import Preempted
from rtune.training import loop

EVERY_S = 1.0
COMPILED = "/jax/core/compile/backend_compile_duration"


def sample() -> dict[str, float]:
  """What the process holds now: bytes of its own, open files, threads, blocks of Python.

  Pages of files, such as libraries, come and go as the system likes; what is swapped out counts.
  """
  status = pathlib.Path("/proc/self/status").read_text()
  sizes = re.findall(r"^(?:RssAnon|VmSwap):\s+(\d+) kB$", status, re.MULTILINE)
  return {
    "time": time.monotonic(),
    "bytes": 1024 * sum(map(int, sizes)),
    "files": len(os.listdir("/proc/self/fd")),
    "threads": len(os.listdir("/proc/self/task")),
    "blocks": sys.getallocatedblocks(),
  }


def main(config_file: str, workdir: str, seconds: str, out: str) -> None:
  compiled, at_step = [], []

  def listen(event, duration, **_):
    if event == COMPILED:
      compiled.append(event)

  class Steps(loop.Progress):
    """Notes after each step how much has been compiled."""

    def __init__(self, total, description, *args, **kwargs):
      super().__init__(total, description, *args, **kwargs)
      self.phase = description

    def update(self, step, shown=None):
      super().update(step, shown)
      if not at_step or at_step[-1][2] != len(compiled) or at_step[-1][0] != self.phase:
        at_step.append((self.phase, step, len(compiled)))

  loop.Progress = Steps
  jax.monitoring.register_event_duration_secs_listener(listen)
  over = threading.Event()

  def watch(file):
    deadline = time.monotonic() + float(seconds)
    while not over.wait(EVERY_S):
      file.write(json.dumps(sample()) + "\n")
      file.flush()
      if time.monotonic() > deadline:
        os.kill(os.getpid(), signal.SIGTERM)
        return

  with open(out, "a") as file:
    thread = threading.Thread(target=watch, args=(file,), daemon=True)
    thread.start()
    try:
      loop.run(configs.from_json(pathlib.Path(config_file).read_text()), workdir)
    except Preempted as stopped:
      print(stopped)
    over.set()
    thread.join()
    file.write(json.dumps({"compiled": at_step}) + "\n")


if __name__ == "__main__":
  main(*sys.argv[1:])

"""TensorBoard events: a copy of the run's log for those who watch it there."""

import contextlib
import io
import os
import pathlib
import time
from collections.abc import Callable, Mapping
from typing import Any

from PIL import Image

from rtune.display import console


class Events:
  """TensorBoard events, written in this thread: tensorboardX's own writer hangs on a dead disk.

  The record is a convenience, so no failure here stops a run: one warning, then silence.
  """

  def __init__(self, folder: pathlib.Path, first_step: int):
    self._writer = None
    try:
      from tensorboardX.event_file_writer import EventsWriter
      from tensorboardX.proto import event_pb2, summary_pb2

      self._event, self._summary = event_pb2.Event, summary_pb2.Summary
      folder.mkdir(parents=True, exist_ok=True)
      # Nanoseconds: a run that is killed and resumed within a second must not share one file.
      self._writer = EventsWriter(str(folder / "events"), f".{os.getpid()}.{time.time_ns()}")
      start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
      # Makes TensorBoard forget what the killed run wrote from this step on.
      self._write(step=first_step, session_log=start)
    except Exception as error:
      self._give_up(error)

  def numbers(self, step: int, values: Mapping[str, int | float]) -> None:
    self._add(step, lambda: [{"tag": name, "simple_value": v} for name, v in values.items()])

  def picture(self, step: int, name: str, path: pathlib.Path) -> None:
    self._add(step, lambda: [{"tag": name, "image": self._encoded(path)}])

  def close(self) -> None:
    if self._writer is not None:
      with contextlib.suppress(OSError):
        self._writer.close()

  def _add(self, step: int, made: Callable[[], list[dict[str, Any]]]) -> None:
    if self._writer is None:
      return
    try:
      values = [self._summary.Value(**value) for value in made()]
      self._write(step=step, summary=self._summary(value=values))
    except Exception as error:
      self._give_up(error)

  def _encoded(self, path: pathlib.Path) -> Any:
    content = path.read_bytes()
    with Image.open(io.BytesIO(content)) as image:
      width, height = image.size
    sizes = {"width": width, "height": height, "colorspace": 3}
    return self._summary.Image(encoded_image_string=content, **sizes)

  def _write(self, *, step: int, **what: object) -> None:
    self._writer.write_event(self._event(wall_time=time.time(), step=step, **what))
    self._writer.flush()

  def _give_up(self, error: Exception) -> None:
    self.close()
    self._writer = None
    console.warn_once("tensorboard", f"no TensorBoard events from here on ({error!r})")

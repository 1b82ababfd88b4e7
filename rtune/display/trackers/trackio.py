"""trackio, on this machine or in a Space. Extra `trackio`."""

import os
import pathlib
import uuid
from collections.abc import Mapping

from rtune.display.trackers.tracker import Session


class Trackio:
  """A run of trackio, which finds runs by their names: ours end in a few digits of their own.

  TRACKIO_PROJECT, TRACKIO_SPACE_ID, TRACKIO_SERVER_URL and TRACKIO_DIR are read.
  """

  def __init__(self, session: Session):
    import trackio

    self._trackio = trackio
    self.id = session.id or f"{session.name}-{uuid.uuid4().hex[:8]}"
    self._run = trackio.init(
      project=os.environ.get("TRACKIO_PROJECT", "rtune"),
      name=self.id,
      resume="allow",
      config=dict(session.config),
      embed=False,
    )

  def numbers(self, step: int, values: Mapping[str, float]) -> None:
    self._run.log(dict(values), step=step)

  def picture(self, step: int, name: str, path: pathlib.Path) -> None:
    self._run.log({name: self._trackio.Image(path)}, step=step)

  def close(self) -> None:
    self._run.finish()

"""Folders of this machine in which remote workdirs are worked on and read.

In <root>, in a folder that is called by the hash of the URL:

work       the workdir of a run that trains here, in a folder of its name
read       a copy for commands that read, in such a folder
pins       what is about to be sent (rtune/store/remote/snapshot.py)
sent.json  {"holder": of the lock, "sent": {name: [bytes, change]}}

<root> is RTUNE_STAGING, or else rtune/remote in the user's cache. All of it may be deleted while no
command works there; what was sent is fetched again.
"""

import hashlib
import json
import os
import pathlib
from collections.abc import Mapping

from rtune.disk import parse_json, write_whole
from rtune.errors import UsageError
from rtune.store.remote.place import Place
from rtune.store.remote.snapshot import Stamp

_VARIABLE = "RTUNE_STAGING"


class Staging:
  """The folders of one URL.

  Raises:
    UsageError: they cannot be made.
  """

  def __init__(self, place: Place):
    root = os.environ.get(_VARIABLE)
    if not root:
      cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
      root = os.path.join(cache, "rtune", "remote")
    digest = hashlib.sha256(place.url.encode()).hexdigest()[:16]
    self.base = pathlib.Path(root).absolute() / digest
    self.work, self.read = self.base / "work" / place.name, self.base / "read" / place.name
    self.pins, self._record = self.base / "pins", self.base / "sent.json"
    try:
      self.base.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
      raise UsageError(
        f"{place.url} is worked on in {self.base}, which cannot be made: {error.strerror}. Set "
        f"{_VARIABLE} to a folder that you may write to."
      ) from error

  def known(self) -> tuple[str, dict[str, Stamp]]:
    """Who worked here last, and which files were sent, as they were then."""
    try:
      found = parse_json(self._record.read_bytes())
      sent = {name: (int(size), int(at)) for name, (size, at) in found["sent"].items()}
      return str(found["holder"]), sent
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
      return "", {}

  def remember(self, holder: str, sent: Mapping[str, Stamp]) -> None:
    """Writes what `known` reads."""
    write_whole(self._record, json.dumps({"holder": holder, "sent": dict(sent)}))

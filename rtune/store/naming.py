"""Names of files that are written after those of others: short enough, and used once."""

import hashlib
from collections.abc import Callable

_MOST = 255  # bytes of a file's name on most file systems


def shortened(stem: str, ending: str) -> str:
  """`stem` and `ending` as one name that file systems take; what is cut leaves a digest.

  "写写...写" and ".png" of 300 bytes become the first letters, eight digits of a digest, ".png".
  """
  room = _MOST - len(ending.encode(errors="surrogateescape")) - 16  # of temporary files, too
  whole = stem.encode(errors="surrogateescape")
  if len(whole) <= room:
    return stem + ending
  digest = hashlib.sha256(whole).hexdigest()[:8]
  start = whole[: room - 9].decode(errors="ignore")
  return f"{start}_{digest}{ending}"


def numbered(stem: str, free: Callable[[str], bool]) -> str:
  """`stem`, or with the first number behind it that is free."""
  name, number = stem, 1
  while not free(name):
    number += 1
    name = f"{stem}_{number}"
  return name

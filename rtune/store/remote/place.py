"""A folder in storage that a URL names, through fsspec: its files are listed, fetched and sent.

Names are relative to the folder, with "/" between their parts.
"""

import concurrent.futures
import hashlib
import logging
import os
import pathlib
import re
import tempfile
import uuid
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from rtune.errors import StorageError, UsageError
from rtune.store import hub

_URL = re.compile(r"([A-Za-z][\w+.-]*)://(?=.*[^/])")
_EXTRAS = {"gs": "gcs", "gcs": "gcs", "s3": "s3", "s3a": "s3"}
# Where an object is there in full or is not. Elsewhere a file is renamed into its place.
_OBJECTS = {"gs", "gcs", "s3", "s3a", "abfs", "abfss", "az", "adl", "oci", "oss", "memory"}
_PART = re.compile(r".*\.[0-9a-f]{8}\.part")  # a file on its way there
THREADS = 8  # files on their way at once


class Unreachable(StorageError):
  """Storage that does not answer, or refuses; it may be tried again."""


class Entry(NamedTuple):
  """What a listing says of a file.

  Attributes:
    size: in bytes.
    tag: another one for another content, as far as the storage tells.
  """

  size: int
  tag: str


def is_remote(where: str | os.PathLike[str]) -> bool:
  """Whether a path is a URL; hf:// is not one of these, as it takes whole models only."""
  text = os.fspath(where)
  return bool(_URL.match(text)) and not hub.is_on_hub(text)


def check(url: str, what: str) -> None:
  """UsageError where a URL is of no storage that can be reached from here; asks no network.

  Args:
    what: the flag or the setting that names it.
  """
  _filesystem_class(url, what)


class Place:
  """A folder of a storage.

  Args:
    what: the flag or the setting that names it.

  Raises:
    UsageError: no such storage, or its package is not installed.
    Unreachable: it refuses, or it does not answer. So do all methods.
  """

  def __init__(self, url: str, what: str = "--workdir"):
    import fsspec

    # What fails is an error here, in one line.
    logging.getLogger("gcsfs").setLevel(logging.CRITICAL)
    self.url = url.rstrip("/")
    self.name = self.url.rpartition("/")[2]
    kind = _filesystem_class(url, what)
    protocol = _URL.match(url)[1].lower()
    self._objects = protocol in _OBJECTS
    # What another machine has written must be seen: nothing that is listed is kept.
    options: dict[str, Any] = {"use_listings_cache": False, "skip_instance_cache": True}
    if protocol in ("file", "local"):
      options["auto_mkdir"] = True
    self._walks = _walks_by_default(kind)
    try:
      self._fs, self._root = fsspec.core.url_to_fs(self.url, **options)
    except ImportError as error:
      raise _not_installed(url, what, error) from error
    except Exception as error:  # of its client, such as missing credentials
      raise self._failed("cannot be opened", error) from error

  def files(self) -> dict[str, Entry]:
    """All files by name; {} where there is nothing. Of a file itself, the name is ""."""
    listed = self._find()
    return {n: entry for n, entry in listed.items() if not (_PART.fullmatch(n) or n.endswith("/"))}

  def clear(self) -> None:
    """Removes what was on its way when a process ended; for the one that may write here."""
    if not self._objects:
      each(self.remove, filter(_PART.fullmatch, self._find()))

  def read(self, name: str) -> bytes | None:
    """The content of a small file; None where there is none."""
    try:
      return self._fs.cat_file(self._at(name))
    except FileNotFoundError:
      return None
    except Exception as error:
      raise self._failed(f"{name} cannot be read", error) from error

  def get(self, name: str, path: pathlib.Path) -> None:
    """Fetches a file, in full or not at all; FileNotFoundError where it is gone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.part")
    try:
      self._fs.get_file(self._at(name), str(partial))
      os.replace(partial, path)
    except FileNotFoundError:
      raise
    except Exception as error:
      raise self._failed(f"{name} cannot be fetched", error) from error
    finally:
      partial.unlink(missing_ok=True)

  def put(self, path: pathlib.Path, name: str) -> None:
    """Sends a file: what was there before stays until all of it has arrived."""
    target = self._at(name)
    try:
      if self._objects:
        self._fs.put_file(str(path), target)
      else:
        partial = f"{target}.{uuid.uuid4().hex[:8]}.part"
        self._fs.put_file(str(path), partial)
        self._fs.mv(partial, target)
    except Exception as error:
      raise self._failed(f"{name} cannot be written", error) from error

  def write(self, name: str, content: bytes) -> None:
    """Sends a small file."""
    with tempfile.NamedTemporaryFile() as file:
      file.write(content)
      file.flush()
      self.put(pathlib.Path(file.name), name)

  def remove(self, name: str) -> None:
    """Removes a file; one that is gone is no error."""
    try:
      self._fs.rm_file(self._at(name))
    except FileNotFoundError:
      return
    except Exception as error:
      raise self._failed(f"{name} cannot be removed", error) from error

  def _find(self) -> dict[str, Entry]:
    try:
      found = self._walk() if self._walks else self._fs.find(self._root, detail=True)
    except FileNotFoundError:
      return {}
    except Exception as error:
      raise self._failed("cannot be listed", error) from error
    start = len(self._root.rstrip("/")) + 1
    listed = {}
    for path, info in found.items():
      if info.get("type") == "file":
        text = repr(sorted((key, str(value)) for key, value in info.items()))
        tag = hashlib.sha256(text.encode()).hexdigest()
        listed[path[start:]] = Entry(int(info.get("size") or 0), tag)
    return listed

  def _walk(self) -> dict[str, dict[str, Any]]:
    """As fsspec does it, which passes over folders whose listing fails: a run would start anew."""
    found, folders = {}, [self._root]
    while folders:
      folder = folders.pop()
      try:
        listed = self._fs.ls(folder, detail=True)
      except FileNotFoundError:
        continue
      inner = [info["name"] for info in listed if info["type"] == "directory"]
      folders += [name for name in inner if name.rstrip("/") != folder]
      found |= {info["name"]: info for info in listed if info["type"] != "directory"}
    return found

  def _at(self, name: str) -> str:
    return f"{self._root.rstrip('/')}/{name}" if name else self._root

  def _failed(self, problem: str, error: Exception) -> Unreachable:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = ": ".join([type(error).__name__, *(line.rstrip(".")[:200] for line in lines[:1])])
    return Unreachable(f"{self.url}: {problem} ({said}).")


def each(call: Callable[[Any], None], items: Iterable[Any]) -> None:
  """Calls with each item, several at once; at an error no more are begun, and it is raised."""
  with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
    calls = [pool.submit(call, item) for item in items]
    try:
      for done in calls:
        done.result()
    finally:
      pool.shutdown(cancel_futures=True)


def _filesystem_class(url: str, what: str) -> type:
  import fsspec

  protocol = _URL.match(url)[1].lower()
  try:
    return fsspec.get_filesystem_class(protocol)
  except ImportError as error:
    raise _not_installed(url, what, error) from error
  except ValueError as error:
    raise UsageError(f"{what} {url}: fsspec knows no storage {protocol}://.") from error


def _not_installed(url: str, what: str, error: ImportError) -> UsageError:
  extra = _EXTRAS.get(_URL.match(url)[1].lower())
  mend = f"pip install 'rtune[{extra}]'" if extra else str(error).partition("\n")[0]
  return UsageError(f"{what} {url}: a package is missing that reads and writes there: {mend}.")


def _walks_by_default(kind: type) -> bool:
  """Whether a file system has no way of its own to list all files below a folder."""
  from fsspec.asyn import AsyncFileSystem
  from fsspec.spec import AbstractFileSystem

  if issubclass(kind, AsyncFileSystem):
    return kind._find is AsyncFileSystem._find
  return kind.find is AbstractFileSystem.find

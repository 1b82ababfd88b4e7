"""Models on the Hugging Face Hub, or a server of the same kind (HF_ENDPOINT).

hf://user/name             a workdir that `rtune push` has sent, or a model as transformers saves it
hf://user/name@revision    a branch, a tag or a commit of it
hf://user/name/file        one file of it; of an index, with its shards

What is fetched stays in huggingface_hub's cache, and is found there without a network. Nothing that
could run code is fetched.
"""

import functools
import glob
import os
import pathlib
import re
import types
from typing import NamedTuple

from rtune.errors import DataError, StorageError, UsageError

PREFIX = "hf://"
_NAME = re.compile(r"hf://([\w.-]+/[\w.-]+)(?:@([\w.-]+))?(?:/([^\\]+))?")
# Of a whole model: what rtune writes into a workdir, and what transformers calls its weights.
_WHOLE = (
  *("config.json", "results.json", "weights/*.safetensors", "weights/manifest.json"),
  *("model.safetensors", "model.safetensors.index.json", "model-*-of-*.safetensors"),
  *("*.npz", "*.model"),  # what a task has learned from its data
)
_SHARDS = ".safetensors.index.json"
# What errors of huggingface_hub are about, and what there is to do, by their names.
_MENDS = {
  "GatedRepoError": "Ask for access on its page, then log in: `hf auth login`.",
  "RepositoryNotFoundError": "There is no such model, or it is private: log in with `hf auth login`"
  " or set HF_TOKEN.",
  "RevisionNotFoundError": "It has no such branch, tag or commit.",
  "HFValidationError": "Names are user/name, of letters, digits, '.', '_' and '-'.",
}
_OFFLINE = "Without a network there is only what was fetched before (kept in HF_HOME)."


class Place(NamedTuple):
  """What "hf://..." names: a repository, "" or a revision of it, "" or a file in it."""

  repo: str
  revision: str
  file: str


def is_on_hub(where: str | os.PathLike[str]) -> bool:
  """Whether a path names something on a hub."""
  return os.fspath(where).startswith(PREFIX)


def local_copy(where: str | os.PathLike[str], key: str) -> pathlib.Path:
  """A path on this machine: of what is on a hub the copy that is fetched, else the path itself.

  One process fetches each name once, so that it sees one state of it.

  Raises:
    UsageError: the name is none, there is nothing of it, or huggingface_hub is not installed; `key`
      is what the user has named it by.
    DataError: it cannot be reached, and no copy is there.
  """
  if not is_on_hub(where):
    return pathlib.Path(where).expanduser()
  return _fetched(os.fspath(where), key)


@functools.cache
def _fetched(where: str, key: str) -> pathlib.Path:
  place = _place(where, key)
  client = library(f"{key} is {where}")
  try:
    found = client.snapshot_download(
      place.repo, revision=place.revision or None, allow_patterns=_patterns(place.file)
    )
  except Exception as error:  # whatever its client of HTTP raises, too
    mend = _MENDS.get(type(error).__name__)
    kind = UsageError if mend else DataError
    raise kind(f"{key}: {where} cannot be fetched ({_line(error)}). {mend or _OFFLINE}") from error
  path = pathlib.Path(found) / place.file
  if not path.exists() or (path.is_dir() and not any(path.iterdir())):
    raise UsageError(f"{key}: {where} is not there; look at the files of {place.repo}.")
  return path


def push(folder: str | os.PathLike[str], repo: str, private: bool, message: str) -> str:
  """Sends all files of a folder to a repository, made if there is none; where it can be seen.

  Raises:
    UsageError: the name is none, it may not be written, or huggingface_hub is not installed.
    StorageError: it cannot be reached, or refuses for another reason.
  """
  api = library("rtune push").HfApi()
  try:
    repo = api.create_repo(repo, private=private, exist_ok=True).repo_id
    api.upload_folder(repo_id=repo, folder_path=folder, commit_message=message)
  except Exception as error:
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in (401, 403):
      raise UsageError(
        f"--to {repo}: you may not write there ({status}); log in with `hf auth login`, or set "
        "HF_TOKEN to a token that may write."
      ) from error
    mend = _MENDS.get(type(error).__name__)
    kind = UsageError if mend else StorageError
    raise kind(f"--to {repo}: {_line(error)}. {mend or 'Nothing of the run is lost.'}") from error
  return f"{api.endpoint}/{repo}"


def check_repo(repo: str) -> None:
  """UsageError where this is no name of a repository."""
  found = _NAME.fullmatch(PREFIX + repo)
  if found is None or found[2] or found[3]:
    raise UsageError(f"--to {repo!r} must be user/name.")


def _place(where: str, key: str) -> Place:
  found = _NAME.fullmatch(where)
  if found is None:
    raise UsageError(
      f"{key} is {where!r}; write hf://user/name, hf://user/name@revision or "
      "hf://user/name/file.safetensors."
    )
  return Place(*(part or "" for part in found.groups()))


def _patterns(file: str) -> list[str]:
  """What to fetch, as patterns of names in the repository."""
  if not file:
    return list(_WHOLE)
  folder = file.rpartition("/")[0]
  beside = [f"{folder}/config.json" if folder else "config.json"]  # says what a model is
  if file.endswith(_SHARDS):
    beside.append(f"{glob.escape(file.removesuffix(_SHARDS))}-*-of-*.safetensors")
  return [glob.escape(file), *beside]


def library(what: str) -> types.ModuleType:
  """huggingface_hub; UsageError where it is not installed, `what` says what it is for."""
  try:
    import huggingface_hub
  except ImportError as error:
    raise UsageError(f"{what}: that needs huggingface_hub: pip install 'rtune[hub]'.") from error
  return huggingface_hub


def _line(error: BaseException) -> str:
  """The first line of an error, with its type."""
  first = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
  return ": ".join(filter(None, [type(error).__name__, first.rstrip(".")[:200]]))

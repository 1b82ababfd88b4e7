"""What all processes of a run must have in common: the config, the code and the data."""

import hashlib
import itertools
import pathlib
from collections.abc import Iterator, Mapping

import jax
import numpy as np

import rtune
from rtune import config as configs
from rtune.config import trust
from rtune.data.cached import source_name
from rtune.data.source import Source
from rtune.devices import processes
from rtune.errors import DataError

_READ = 4  # examples of each source that are compared


def check(config: configs.Config, sources: Mapping[str, Source]) -> None:
  """UsageError, on every process, that names what differs; all processes must call it together."""
  if jax.process_count() == 1:
    return
  processes.same_everywhere(configs.to_json(config), "the config")
  processes.same_everywhere("\n".join(_code(config)), "the code")
  lines = itertools.chain.from_iterable(_data(name, one) for name, one in sources.items())
  processes.same_everywhere("\n".join(lines), "the data")


def _code(config: configs.Config) -> Iterator[str]:
  """The digest of rtune, and of each file that the config names."""
  package = pathlib.Path(rtune.__file__).parent
  digest = hashlib.sha256()
  for file in sorted(package.rglob("*.py")):
    digest.update(file.relative_to(package).as_posix().encode() + file.read_bytes())
  yield f"rtune {digest.hexdigest()[:16]}"
  for part in trust.foreign(configs.as_json(config)):
    file = pathlib.Path(trust.place(part["fn"]))
    if file.is_file():
      yield f"{part['fn']} {hashlib.sha256(file.read_bytes()).hexdigest()[:16]}"


def _data(name: str, source: Source) -> Iterator[str]:
  """How many examples there are, and what a few of them hold."""
  yield f"{name}: {len(source)} examples of {source_name(source)}"
  for index in np.unique(np.linspace(0, len(source) - 1, _READ).astype(int)).tolist():
    yield f"{name}: example {index} is {_digest(source, index)}"


def _digest(source: Source, index: int) -> str:
  try:
    example = source[index]
  except DataError:
    return "not to be read"  # whether that is an error is not decided here
  digest = hashlib.sha256()
  for key, value in sorted(example.items()):
    content = value.tobytes() if isinstance(value, np.ndarray) else repr(value).encode()
    digest.update(key.encode() + content)
  return digest.hexdigest()[:16]

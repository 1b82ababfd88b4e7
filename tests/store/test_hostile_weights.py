"""Weights and configs that were made to do harm: one line about each, little memory, seconds."""

import json
import re
import struct
import time
import tracemalloc
import warnings
import zipfile
from typing import NamedTuple

import numpy as np
import pytest
from safetensors.numpy import save_file

from rtune.errors import DataError, UsageError
from rtune.store import vit_weights, weights

SPEC = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
ONE = json.dumps(SPEC)
TEMPLATE = {
  "pos_embedding": np.zeros((1, 9, 8)),
  "Transformer": {
    "encoderblock_0": {"MultiHeadDotProductAttention_0": {"query": {"kernel": np.zeros((8, 2, 4))}}}
  },
}


class Row(NamedTuple):
  """A file: what the page calls it, how it is made, what the one line about it says."""

  what: str
  make: object
  says: str


def header(text, data=bytes(4), length=None, size=None):
  """A safetensors file of a header as it stands; `size`: sparse, of so many bytes."""

  def make(folder):
    content = text if isinstance(text, bytes) else text.encode()
    path = folder / "w.safetensors"
    path.write_bytes(struct.pack("<Q", len(content) if length is None else length) + content + data)
    if size:
      with open(path, "r+b") as file:
        file.truncate(size)
    return path

  return make


def array(dtype="<f4", shape="(1,)", data=bytes(4), text=None):
  """The bytes of an .npy, whatever its header claims."""
  text = text or f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}"
  return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode() + data


def archive(members, compression=zipfile.ZIP_STORED):
  def make(folder):
    with zipfile.ZipFile(folder / "w.npz", "w", compression) as file, warnings.catch_warnings():
      warnings.simplefilter("ignore", UserWarning)  # of names that are there twice
      for name, data in members:
        file.writestr(name, data)
    return folder / "w.npz"

  return make


def patched(members, flags=0, method=None):
  """An archive whose directory says that members are encrypted, or packed in another way."""

  def make(folder):
    path = archive(members)(folder)
    content = bytearray(path.read_bytes())
    for found in re.finditer(rb"PK\x01\x02", bytes(content)):
      at = found.start()
      content[at + 8] |= flags
      if method is not None:
        content[at + 10 : at + 12] = struct.pack("<H", method)
    path.write_bytes(bytes(content))
    return path

  return make


def beside(name, content, given="w.safetensors"):
  """A file beside weights of PyTorch."""

  def make(folder):
    save_file({"patch_embed.proj.weight": np.ones((8, 3, 4, 4))}, folder / "w.safetensors")
    (folder / name).write_bytes(content)
    return folder / given

  return make


DEEP = b'{"a":' * 100_000 + b"1" + b"}" * 100_000
INDEX = "w.safetensors.index.json"
MANY = [(f"params/a{i}.npy", array()) for i in range(12_000)]
MANY_SPECS = {f"a{i}": {**SPEC, "data_offsets": [4 * i, 4 * i + 4]} for i in range(12_000)}
ROWS = (
  Row(
    "a name twice in the header",
    header(f'{{"a":{ONE},"a":{ONE}}}'),
    "a is there twice in its header",
  ),
  Row(
    "a name twice, with other data",
    header(f'{{"a":{ONE},"a":{ONE.replace("[0, 4]", "[4, 8]")}}}', bytes(8)),
    "cannot be read",
  ),
  Row("a field twice", header(f'{{"a":{ONE[:-1]},"shape":[1]}}}}'), "cannot be read"),
  Row(
    "a name of 3,000 levels",
    header(json.dumps({"/".join("a" * 3000): SPEC})),
    "a name of 3,000 levels",
  ),
  Row(
    "a name of 3,000 levels in an .npz",
    archive([("/".join("a" * 3000) + ".npy", array())]),
    "a name of 3,000 levels",
  ),
  Row("a header nested 100,000 deep", header(DEEP), "recursion limit"),
  Row(
    "an empty header, and 400 MB that are not there",
    header("{}", size=400 * 2**20),
    "not fully covered",
  ),
  Row("400 MB of nothing", header("", b"", size=400 * 2**20), "zeros from its start"),
  Row(
    "a header of 50 MB",
    header('{"a": 1', size=60 * 2**20, length=50 * 2**20),
    "its header claims to have 52,428,800 bytes",
  ),
  Row("a header of exabytes", header("{}", length=2**63), "its header claims"),
  Row("12,000 arrays", header(json.dumps(MANY_SPECS), bytes(48_000)), "it holds 12,000 arrays"),
  Row(
    "data beyond the end",
    header(json.dumps({"a": {**SPEC, "shape": [10**9], "data_offsets": [0, 4 * 10**9]}})),
    "cannot be read",
  ),
  Row(
    "a shape whose product overflows",
    header(json.dumps({"a": {**SPEC, "shape": [2**62, 2**62]}})),
    "cannot be read",
  ),
  Row(
    "escapes of a terminal in a name",
    header(
      json.dumps({"\x1b[2J\n.x": {**SPEC, "dtype": "F8_E5M2", "data_offsets": [0, 1]}}), bytes(1)
    ),
    "'\\x1b[2J\\n.x' has dtype",
  ),
  Row(
    "a name of 1 MB",
    header(
      json.dumps({"a" * 10**6: {**SPEC, "dtype": "F8_E5M2", "data_offsets": [0, 1]}}), bytes(1)
    ),
    "aaa... has dtype",
  ),
  Row("an empty zip", archive([]), "an empty zip archive"),
  Row("12,000 members", archive(MANY), "it holds 12,000 arrays"),
  Row("an encrypted .npz", patched([("a.npy", array())], flags=1), "a is encrypted"),
  Row("members packed in an unknown way", patched([("a.npy", array())], method=99), "compression"),
  Row("a member twice", archive([("a.npy", array()), ("a.npy", array())]), "a is there twice"),
  Row(
    "a bomb of 200 MB",
    archive([("a.npy", bytes(2 * 10**8))], zipfile.ZIP_DEFLATED),
    "too much for its size",
  ),
  Row(
    "an array that claims terabytes",
    archive([("a.npy", array(shape="(1000000000, 1000)"))]),
    "claims shape",
  ),
  Row("an array of a negative size", archive([("a.npy", array(shape="(-1,)"))]), "claims shape"),
  Row(
    "an array's header that is nested",
    archive([("a.npy", array(text="(" * 9000))]),
    "cannot be read",
  ),
  Row("Python objects", archive([("a.npy", array("|O"))]), "Python objects would run code"),
  Row("text as an array", archive([("a.npy", array("<U1"))]), "not numbers"),
  Row(
    "an archive that is cut",
    lambda folder: cut(archive([("a.npy", array())])(folder)),
    "cannot be read",
  ),
  Row(
    "config.json nested 100,000 deep",
    beside("config.json", DEEP),
    "config.json, which says what w.safetensors is of, cannot be read: it is nested too deep",
  ),
  Row("a config.json of 20 MB", beside("config.json", b" " * 20 * 2**20), "it is larger than"),
  Row("a config.json that is no object", beside("config.json", b"[1]"), "it is not a JSON object"),
  Row("a config.json that is cut", beside("config.json", b'{"a": '), "config.json, which says"),
  Row("an index nested 100,000 deep", beside(INDEX, DEEP, INDEX), "it is nested too deep"),
  Row("an index of 20 MB", beside(INDEX, b" " * 20 * 2**20, INDEX), "it is larger than"),
  Row(
    "an index of 12,000 arrays",
    beside(
      INDEX, json.dumps({"weight_map": dict.fromkeys(MANY_SPECS, "w.safetensors")}).encode(), INDEX
    ),
    "it holds 12,000 arrays",
  ),
  Row(
    "an index that names itself",
    beside(INDEX, json.dumps({"weight_map": {"a": INDEX}}).encode(), INDEX),
    "shards are .safetensors files beside it",
  ),
)


def cut(path):
  path.write_bytes(path.read_bytes()[:-30])
  return path


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.what)
def test_one_line_without_large_memory(row, tmp_path):
  path, begun = row.make(tmp_path), time.monotonic()
  tracemalloc.start()
  try:
    with pytest.raises((DataError, UsageError)) as caught:
      vit_weights.load_encoder(path, TEMPLATE, [].append)
    most = tracemalloc.get_traced_memory()[1]
  finally:
    tracemalloc.stop()
  message = str(caught.value)
  assert row.says in message
  assert str(tmp_path) in message
  assert "\n" not in message
  assert len(message) < 600
  assert most < 64 * 2**20
  assert time.monotonic() - begun < 30


@pytest.mark.parametrize("seed", range(40))
def test_bytes_that_were_changed_are_an_error_or_weights(seed, tmp_path):
  """Whatever a file says, its reader raises nothing else."""
  rng = np.random.default_rng(seed)
  tree = {f"layer{i}/kernel": rng.normal(size=(3, 2)).astype(np.float32) for i in range(3)}
  paths = tmp_path / "w.npz", tmp_path / "w.safetensors"
  np.savez(paths[0], **tree)
  save_file(tree, paths[1])
  for path in paths:
    content = bytearray(path.read_bytes())
    for at in rng.integers(0, len(content), 4):
      content[at] = rng.integers(0, 256)
    path.write_bytes(bytes(content[: rng.integers(1, len(content) + 1)] if seed % 2 else content))
    try:
      assert isinstance(weights.load_weights(path), dict)
    except (DataError, UsageError) as error:
      assert "\n" not in str(error)


def test_the_page_shows_them(on_page):
  rows = [(row.what, f"`{row.says}`") for row in ROWS]
  on_page("Weights that would do harm", ("what it is", "what the error says"), rows)

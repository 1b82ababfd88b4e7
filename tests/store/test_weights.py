"""Weights in and out: round trips, what does not fit, and files that were made to do harm."""

import json
import os
import pathlib
import struct
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage

from rtune.errors import DataError, StorageError, UsageError
from rtune.store import weights


def some_params():
  rng = np.random.default_rng(0)
  return {
    "encoder": {
      "pos_embedding": rng.normal(size=(1, 16, 4)).astype(np.float32),
      "layer": {"kernel": rng.normal(size=(4, 6)).astype(np.float32)[:, ::2]},
    },
    "decoder": {"scale": np.float32(3), "half": jnp.arange(4, dtype=jnp.bfloat16)},
  }


def assert_equal(left, right):
  jax.tree.map(np.testing.assert_array_equal, left, right)
  assert jax.tree.structure(left) == jax.tree.structure(right)


def test_round_trip_through_safetensors(tmp_path):
  path = tmp_path / "weights" / "mle.safetensors"
  weights.save_weights(path, some_params(), {"phase": "mle"})
  loaded = weights.load_weights(path)
  assert_equal(loaded, some_params())
  assert loaded["decoder"]["half"].dtype == jnp.bfloat16
  assert os.listdir(path.parent) == ["mle.safetensors"]
  header = path.read_bytes()[8 : 8 + struct.unpack("<Q", path.read_bytes()[:8])[0]]
  assert json.loads(header)["__metadata__"] == {"phase": "mle"}


def test_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
  path = tmp_path / "w.safetensors"
  weights.save_weights(path, some_params(), {})
  before = path.read_bytes()

  def half(leaves, file, metadata):
    pathlib.Path(file).write_bytes(b"half")
    raise OSError(28, "No space left on device")

  monkeypatch.setattr(weights.safetensors.numpy, "save_file", half)
  with pytest.raises(StorageError, match=r"w\.safetensors could not be written: .*No space left"):
    weights.save_weights(path, some_params(), {})
  assert path.read_bytes() == before
  assert os.listdir(tmp_path) == ["w.safetensors"]


@pytest.mark.parametrize("prefix", ["", "params/", "opt/target/"])
def test_npz_of_big_vision(tmp_path, prefix):
  params = some_params()
  flat = {f"{prefix}{name}": np.asarray(x) for name, x in weights.flatten(params).items()}
  flat["params/encoder/fortran" if prefix == "params/" else f"{prefix}encoder/fortran"] = (
    np.asfortranarray(np.arange(6.0).reshape(2, 3))
  )
  if prefix:
    flat["opt/mu/encoder/x"] = np.zeros(3)
  np.savez(tmp_path / "w.npz", **flat)
  loaded = weights.load_weights(tmp_path / "w.npz")
  np.testing.assert_array_equal(loaded["encoder"].pop("fortran"), [[0, 1, 2], [3, 4, 5]])
  assert_equal(loaded, params)


class Payload:
  """What a hostile file would hold: unpickling it makes a file."""

  def __init__(self, path):
    self.path = path

  def __reduce__(self):
    return pathlib.Path.touch, (self.path,)


def test_pickle_in_npz_never_runs(tmp_path):
  trap = tmp_path / "ran"
  np.savez(tmp_path / "w.npz", fine=np.zeros(3), bad=np.array([Payload(trap)], dtype=object))
  with pytest.raises(DataError, match=r"w\.npz .*bad holds object"):
    weights.load_weights(tmp_path / "w.npz")
  assert not trap.exists()
  with np.load(tmp_path / "w.npz", allow_pickle=True) as file:
    _ = file["bad"]
  assert trap.exists(), "the payload would not have run at all"


@pytest.mark.parametrize("name", ["w.pkl", "w.pt", "w.pth", "w.bin", "w.ckpt"])
def test_files_that_run_code_are_refused(tmp_path, name):
  (tmp_path / name).write_bytes(b"x")
  with pytest.raises(UsageError, match=r"safetensors\.torch\.save_file"):
    weights.load_weights(tmp_path / name)


def test_missing_and_unknown_files(tmp_path):
  for name in ("w.npz", "w.safetensors"):
    with pytest.raises(UsageError, match="no such file"):
      weights.load_weights(tmp_path / name)
  with pytest.raises(UsageError, match=r"a \.safetensors or \.npz file is needed"):
    weights.load_weights(tmp_path)


def member(shape, data, dtype="<f4"):
  """Bytes of a .npy whose header claims `shape`."""
  header = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}".encode()
  return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + data


def write_zip(path, members, compression=zipfile.ZIP_STORED):
  with zipfile.ZipFile(path, "w", compression) as archive:
    for name, data in members.items():
      archive.writestr(name, data)


def test_npz_that_claims_too_much(tmp_path):
  path = tmp_path / "w.npz"
  write_zip(path, {"a.npy": member((10**9, 10**3), b"\0" * 8)})
  with pytest.raises(DataError, match=r"a claims shape \(1000000000, 1000\)"):
    weights.load_weights(path)
  write_zip(path, {"a.npy": member((3 * 10**7,), bytes(12 * 10**7))}, zipfile.ZIP_DEFLATED)
  with pytest.raises(DataError, match="claims to hold 120,0"):
    weights.load_weights(path)


def test_npz_with_a_path_out_of_it_writes_nothing(tmp_path):
  (tmp_path / "inner").mkdir()
  path = tmp_path / "inner" / "w.npz"
  write_zip(path, {"../../x.npy": member((1,), b"\0" * 4)})
  weights.load_weights(path)
  assert sorted(p.name for p in tmp_path.rglob("*")) == ["inner", "w.npz"]


@pytest.mark.parametrize(
  "members",
  [
    {"a.npy": b"not an array"},
    {"a.npy": b""},
    {"a.npy": member((2,), b"\0" * 7)},
    {"a.npy": member((1,), b"\0" * 4), "a/b.npy": member((1,), b"\0" * 4)},
  ],
)
def test_damaged_npz(tmp_path, members):
  write_zip(tmp_path / "w.npz", members)
  with pytest.raises(DataError, match=r"w\.npz cannot be read"):
    weights.load_weights(tmp_path / "w.npz")


def safetensors_bytes(header, data=b"", length=None):
  text = json.dumps(header).encode()
  return struct.pack("<Q", len(text) if length is None else length) + text + data


@pytest.mark.parametrize(
  "content",
  {
    "empty": b"",
    "header longer than the file": safetensors_bytes({}, length=10**6),
    "header of exabytes": safetensors_bytes({}, length=2**63),
    "10 GB claimed": safetensors_bytes(
      {"a": {"dtype": "F32", "shape": [2500000000], "data_offsets": [0, 10**10]}}
    ),
    "overlap": safetensors_bytes(
      {
        "a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
        "b": {"dtype": "F32", "shape": [2], "data_offsets": [4, 12]},
      },
      bytes(12),
    ),
    "negative": safetensors_bytes(
      {"a": {"dtype": "F32", "shape": [1], "data_offsets": [-4, 0]}}, bytes(4)
    ),
    "wrong dtype": safetensors_bytes(
      {"a": {"dtype": "F99", "shape": [1], "data_offsets": [0, 4]}}, bytes(4)
    ),
    "dtype that numpy lacks": safetensors_bytes(
      {"a": {"dtype": "F8_E5M2", "shape": [4], "data_offsets": [0, 4]}}, bytes(4)
    ),
    "truncated": safetensors_bytes(
      {"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}, bytes(8)
    ),
  }.items(),
  ids=lambda item: item[0],
)
def test_damaged_safetensors(tmp_path, content):
  (tmp_path / "w.safetensors").write_bytes(content[1])
  with pytest.raises(DataError, match=r"w\.safetensors cannot be read"):
    weights.load_weights(tmp_path / "w.safetensors")


def test_merge_takes_dtype_and_sharding_of_the_template():
  template = jax.tree.map(lambda x: jnp.zeros(np.shape(x), jnp.float16), some_params())
  merged = weights.merge(template, some_params())
  for leaf, wanted in zip(jax.tree.leaves(merged), jax.tree.leaves(template), strict=True):
    assert isinstance(leaf, jax.Array)
    assert (leaf.dtype, leaf.sharding) == (wanted.dtype, wanted.sharding)
  np.testing.assert_allclose(
    merged["encoder"]["layer"]["kernel"], some_params()["encoder"]["layer"]["kernel"], atol=1e-3
  )


def test_merge_shows_what_does_not_fit():
  loaded = some_params()
  loaded["head"] = {"kernel": np.zeros((3, 1000))}
  loaded["encoder"]["layer"]["kernel"] = np.zeros((4, 5))
  del loaded["decoder"]["scale"]
  with pytest.raises(UsageError) as error:
    weights.merge(some_params(), loaded)
  assert str(error.value).splitlines() == [
    "the weights do not fit the model; take the config that they were made with.",
    "  name                  in the file  in the model",
    "  encoder/layer/kernel  [4, 5]       [4, 3]",
    "  decoder/scale         -            []",
    "  head/kernel           [3, 1000]    -",
  ]


def test_merge_allows_what_it_is_told_to():
  template, loaded = some_params(), some_params()
  loaded["head"] = {"kernel": np.zeros((3, 1000))}
  loaded["decoder"] = {"half": loaded["decoder"]["half"]}
  lines = []
  merged = weights.merge(
    template,
    loaded,
    allow_missing=["decoder/.*"],
    ignore_extra=["head/.*", "decoder/half"],
    log=lines.append,
  )
  assert_equal(merged, template)
  assert lines == [
    "weights kept at their initial values: decoder/scale (1 in all)",
    "weights left out: head/kernel (1 in all)",
  ]


def test_long_tables_are_cut():
  table = weights.differences({f"leaf{i}": "[1]" for i in range(100)}, {})
  assert len(table.splitlines()) == 22
  assert table.endswith("... and 80 more")
  assert weights.differences({"a": "[1]"}, {"a": "[1]"}) == ""


@pytest.mark.parametrize("new", [2, 4, 7])
def test_positions_are_resized_as_big_vision_does(new):
  template, loaded, lines = some_params(), some_params(), []
  template["encoder"]["pos_embedding"] = np.zeros((1, new * new, 4), np.float32)
  merged = weights.merge(template, loaded, log=lines.append)
  old = loaded["encoder"]["pos_embedding"].reshape(4, 4, 4)
  wanted = scipy.ndimage.zoom(old, (new / 4, new / 4, 1), order=1).reshape(1, new * new, 4)
  np.testing.assert_allclose(merged["encoder"]["pos_embedding"], wanted, atol=1e-6)
  message = f"weights: encoder/pos_embedding resized from a grid of 4 x 4 to {new} x {new}"
  assert lines == ([] if new == 4 else [message])


def test_positions_of_other_shapes_are_a_difference():
  for shape in ((1, 15, 4), (1, 25, 8)):
    template = some_params()
    template["encoder"]["pos_embedding"] = np.zeros(shape, np.float32)
    with pytest.raises(UsageError, match=r"encoder/pos_embedding +\[1, 16, 4\]"):
      weights.merge(template, some_params())
  template = some_params()
  template["encoder"]["pos_embedding"] = np.zeros((1, 25, 4), np.float32)
  with pytest.raises(UsageError, match="encoder/pos_embedding"):
    weights.merge(template, some_params(), resize_posemb=False)

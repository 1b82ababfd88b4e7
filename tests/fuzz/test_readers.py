"""Damaged and hostile files: readers give rtune's own errors, and take little memory.

Each case is a sound file with a few mutations, of its bytes or of its JSON, drawn from a seed: what
failed once fails again. `python -m pytest tests/fuzz -m slow` tries a hundred times as many.
"""

import copy
import json
import resource
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from rtune import config as configs
from rtune.data.sources.coco import CocoDetection
from rtune.data.sources.coco_captions import CocoCaptions
from rtune.data.sources.coco_panoptic import CocoPanoptic
from rtune.data.unreadable import FILE as UNREADABLE
from rtune.data.unreadable import Unreadable
from rtune.display.logs import JSONL, read_metrics
from rtune.errors import RtuneError
from rtune.store import manifest, reading, run_files, weights

_CASES, _MANY = 150, 15_000
_MOST_MEMORY = 400 * 2**20  # bytes that all cases of a reader may add to the peak
_ODD = (
  *(None, True, -1, 0, 1, 2**31, 2**63, 10**30, -(10**30), 0.5, 1e308, float("inf"), float("nan")),
  *(
    "",
    "x",
    "../../etc/passwd",
    "/etc/passwd",
    "a\0b",
    "\ud800",
    "é" * 300,
    "1",
    [],
    {},
    [[]],
    [None],
  ),
  *({"a": 1}, [1, 2, 3, 4], ["x"] * 5, {"": {}}),
)


def mutate_json(tree, rng):
  """One change somewhere in a tree: another value, a key that is gone, twice, or odd."""
  holders = []

  def walk(node):
    items = node.items() if isinstance(node, dict) else enumerate(node)
    for key, value in items:
      holders.append((node, key))
      if isinstance(value, (dict, list)):
        walk(value)

  walk([tree] if not isinstance(tree, (dict, list)) else tree)
  if not holders:
    return tree
  node, key = holders[rng.integers(len(holders))]
  choice = rng.integers(6)
  if choice == 0:
    del node[key]
  elif choice == 1 and isinstance(node, list):
    node.insert(rng.integers(len(node) + 1), copy.deepcopy(node[key]))
  elif choice == 2 and isinstance(node, dict):
    node[str(_ODD[rng.integers(len(_ODD))])] = node.pop(key)
  else:
    node[key] = copy.deepcopy(_ODD[rng.integers(len(_ODD))])
  return tree


def mutate_bytes(content, rng):
  """Bits flipped, a piece cut out, doubled or overwritten, numbers replaced by extreme ones."""
  data = bytearray(content)
  for _ in range(1 + rng.integers(3)):
    if not data:
      break
    at, choice = int(rng.integers(len(data))), rng.integers(6)
    if choice == 0:
      data[at] ^= 1 << int(rng.integers(8))
    elif choice == 1:
      del data[at : at + int(rng.integers(1, 50))]
    elif choice == 2:
      data[at:at] = data[at : at + int(rng.integers(1, 200))]
    elif choice == 3:
      data[at : at + 8] = rng.bytes(8)
    elif choice == 4:
      data[at : at + 8] = struct.pack("<Q", int(rng.choice([0, 2**31, 2**40, 2**63 - 1])))
    else:
      del data[at:]
  return bytes(data)


def damaged_json(tree, rng):
  tree = copy.deepcopy(tree)
  for _ in range(1 + rng.integers(3)):
    tree = mutate_json(tree, rng)
  text = json.dumps(tree).encode()
  choice = rng.integers(8)
  if choice == 0:
    return mutate_bytes(text, rng)
  if choice == 1:
    return b"[" * int(rng.integers(1, 200_000)) + text
  return text


def damaged_png(content, rng):
  """A chunk of a PNG changed, with the checksum that belongs to it: so decoders read on."""
  if rng.integers(2):
    return mutate_bytes(content, rng)
  data, at = bytearray(content), 8
  chunks = []
  while at < len(data):
    (size,) = struct.unpack(">I", data[at : at + 4])
    chunks.append((at, size))
    at += 12 + size
  at, size = chunks[rng.integers(len(chunks))]
  if size:
    place = at + 8 + int(rng.integers(size))
    data[place] = int(rng.integers(256))
    checksum = zlib.crc32(data[at + 4 : at + 8 + size])
    data[at + 8 + size : at + 12 + size] = struct.pack(">I", checksum)
  return bytes(data)


# What readers do with a folder that `make` has filled: (make, the file that is damaged, read, how).


def make_images(folder):
  for number in (1, 2):
    Image.fromarray(np.full((20, 30, 3), number, np.uint8)).save(folder / f"{number}.png")
  images = [{"id": n, "file_name": f"{n}.png", "width": 30, "height": 20} for n in (1, 2)]
  return {"info": {}, "images": images, "categories": [{"id": 3, "name": "ant", "isthing": 1}]}


def make_boxes(folder):
  box = {"image_id": 1, "category_id": 3, "bbox": [1, 2, 9, 8], "iscrowd": 0, "area": 72}
  box["segmentation"] = [[1, 2, 9, 2, 9, 8]]
  return make_images(folder) | {"annotations": [{**box, "id": n, "image_id": n} for n in (1, 2)]}


def make_captions(folder):
  both = [{"id": n, "image_id": n, "caption": "an ant on a leaf"} for n in (1, 2)]
  return make_images(folder) | {"annotations": both}


def make_panoptic(folder):
  (folder / "masks").mkdir(exist_ok=True)
  both = []
  for number in (1, 2):
    mask = np.zeros((20, 30, 3), np.uint8)
    mask[5:9, 5:9, 0] = 7
    Image.fromarray(mask).save(folder / "masks" / f"{number}.png")
    segment = {"id": 7, "category_id": 3, "area": 16, "bbox": [5, 5, 4, 4], "iscrowd": 0}
    both.append({"image_id": number, "file_name": f"{number}.png", "segments_info": [segment]})
  return make_images(folder) | {"annotations": both}


def read_all(source):
  for index in range(min(len(source), 3)):
    source[index]


def read_boxes(folder):
  read_all(CocoDetection(str(folder / "file.json"), str(folder)))


def read_captions(folder):
  read_all(CocoCaptions(str(folder / "file.json"), str(folder)))


def read_panoptic(folder):
  read_all(CocoPanoptic(str(folder / "file.json"), str(folder), str(folder / "masks")))


def read_masks(folder):
  (folder / "masks" / "1.png").write_bytes((folder / "file.png").read_bytes())
  (folder / "file.json").write_text(json.dumps(make_panoptic_json(folder)))
  read_panoptic(folder)


def make_panoptic_json(folder):
  kept = (folder / "masks" / "1.png").read_bytes()
  tree = make_panoptic(folder)
  (folder / "masks" / "1.png").write_bytes(kept)
  return tree


def make_tree(folder):
  return {
    "a": {"kernel": np.arange(12, dtype=np.float32).reshape(3, 4)},
    "b": np.ones(5, np.float32),
  }


def make_safetensors(folder):
  weights.save_weights(folder / "sound.safetensors", make_tree(folder), {"phase": "mle"})
  return (folder / "sound.safetensors").read_bytes()


def make_npz(folder):
  np.savez(folder / "sound.npz", **{"params/a/kernel": np.ones((3, 4)), "params/b": np.ones(5)})
  return (folder / "sound.npz").read_bytes()


def make_mask_png(folder):
  make_panoptic(folder)
  return (folder / "masks" / "1.png").read_bytes()


def make_config(folder):
  tree = json.loads(configs.to_json(configs.Config()))
  for part in ("task", "data.train", "data.val"):
    configs_at = tree
    for name in part.split("."):
      configs_at = configs_at[name]
    configs_at.update(fn="rtune.rewards.boxes:recall", args={"a": [1, {"fn": "x:y"}]})
  tree["phases"] = ["mle"]
  return tree


def read_config(folder):
  (folder / "config.json").write_bytes((folder / "file.json").read_bytes())
  with reading.reading([folder], tell=False):
    run_files.read_config(folder)


def read_results(folder):
  (folder / "results.json").write_bytes((folder / "file.json").read_bytes())
  run_files.read_results(folder)


def read_log(folder):
  (folder / JSONL).write_bytes(
    b'{"step": 1, "loss": 1.0}\n' + (folder / "file.json").read_bytes() + b"\n"
  )
  read_metrics(folder)


def read_manifest(folder):
  (folder / manifest.FILE).write_bytes((folder / "file.json").read_bytes())
  manifest.problem(folder)
  manifest.altered(folder / "file.json")


def read_unreadable(folder):
  (folder / UNREADABLE).write_bytes((folder / "file.json").read_bytes() + b"\n")
  Unreadable("train", 10, 5, 1.0, folder)


RESULTS = {"mle": {"val/AR": 0.5, "val/AP": 0.1}, "seconds": {"mle": 3.0}}
MANIFEST = {"schema": 1, "files": {"file.json": [3, "ab"], "meta/x": [1, "cd"]}}
READERS = {
  "boxes": (make_boxes, "file.json", read_boxes, damaged_json),
  "captions": (make_captions, "file.json", read_captions, damaged_json),
  "panoptic": (make_panoptic, "file.json", read_panoptic, damaged_json),
  "masks": (make_mask_png, "file.png", read_masks, damaged_png),
  "safetensors": (
    make_safetensors,
    "file.safetensors",
    lambda folder: weights.load_weights(folder / "file.safetensors"),
    mutate_bytes,
  ),
  "npz": (make_npz, "file.npz", lambda f: weights.load_weights(f / "file.npz"), mutate_bytes),
  "config": (make_config, "file.json", read_config, damaged_json),
  "results": (lambda f: RESULTS, "file.json", read_results, damaged_json),
  "log": (
    lambda f: {"step": 2, "loss": 0.5, "reward/mean": "NaN"},
    "file.json",
    read_log,
    damaged_json,
  ),
  "manifest": (lambda f: MANIFEST, "file.json", read_manifest, damaged_json),
  "unreadable": (
    lambda f: {"source": "train", "example": 3, "problem": "it is broken"},
    "file.json",
    read_unreadable,
    damaged_json,
  ),
}


def try_cases(name, folder, cases):
  """Reads one damaged file after the other."""
  make, file, read, damage = READERS[name]
  sound = make(folder)
  (folder / file).write_bytes(sound if isinstance(sound, bytes) else json.dumps(sound).encode())
  read(folder)  # the sound file is read without complaint
  before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  refused = 0
  for seed in cases:
    content = damage(sound, np.random.default_rng(seed))
    (folder / file).write_bytes(content)
    try:
      read(folder)
    except RtuneError as error:
      refused += 1
      assert str(error).strip(), f"{name}: case {seed} is refused without a word"
    except Exception as error:
      error.add_note(f"{name}: case {seed}: {content[:300]!r}")
      raise
  grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
  assert grown < _MOST_MEMORY, f"{name}: the peak of memory grew by {grown:,} bytes"
  return refused


@pytest.mark.parametrize("name", READERS)
def test_damaged_files(name, tmp_path):
  refused = try_cases(name, tmp_path, range(_CASES))
  # Logs and lists are read as far as they go; of all others most damage is seen.
  assert refused > _CASES / 10 or name in ("log", "unreadable", "manifest")


@pytest.mark.slow
@pytest.mark.timeout(3600)  # 15,000 cases; on a busy machine over ten minutes
@pytest.mark.parametrize("name", READERS)
def test_many_damaged_files(name, tmp_path):
  try_cases(name, tmp_path, range(_CASES, _MANY))

"""Warm starts: what fits is taken, the common beginning of lists too, the rest is refused."""

import pathlib

import numpy as np
import pytest

from rtune.config.load import load_config
from rtune.errors import UsageError
from rtune.store import run_files, warm_start, weights
from rtune.training import loop

ROOT = pathlib.Path(__file__).resolve().parents[2]


def model(vocab=5, length=4, patches=4, width=3, seed=0):
  """The leaves that may differ, and one that may not."""
  rng = np.random.default_rng(seed)
  decoder = {
    "EmbedTargets": {"embedding": rng.normal(size=(vocab, width))},
    "LogitsDense": {"kernel": rng.normal(size=(width, vocab)), "bias": rng.normal(size=vocab)},
    "pos_embedding": rng.normal(size=(1, length, width)),
    "LayerNorm": {"scale": rng.normal(size=width)},
  }
  return {"encoder": {"pos_embedding": rng.normal(size=(1, patches, width))}, "decoder": decoder}


@pytest.mark.parametrize("vocab, length", [(5, 4), (8, 4), (3, 9), (8, 2)])
def test_common_beginning_is_taken_and_the_rest_is_fresh(vocab, length):
  fresh, other = model(vocab, length, seed=1), model(seed=2)
  taken = warm_start.adopt(fresh, other, print)["decoder"]
  rows, positions = min(vocab, 5), min(length, 4)
  fresh, other = fresh["decoder"], other["decoder"]
  for got, mine, theirs in (
    (taken["EmbedTargets"]["embedding"], *(x["EmbedTargets"]["embedding"] for x in (fresh, other))),
    (taken["LogitsDense"]["kernel"].T, *(x["LogitsDense"]["kernel"].T for x in (fresh, other))),
    (taken["LogitsDense"]["bias"], *(x["LogitsDense"]["bias"] for x in (fresh, other))),
  ):
    np.testing.assert_array_equal(got[:rows], theirs[:rows])
    np.testing.assert_array_equal(got[rows:], mine[rows:])
  got, mine, theirs = (x["pos_embedding"][0] for x in (taken, fresh, other))
  np.testing.assert_array_equal(got[:positions], theirs[:positions])
  np.testing.assert_array_equal(got[positions:], mine[positions:])
  np.testing.assert_array_equal(taken["LayerNorm"]["scale"], other["LayerNorm"]["scale"])


def test_positions_of_a_larger_image_are_resized():
  taken = warm_start.adopt(model(patches=16), model(patches=4, seed=2), print)
  np.testing.assert_array_equal(
    taken["encoder"]["pos_embedding"],
    weights.resize_grid(model(seed=2)["encoder"]["pos_embedding"], 4),
  )


def test_another_width_is_refused_with_a_table():
  with pytest.raises(UsageError, match=r"config.warm_start: .*\n(.*\n)*.*decoder/LayerNorm/scale"):
    warm_start.adopt(model(width=4), model(), print)


def test_run_starts_from_a_model_with_fewer_boxes(tiny_run, tmp_path, quick_compiles):
  """With a learning rate of 0 the weights are the other model's to the last bit."""
  settings = {"warm_start": str(tiny_run), "task.args.max_boxes": "7", "phases": "('mle',)"}
  settings |= {"mle.steps": "1", "mle.optim.lr": "0.0", "eval_every": "0", "log_every": "1"}
  config = load_config(f"{ROOT}/configs/detection_recall.py:tiny", list(settings.items()))
  loop.run(config, str(tmp_path))
  new, old = (
    weights.load_weights(run_files.weights_path(folder, "mle"))["decoder"]
    for folder in (tmp_path, tiny_run)
  )
  assert new["pos_embedding"].shape[1] == 42
  np.testing.assert_array_equal(new["pos_embedding"][:, :30], old["pos_embedding"])
  np.testing.assert_array_equal(new["LogitsDense"]["kernel"], old["LogitsDense"]["kernel"])


def test_a_part_that_the_other_model_lacks_starts_fresh():
  """As the head of `gains` on a restorer that was imitated without one."""
  fresh = {"restorer": {"kernel": np.zeros(3)}, "head": {"out": np.full(2, 7.0)}}
  said = []
  found = warm_start.adopt(fresh, {"restorer": {"kernel": np.ones(3)}}, said.append)
  np.testing.assert_array_equal(found["restorer"]["kernel"], 1)
  np.testing.assert_array_equal(found["head"]["out"], 7)
  assert len(said) == 1 and "head/out" in said[0]
  for other in ({"encoder": {"kernel": np.ones(3)}}, {"restorer": {"bias": np.ones(3)}}):
    with pytest.raises(UsageError, match="do not fit"):
      warm_start.adopt(fresh, other, said.append)


def test_missing_weights_are_named():
  with pytest.raises(UsageError, match=r"config.warm_start: nowhere.safetensors does not exist"):
    run_files.find_weights("nowhere.safetensors", "config.warm_start")

"""Captions as tokens: what goes in comes out, and no vocabulary is taken for another."""

import dataclasses
import io
import json
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rtune.config.names import check_args
from rtune.data.scenes.shapes import Shapes
from rtune.display import console
from rtune.errors import UsageError
from rtune.predictions.captions import References
from rtune.rewards import text as rewards
from rtune.tasks.captioning import Captioning
from rtune.tasks.task import bind, knowledge, load, settings, view
from rtune.training.scoring import with_known

pytestmark = pytest.mark.usefixtures("quick_compiles")

CAPTIONS = (
  ("A dog runs on the grass.", "the dog runs"),
  ("A cat sits.", "a small cat sits on the mat", "the cat"),
)


class Captions:
  """A source of images of one color each."""

  def __init__(self, captions=CAPTIONS):
    self.captions = captions

  def __len__(self):
    return len(self.captions)

  def __getitem__(self, index):
    image = np.full((8, 12, 3), 100 + index, np.uint8)
    return {"image": image, "image_id": 40 + index, "captions": self.captions[index]}

  def references(self, limit=0):
    return list(self.captions[: limit or None])


@pytest.fixture
def told(monkeypatch):
  """What is warned of."""
  found = []
  monkeypatch.setattr(console, "warn_once", lambda key, text: found.append(text))
  return found


def make(captions=CAPTIONS, **args):
  return bind(Captioning(**{"image_size": 8, "length": 8} | args), Captions(captions))


def batch_of(task, *raws):
  rows = [task.example(raw, None) for raw in raws]
  return {name: jnp.asarray(np.stack([row[name] for row in rows])) for name in rows[0]}


def test_examples_have_static_shapes():
  task, source = make(references=2), Captions()
  for raw in (*source, view(task).unlabeled(np.zeros((5, 4, 3), np.uint8), 3)):
    for rng in (None, np.random.default_rng(0)):
      features = task.example(raw, rng)
      assert features["image"].shape == (8, 8, 3) and features["image"].dtype == np.uint8
      assert features["target"].shape == (8,) and features["target"].dtype == np.int32
      assert features["reference_tokens"].shape == (2, task.known.longest + 1)
      assert features["reference_norms"].shape == (2, 4)
    references = {f"reference_{name}" for name in References._fields}
    assert set(task.example(raw, None)) == {"image", "target"} | references
  assert not task.example(raw, None)["reference_present"].any()


def test_each_caption_is_imitated_and_compared_with_in_turn():
  task, raw = make(references=2), Captions()[1]
  imitated, compared = set(), set()
  for seed in range(40):
    features = task.example(raw, np.random.default_rng(seed))
    imitated.add(task.known.decode(features["target"].tolist()))
    compared |= {task.known.decode(row) for row in features["reference_tokens"].tolist()}
    again = task.example(raw, np.random.default_rng(seed))
    assert all((again[name] == features[name]).all() for name in features)
  assert imitated == compared == {"a cat sits", "a small cat sits on the mat", "the cat"}
  first = task.example(raw, None)  # in evaluation it is always the same
  assert task.known.decode(first["target"].tolist()) == "a cat sits"


def test_targets_decode_to_their_captions():
  task, source = make(), Captions()
  batch = batch_of(task, *source)
  actions = task.targets({}, batch, jax.random.key(0))
  prediction = task.decode({}, actions[:, None], batch)
  assert prediction.tokens.shape == (2, 1, 8)
  for row, raw in enumerate(source):
    one = jax.tree.map(lambda x, row=row: x[row, 0], prediction)
    record = view(task).record(one, None, raw)
    assert record == {"image_id": 40 + row, "caption": raw["captions"][0].lower().rstrip(".")}


def test_a_target_that_is_its_only_reference_earns_the_whole_reward():
  captions = (("a dog runs on the grass",), ("a cat sits on the mat",))
  task = make(captions)
  batch = batch_of(task, *Captions(captions))
  score = jax.vmap(lambda p, t: rewards.cider_d(p, t, corpus=task.known)["reward"])
  whole = score(task.decode({}, batch["target"], batch), task.truth(batch))
  np.testing.assert_allclose(whole, 10, rtol=1e-5)
  swapped = score(task.decode({}, batch["target"][::-1], batch), task.truth(batch))
  assert (np.asarray(swapped) < 2).all()


def test_decoding_is_total():
  task = make()
  tokens = jnp.asarray([[3, 0, 5, 6, 0, 0, 0, 2], [-4, 999, 1, 2, 3, 4, 5, 6], [0] * 8])
  prediction = task.decode({}, tokens, None)
  np.testing.assert_array_equal(prediction.tokens[0], [3, 0, 0, 0, 0, 0, 0, 0])
  texts = [view(task).record(jax.tree.map(lambda x, i=i: x[i], prediction), None, {"image_id": i})
           for i in range(3)]  # fmt: skip
  assert len(texts[0]["caption"].split()) == 1 and texts[2]["caption"] == ""
  assert texts[1]["caption"].startswith("<unk> <unk> <unk> ")


def test_long_captions_lose_their_end_and_that_is_told(told):
  long = (("one two three four five six seven eight nine", "one two"), ("word " * 5000,))
  task = make(long)
  target = task.example(Captions(long)[0], None)["target"]
  assert task.known.decode(target.tolist()) == "one two three four five six seven eight"
  assert told == [
    "2 of 3 training captions have no room for their end in task.args.length=8 (longest: 5000 "
    "tokens); their beginning is imitated. Rewards and metrics see all of them."
  ]


def test_captions_of_unknown_words_are_counted(told):
  captions = (("a dog", "the dog"), ("a dog runs",), ("une souris \U0001f600",))
  task = make(captions, min_count=2)
  assert told == [
    "1 of 3 training images have only captions of unknown words; no reward can be earned on them. "
    "Lower task.args.min_count to know more words."
  ]
  assert task.known.vocab_size == 4  # the end, the unknown, "a" and "dog"
  target = task.example(Captions(captions)[0], None)["target"]
  assert (target < 4).all()
  with pytest.raises(UsageError, match="min_count is 9"):
    make(captions, min_count=9)


def test_anything_may_stand_in_a_caption():
  odd = ("", "\0", "\U0001f600", "a\0dog", "...", "\ud800 dog", "Ünïcode dog")
  task = make((odd, ("a dog",)), references=7)
  features = task.example(Captions((odd,))[0], np.random.default_rng(1))
  assert features["reference_present"].all()
  assert np.isfinite(features["reference_norms"]).all()


def test_config_holds_all_but_what_was_learned(tmp_path):
  task = make()
  held = settings(task)
  assert "known" not in held and "pieces" not in held
  assert held["digest"] == task.known.digest
  knowledge(task).save(tmp_path)
  again = load(Captioning(**json.loads(json.dumps(held))), tmp_path)
  assert again == task and hash(again) == hash(task)
  assert pickle.loads(pickle.dumps(again)) == task


def test_another_vocabulary_is_refused(tmp_path):
  task = make()
  other = make((("some other words",), ("for the other images",)))
  knowledge(other).save(tmp_path)
  with pytest.raises(UsageError, match=rf"digest {other.digest}.*digest {task.digest}"):
    load(task, tmp_path)
  taken = make(corpus=str(tmp_path / "corpus.npz"))
  assert taken.known == other.known
  with pytest.raises(UsageError, match=r"corpus\.npz"):
    bind(dataclasses.replace(task, corpus=str(tmp_path / "corpus.npz")), Captions())
  with pytest.raises(UsageError, match="No training image"):
    make((("une souris",), ("deux chats",)), corpus=str(tmp_path / "corpus.npz"))


def test_without_words_nothing_goes():
  with pytest.raises(UsageError, match="bind it to training data"):
    Captioning().space()
  with pytest.raises(UsageError, match="Shapes has no captions"):
    bind(Captioning(), Shapes("train", 3))


@pytest.mark.parametrize("field", ["image_size", "length", "references", "min_count"])
def test_senseless_settings_are_named(field):
  with pytest.raises(UsageError, match=rf"config\.task\.args\.{field} is 0"):
    Captioning(**{field: 0})


def test_a_reward_is_told_what_the_task_knows():
  task = make()
  assert with_known(rewards.cider_d, {"end_is_word": False}, task) == {
    "corpus": task.known,
    "end_is_word": False,
  }
  assert with_known(lambda prediction, truth, weight=1.0: 0.0, {}, task) == {}
  given = with_known(rewards.cider_d, {}, task)
  check_args(rewards.cider_d, given, "reward", given=2)
  with pytest.raises(UsageError, match="sentence_piece is empty"):
    with_known(rewards.cider_d_of_pieces, {}, task)


@pytest.fixture(scope="module")
def model_file(tmp_path_factory):
  sentencepiece = pytest.importorskip("sentencepiece", reason="needs the extra rtune[pieces]")
  model = io.BytesIO()
  texts = [caption for own in CAPTIONS for caption in own] * 5
  sentencepiece.SentencePieceTrainer.train(
    sentence_iterator=iter(texts), model_writer=model, vocab_size=26, minloglevel=2
  )
  path = tmp_path_factory.mktemp("pieces") / "mine.model"
  path.write_bytes(model.getvalue())
  return str(path)


def test_pieces_instead_of_words(model_file, tmp_path):
  task = make(sentence_piece=model_file, length=30)
  raw = Captions()[1]
  features = task.example(raw, None)
  prediction = task.decode({}, jnp.asarray(features["target"]), None)
  assert view(task).record(prediction, None, raw)["caption"] == raw["captions"][0]
  knowledge(task).save(tmp_path)
  gone = dataclasses.replace(task, sentence_piece="/gone.model", known=None, pieces=None)
  assert load(gone, tmp_path).pieces == task.pieces
  given = with_known(rewards.cider_d_of_pieces, {}, task)
  score = rewards.cider_d_of_pieces(
    [prediction], [jax.tree.map(lambda x: x[0], task.truth(batch_of(task, raw)))], **given
  )
  assert score[0]["reward"] > 3
  with pytest.raises(UsageError, match="cider_d_of_pieces"):
    with_known(rewards.cider_d, {}, task)
  with pytest.raises(UsageError, match="digest"):
    load(dataclasses.replace(make(), sentence_piece=model_file), tmp_path)

import functools
import io

import jax
import numpy as np
import pytest

from rtune.metrics import text as metrics
from rtune.predictions.captions import Caption
from rtune.rewards.text import cider_d, cider_d_of_pieces
from rtune.text.corpus import END, UNKNOWN_ID, build_corpus
from rtune.text.sentence_pieces import SentencePieces
from rtune.text.tokenize import UNKNOWN, tokenize
from rtune.training.host import HostReward

WORDS = ["a", "the", "dog", "cat", "mat", "on", "sits", "runs", "red", "two", "birds", "and"]
RARE = ["zebra", "xylophone"]  # below the minimum count: known to references and tables only


def sentence(rng, most, words=(*WORDS, *WORDS[:4])):
  return " ".join(rng.choice(words, rng.integers(0, most)))


pytestmark = pytest.mark.usefixtures("quick_compiles")


@pytest.fixture(scope="module")
def corpus():
  rng = np.random.default_rng(0)
  images = [[sentence(rng, 11) for _ in range(5)] for _ in range(60)]
  images[0] += ["a zebra on the mat", "xylophone and zebra"]
  return build_corpus(images, min_count=5)


def batch(corpus, seed, length=14, images=16, samples=6):
  """Captions [B, S, L], references [B, ...] and the references' words."""
  rng = np.random.default_rng(seed)
  groups = [
    [sentence(rng, 13, (*WORDS, *WORDS[:4], *RARE, "unseen", "unheard")) for _ in range(count)]
    for count in rng.integers(1, 6, images)
  ]
  groups[0] = ["unseen unheard unseen", "unheard"]
  groups[1] = ["", "a dog"]
  tokens = np.zeros((images, samples, length), np.int32)
  for b, group in enumerate(groups):
    written = [
      [],  # says nothing
      [corpus.ids["dog"]] * (length - 1),  # one word again and again
      rng.integers(1, corpus.vocab_size, length),  # breaks off: no room for an end
      corpus.encode(group[0]),
      corpus.encode(f"{group[-1]} on the {group[0]}"),
      rng.integers(1, corpus.vocab_size, rng.integers(1, length)),
    ]
    for row, ids in zip(tokens[b], written, strict=True):
      row[: len(ids[:length])] = ids[:length]
  references = [corpus.references(group, 5, 14) for group in groups]
  return Caption(tokens), jax.tree.map(lambda *rows: np.stack(rows), *references), groups


@functools.lru_cache
def scorer(corpus, **options):
  def one(caption, truth):
    return cider_d(caption, truth, corpus=corpus, **options)

  return jax.jit(jax.vmap(jax.vmap(one, in_axes=(0, None))))


def score(corpus, captions, references, **options):
  return jax.tree.map(np.asarray, scorer(corpus, **options)(captions, references))


def by_strings(vocabulary, captions, groups, end_is_word, corpus=None):
  """The same scores from what is written, by the other scorer."""

  def ended(text, whole=True):
    return tokenize(text) + [END] * (whole and end_is_word)

  candidates, references = [], []
  for rows, group in zip(np.asarray(captions.tokens).tolist(), groups, strict=True):
    for ids in rows:
      candidates.append(ended(vocabulary.decode(ids), 0 in ids))
      references.append([ended(text) for text in group])
  shape = captions.tokens.shape[:2]
  return metrics.cider_d(candidates, references, corpus or vocabulary).reshape(shape)


@pytest.mark.parametrize("end_is_word", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_it_equals_the_numpy_scorer(corpus, seed, end_is_word):
  captions, references, groups = batch(corpus, seed)
  assert (references.tokens == -1).any() and (references.tokens >= corpus.vocab_size).any()
  assert (captions.tokens == UNKNOWN_ID).any() and (captions.tokens[:, 2] > 0).all()
  rewards = score(corpus, captions, references, end_is_word=end_is_word)["reward"]
  expected = by_strings(corpus, captions, groups, end_is_word)
  np.testing.assert_allclose(rewards, expected, atol=1e-5)
  assert expected[:, 3].mean() > 1  # the image's own caption
  assert (expected[0] < 1e-12).all() or end_is_word  # nothing known in its references


def test_more_slots_change_nothing(corpus):
  captions, references, groups = batch(corpus, 3)
  short = Caption(captions.tokens[:, 3:4, :])
  longer = Caption(np.pad(short.tokens, ((0, 0), (0, 0), (0, 5))))
  padded = [corpus.references(group, 8, 20) for group in groups]
  padded = jax.tree.map(lambda *rows: np.stack(rows), *padded)
  values, others = score(corpus, short, references), score(corpus, longer, padded)
  whole = np.asarray(short.tokens)[:, 0, -1] == 0
  np.testing.assert_allclose(values["reward"][whole], others["reward"][whole], rtol=1e-6)


def test_what_follows_the_end_does_not_count(corpus):
  captions, references, _ = batch(corpus, 4)
  tokens = captions.tokens[:, 5:].copy()
  after = np.cumsum(tokens == 0, axis=-1) > 1
  filled = np.where(after, corpus.ids["dog"], tokens)
  assert (filled != tokens).any()
  for name, value in score(corpus, Caption(tokens), references).items():
    again = score(corpus, Caption(filled), references)[name]
    np.testing.assert_array_equal(value, again, err_msg=name)


def test_breaking_off_costs_only_where_the_end_is_a_word(corpus):
  references = jax.tree.map(lambda x: x[None], corpus.references(["a dog sits on the mat"], 5, 14))
  ids = corpus.encode("a dog sits on the mat")
  broken_off = Caption(np.array([[ids]], np.int32))  # all slots are words: it may go on with "on a"
  whole = Caption(np.array([[[*ids, 0]]], np.int32))
  for end_is_word in (True, False):
    parts = score(corpus, whole, references, end_is_word=end_is_word)
    assert parts["ended"] == 1 and parts["reward"] == pytest.approx(10, rel=1e-5)
    parts = score(corpus, broken_off, references, end_is_word=end_is_word)
    assert parts["ended"] == 0
    assert parts["reward"] < 9.7 if end_is_word else parts["reward"] == pytest.approx(10, rel=1e-5)


def test_parts_show_what_the_caption_is_like(corpus):
  texts = ["a dog a dog a dog", f"{UNKNOWN} dog {UNKNOWN} cat", "", "dog"]
  tokens = np.zeros((1, 4, 6), np.int32)
  for row, text in zip(tokens[0], texts, strict=True):
    ids = corpus.encode(text)
    row[: len(ids)] = ids
  references = jax.tree.map(lambda x: x[None], corpus.references(["a dog"], 5, 14))
  parts = score(corpus, Caption(tokens), references, end_is_word=False)
  assert parts["length"].tolist() == [[6, 4, 0, 1]]
  np.testing.assert_allclose(parts["repeated"], [[3 / 5, 0, 0, 0]], rtol=1e-6)
  assert parts["unknown"].tolist() == [[0, 0.5, 0, 0]]
  assert parts["ended"].tolist() == [[0, 1, 1, 1]]


def test_without_references_there_is_no_reward(corpus):
  none = jax.tree.map(lambda x: x[None], corpus.references([], 5, 14))
  parts = score(corpus, Caption(np.full((1, 1, 6), corpus.ids["dog"], np.int32)), none)
  assert np.isnan(parts["reward"]) and parts["length"] == 6


@pytest.mark.parametrize("length", [1, 2, 3])
def test_very_short_captions_and_corpora(length):
  small = build_corpus([["dog"], ["cat sits"], ["cat"]], 1)
  references = jax.tree.map(lambda x: x[None], small.references(["cat sits", "dog"], 3, 2))
  tokens = np.zeros((1, 2, length), np.int32)
  tokens[0, 0, 0] = small.ids["cat"]
  rewards = score(small, Caption(tokens), references, end_is_word=False)["reward"]
  expected = by_strings(small, Caption(tokens), [["cat sits", "dog"]], False)
  np.testing.assert_allclose(rewards, expected, atol=1e-5)
  assert rewards[0, 0] > 0


def test_ids_beyond_the_corpus_are_unknown(corpus):
  references = jax.tree.map(lambda x: x[None], corpus.references(["a dog on the mat"], 5, 14))
  tokens = np.array([[[10**6, 2, 0, 0], [UNKNOWN_ID, 2, 0, 0]]], np.int32)
  parts = score(corpus, Caption(tokens), references)
  for name, value in parts.items():
    assert value[0, 0] == value[0, 1], name


@pytest.mark.parametrize("end_is_word", [True, False])
def test_pieces_are_scored_as_the_words_they_spell(corpus, end_is_word):
  sentencepiece = pytest.importorskip("sentencepiece")
  rng, model = np.random.default_rng(0), io.BytesIO()
  sentencepiece.SentencePieceTrainer.train(
    sentence_iterator=(sentence(rng, 11) for _ in range(200)),
    model_writer=model,
    vocab_size=40,
    hard_vocab_limit=False,
    minloglevel=2,
  )
  pieces = SentencePieces(model.getvalue())
  _, references, groups = batch(corpus, 5, images=4)
  groups[2], groups[3] = ["a red dog sits on the mat"], ["the cat", "the cat runs"]
  rows = [corpus.references(group, 5, 14) for group in groups]
  references = jax.tree.map(lambda *arrays: np.stack(arrays), *rows)
  texts = ["", "doggo dog doggo catmat", "a red dog sits on the mat", "the cat runs and the cat"]
  written = [[text, text[: len(text) // 2]] for text in texts]
  tokens = np.zeros((4, 2, 60), np.int32)
  for b, row in enumerate(written):
    for s, text in enumerate(row):
      ids = pieces.encode(text)
      tokens[b, s, : len(ids)] = ids
  tokens[0, 1] = pieces.encode("dog")[0]  # breaks off
  captions = Caption(tokens)
  args = {"corpus": corpus, "pieces": pieces, "end_is_word": end_is_word}
  parts = HostReward(cider_d_of_pieces, "pieces", args, False, 0.0)(captions, references)
  np.testing.assert_allclose(
    parts["reward"], by_strings(pieces, captions, groups, end_is_word, corpus), atol=1e-5
  )
  assert parts["reward"][2, 0] == pytest.approx(10, rel=1e-5) and parts["ended"][0, 1] == 0
  # Different words that the corpus lacks are different: two of "doggo", one of "catmat".
  assert parts["unknown"][1, 0] == pytest.approx(3 / 4) and parts["repeated"][1, 0] == 0

"""Rewards of captions: pure functions of one prediction and its truth. jit, vmap.

Dimension key:
  L: token slots of the candidate
  R: references of the image
  K: token slots of a reference
  X: positions at which an n-gram of the candidate may start, L - n + 1
  G, P: n-grams of the corpus, their prefixes
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from rtune.predictions.captions import Caption, References
from rtune.rewards.mark import on_host
from rtune.text.corpus import END_ID, UNKNOWN_ID, Corpus
from rtune.text.ngrams import MAX_N
from rtune.text.sentence_pieces import SentencePieces
from rtune.text.tokenize import tokenize

_SIGMA = 6.0  # of the length penalty
_NO_WORD, _NO_REFERENCE_WORD = -2, -3  # beyond the end; equal to nothing on the other side


def cider_d(
  prediction: Caption, truth: References, *, corpus: Corpus, end_is_word: bool = True
) -> dict[str, Float[Array, ""]]:
  """CIDEr-D of a caption as `rtune.metrics.text.cider_d` counts it (1411.5726).

  N-grams are compared word by word and their document frequencies searched in the corpus: exact,
  nothing is hashed. Unknown words equal no word of a reference. NaN without any reference.

  Args:
    prediction: tokens [L].
    truth: references [R, K] that `corpus.references` made.
    corpus: words and document frequencies of the training captions.
    end_is_word: counts the end of a caption as a word, so that one that breaks off ("a dog on a")
      goes without the n-grams that end a caption.

  Returns:
    reward (1.0 is what papers print as 100), length in words, repeated (share of bigrams that the
    caption had before), unknown (share of words), ended (0 where all slots are full of words).
  """
  tokens_L = jnp.asarray(prediction.tokens)
  length = _length(tokens_L)
  return _score(tokens_L, length, length < len(tokens_L), truth, corpus, end_is_word)


@on_host(batched=True)
def cider_d_of_pieces(
  predictions: Sequence[Caption],
  truths: Sequence[References],
  *,
  corpus: Corpus,
  pieces: SentencePieces,
  end_is_word: bool = True,
) -> list[dict[str, float]]:
  """`cider_d` of captions in SentencePiece's pieces: of the words in what they spell.

  Pieces are put together and cut into words on the host, and the words scored as above.

  Args:
    predictions: N captions, tokens [L] of `pieces`.
    truths: N references [R, K] that `corpus.references` made.
    corpus: words and document frequencies of the training captions.
    pieces: what the tokens mean.
    end_is_word: as in `cider_d`.
  """
  spelled = [tokenize(pieces.decode(caption.tokens.tolist())) for caption in predictions]
  ids = corpus.distinct_ids(spelled)
  longest = max(map(len, ids), default=0)
  # Powers of two: few widths, few compilations.
  tokens_NL = np.zeros((len(ids), 1 << max(4, longest.bit_length())), np.int32)
  for row, words in zip(tokens_NL, ids, strict=True):
    row[: len(words)] = words
  length_N = np.array([len(words) for words in ids], np.int32)
  ended_N = np.array([END_ID in caption.tokens for caption in predictions])
  truth = jax.tree.map(lambda *rows: np.stack(rows), *truths)
  parts = jax.device_get(_score_all(tokens_NL, length_N, ended_N, truth, corpus, end_is_word))
  return [{name: float(values[i]) for name, values in parts.items()} for i in range(len(ids))]


@functools.partial(jax.jit, static_argnames=("corpus", "end_is_word"))
def _score_all(tokens_NL, length_N, ended_N, truth, corpus: Corpus, end_is_word: bool):
  def one(tokens_L, length, ended, truth):
    return _score(tokens_L, length, ended, truth, corpus, end_is_word)

  return jax.vmap(one)(tokens_NL, length_N, ended_N, truth)


def _score(
  tokens_L: Int[Array, " l"],
  length: Int[Array, ""],
  ended: Bool[Array, ""],
  truth: References,
  corpus: Corpus,
  end_is_word: bool,
) -> dict[str, Float[Array, ""]]:
  """Reward and parts of `length` words; ids beyond the corpus are words that it does not hold."""
  size = length + (ended & end_is_word).astype(length.dtype)
  words_L = _words(tokens_L, size, _NO_WORD)
  tokens_RK = jnp.asarray(truth.tokens)
  words_RK = _words(tokens_RK, _length(tokens_RK) + int(end_is_word), _NO_REFERENCE_WORD)
  matches = _count(words_L, words_RK)
  norms_R4 = truth.norms_with_end if end_is_word else truth.norms
  similar_R = jnp.zeros(len(words_RK))
  for n, (idf_X, (own_X, other_RX)) in enumerate(zip(_idf(words_L, corpus), matches, strict=True)):
    square_X = jnp.where(words_L[n:] != _NO_WORD, jnp.square(idf_X), 0.0)
    # Sums over positions: of c equal n-grams each brings 1 / c of what they count together.
    clipped_RX = jnp.minimum(own_X[None], other_RX) * other_RX / own_X[None]
    norms_R = jnp.sqrt(jnp.sum(square_X * own_X)) * norms_R4[:, n]
    dot_R = jnp.sum(square_X[None] * clipped_RX, axis=-1)
    similar_R += jnp.where(norms_R > 0, dot_R / jnp.where(norms_R > 0, norms_R, 1.0), 0.0)
  # The scorer's length is the number of bigrams.
  bigrams = jnp.maximum(size - 1, 0)
  bigrams_R = jnp.maximum(truth.lengths + int(end_is_word) - 1, 0)
  longer_R = (bigrams - bigrams_R).astype(jnp.float32)
  similar_R *= jnp.exp(-jnp.square(longer_R / _SIGMA) / 2)
  total = jnp.sum(jnp.where(truth.present, similar_R, 0.0))
  unknown_L = (words_L == UNKNOWN_ID) | (words_L >= corpus.num_ids)
  return {
    "reward": 10 / MAX_N * total / jnp.sum(truth.present, dtype=jnp.float32),
    "length": length.astype(jnp.float32),
    "repeated": _repeated(words_L, matches[1][0]),
    "unknown": jnp.sum(unknown_L) / jnp.maximum(length, 1),
    "ended": ended.astype(jnp.float32),
  }


def _length(tokens_K: Int[Array, "*r k"]) -> Int[Array, "*r"]:
  """Words before the first end."""
  return jnp.min(jnp.where(tokens_K == END_ID, _slots(tokens_K), tokens_K.shape[-1]), axis=-1)


def _words(
  tokens_K: Int[Array, "*r k"], sizes: Int[Array, "*r"], filler: int
) -> Int[Array, "*r k"]:
  """The first tokens, and the filler after them."""
  return jnp.where(_slots(tokens_K) < sizes[..., None], tokens_K, filler)


def _slots(tokens_K: Int[Array, "*r k"]) -> Int[Array, "*r k"]:
  """The place of each token in its row."""
  return jax.lax.broadcasted_iota(jnp.int32, tokens_K.shape, tokens_K.ndim - 1)


def _count(
  words_L: Int[Array, " l"], words_RK: Int[Array, "r k"]
) -> list[tuple[Float[Array, " x"], Float[Array, "r x"]]]:
  """For n = 1 to 4: how often the n-gram at each position is in the candidate, in each reference.

  An n-gram equals another if the one without its last word does, and that word.
  """
  own_LL = words_L[:, None] == words_L[None]
  other_RLK = words_L[None, :, None] == words_RK[:, None]
  own_XX, other_RXY, counts = own_LL, other_RLK, []
  for n in range(MAX_N):
    if n:
      own_XX = own_XX[:-1, :-1] & own_LL[n:, n:]
      other_RXY = other_RXY[:, :-1, :-1] & other_RLK[:, n:, n:]
    counts.append(tuple(jnp.sum(x, axis=-1, dtype=jnp.float32) for x in (own_XX, other_RXY)))
  return counts


def _idf(words_L: Int[Array, " l"], corpus: Corpus) -> list[Float[Array, " x"]]:
  """For n = 1 to 4: log(images / images with it) of the n-gram that starts at each position.

  An n-gram that no training caption holds counts as if one image had it.
  """
  highest = np.log(corpus.num_documents)
  rank_X = jnp.where((words_L >= 0) & (words_L < corpus.num_ids), words_L, -1)
  found = []
  for n, table in enumerate(corpus.tables):
    if n:
      rank_X = _search(table.offsets, table.last, rank_X[:-1], words_L[n:])
    worth_G = np.append(highest - np.log(np.maximum(table.documents, 1)), highest)
    found.append(jnp.asarray(worth_G, jnp.float32)[rank_X])  # -1 is the last one
  return found


def _search(
  offsets: Int[np.ndarray, " p"],
  last: Int[np.ndarray, " g"],
  prefix_X: Int[Array, " x"],
  word_X: Int[Array, " x"],
) -> Int[Array, " x"]:
  """Place of each word in the row of its prefix; -1 where there is none, or no prefix."""
  if not len(last):
    return jnp.full_like(prefix_X, -1)
  last_G, offsets_P = jnp.asarray(last), jnp.asarray(offsets)
  row_X = offsets_P[prefix_X], offsets_P[prefix_X + 1]

  def halve(_, bounds):
    low_X, high_X = bounds
    middle_X = (low_X + high_X) // 2
    below_X = (last_G[middle_X] < word_X) & (low_X < high_X)
    return jnp.where(below_X, middle_X + 1, low_X), jnp.where(below_X, high_X, middle_X)

  # A loop rather than its body many times over, which compiles for as long as the run lasts.
  steps = int(np.diff(offsets).max()).bit_length()
  low_X, _ = jax.lax.fori_loop(0, steps, halve, row_X)
  found_X = (prefix_X >= 0) & (low_X < row_X[1]) & (last_G[low_X] == word_X)
  return jnp.where(found_X, low_X, -1)


def _repeated(words_L: Int[Array, " l"], own_X: Float[Array, " x"]) -> Float[Array, ""]:
  """Share of the bigrams that are there for the second time or more."""
  present_X = words_L[1:] != _NO_WORD
  again = jnp.sum(jnp.where(present_X, 1 - 1 / own_X, 0.0))
  return again / jnp.maximum(jnp.sum(present_X, dtype=jnp.float32), 1)

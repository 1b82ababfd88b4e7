"""Caption scores as the COCO caption scorer defines them, with numpy, for any captioner.

Dimension key:
  C: candidates, one an image
  M: candidates and, after them, the references of all images
  T: positions of these captions, one after another
  N: n = 1 to 4
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float64, Int64

from rtune.errors import DataError
from rtune.metrics.metric import Metric
from rtune.text import ngrams, pools
from rtune.text.corpus import Corpus
from rtune.text.tokenize import UNKNOWN, tokenize

Words = Sequence[str]
_SIGMA = 6.0  # of CIDEr-D's length penalty
_BETA = 1.2  # weight of recall in ROUGE-L


class Entry(NamedTuple):
  """What counts of one image."""

  image_id: int
  caption: str
  words: list[str]
  references: list[list[str]]


def caption_metric(words: Corpus) -> Metric:
  """CIDEr, BLEU, ROUGE-L, and what shows that a reward is gamed.

  The state is a list of entries, one an image. A prediction is {image_id, caption}, a truth is
  {image_id, captions}, all of them strings as written.

  `compute` gives CIDEr (which is CIDEr-D, as the COCO scorer has it; 1.0 is what papers print as
  100) with document frequencies of `words`, CIDEr_own with those of the scored references, which
  is what papers print; BLEU1 to BLEU4, ROUGE_L; vocabulary (different words used), length (words of
  a caption), repeated (share of its bigrams that it had before), unknown (share of its words).
  `results` is COCO's results format.

  Raises:
    DataError: from `update` for a truth of another image, from `compute` for an image that has no
      captions or was scored twice.
  """

  def update(
    state: list[Entry], prediction: Mapping[str, Any], truth: Mapping[str, Any]
  ) -> list[Entry]:
    state.append(_record(prediction, truth))
    return state

  def compute(state: list[Entry]) -> dict[str, float]:
    return _summary(state, words)

  def results(state: list[Entry]) -> list[dict[str, Any]]:
    return [{"image_id": record.image_id, "caption": record.caption} for record in state]

  return Metric(list, update, compute, None, results)


def cider_d(
  candidates: Sequence[Words], references: Sequence[Sequence[Words]], corpus: Corpus | None = None
) -> Float64[np.ndarray, " c"]:
  """CIDEr-D of each candidate (1411.5726): CIDEr with clipped counts and a length penalty.

  The penalty compares numbers of bigrams, as the official code does. To count the end of a caption
  as a word, end candidates and references with `corpus.END`.

  Args:
    candidates: words of one caption for each image.
    references: words of the captions of each image, at least one.
    corpus: where document frequencies come from; None takes the references of all images.
  """
  return _cider(candidates, references, corpus, clipped=True)


def cider(
  candidates: Sequence[Words], references: Sequence[Sequence[Words]], corpus: Corpus | None = None
) -> Float64[np.ndarray, " c"]:
  """CIDEr of each candidate: cosine of the tf-idf vectors, mean over n and references, times 10."""
  return _cider(candidates, references, corpus, clipped=False)


def bleu(
  candidates: Sequence[Words], references: Sequence[Sequence[Words]]
) -> tuple[float, float, float, float]:
  """BLEU-1 to BLEU-4 of all candidates together, with the closest reference length of each."""
  pool = pools.lay_out(candidates, references, None)
  lengths_C = np.array([len(words) for words in candidates])
  shortfall = sum(
    min((abs(len(words) - length), len(words)) for words in group)[1]
    for group, length in zip(references, lengths_C, strict=True)
  )
  # The official code's guards against division by zero, which show in the last digits.
  tiny, small = 1e-15, 1e-9
  ratio = (lengths_C.sum() + tiny) / (shortfall + small)
  brevity = math.exp(1 - 1 / ratio) if ratio < 1 else 1.0
  product, scores = 1.0, []
  for n in range(1, ngrams.MAX_N + 1):
    guesses = np.maximum(lengths_C - n + 1, 0).sum()
    product *= (_matches(pool, n) + tiny) / (guesses + small)
    scores.append(float(product ** (1 / n) * brevity))
  return tuple(scores)


def rouge_l(
  candidates: Sequence[Words], references: Sequence[Sequence[Words]]
) -> Float64[np.ndarray, " c"]:
  """ROUGE-L of each candidate: F-score of the best precision and recall of common subsequences."""
  return np.array(
    [_rouge_l(words, group) for words, group in zip(candidates, references, strict=True)]
  )


def _cider(
  candidates: Sequence[Words],
  references: Sequence[Sequence[Words]],
  corpus: Corpus | None,
  clipped: bool,
) -> Float64[np.ndarray, " c"]:
  pool = pools.lay_out(candidates, references, corpus)
  idf_NT = pools.own_idf(pool) if corpus is None else corpus.idf(pool.tokens_T)
  similar_M = np.zeros(len(pool.image_M))
  for numbers_T, idf_T in zip(pool.numbers_NT, idf_NT, strict=True):
    counts = ngrams.count_ngrams(numbers_T, pool.caption_T)
    weights = counts.count * idf_T[counts.position]
    norms_M = np.sqrt(_sums(counts.caption, weights**2, pool.image_M))
    ours, theirs = pools.shared(counts, pool)
    factor = np.minimum(weights[ours], weights[theirs]) if clipped else weights[ours]
    dot_M = _sums(counts.caption[theirs], factor * weights[theirs], pool.image_M)
    both_M = norms_M * norms_M[pool.image_M]  # the candidate of an image has the image's index
    similar_M += np.divide(dot_M, both_M, out=np.zeros_like(dot_M), where=both_M > 0)
  if clipped:
    bigrams_M = _sums(pool.caption_T, pool.numbers_NT[1] >= 0, pool.image_M)
    similar_M *= np.exp(-((bigrams_M - bigrams_M[pool.image_M]) ** 2) / (2 * _SIGMA**2))
  of_references = slice(pool.num_images, None)
  image_R = pool.image_M[of_references]
  totals_C = np.bincount(image_R, similar_M[of_references], minlength=pool.num_images)
  return 10 * totals_C / ngrams.MAX_N / np.bincount(image_R, minlength=pool.num_images)


def _matches(pool: pools.Pool, n: int) -> int:
  """N-grams of all candidates found in a reference, each as often as one reference has it."""
  counts = ngrams.count_ngrams(pool.numbers_NT[n - 1], pool.caption_T)
  ours, theirs = pools.shared(counts, pool)
  most = np.zeros(len(counts.count), np.int64)
  np.maximum.at(most, ours, counts.count[theirs])
  return int(np.minimum(most, counts.count).sum())


def _sums(
  caption: Int64[np.ndarray, " k"], values: np.ndarray, image_M: Int64[np.ndarray, " m"]
) -> Float64[np.ndarray, " m"]:
  return np.bincount(caption, values, minlength=len(image_M)).astype(np.float64)


def _rouge_l(words: Words, group: Sequence[Words]) -> float:
  # The official code takes an empty caption for one empty word.
  words, group = words or [""], [reference or [""] for reference in group]
  common = [_common_subsequence(words, reference) for reference in group]
  precision = max(common) / len(words)
  recall = max(length / len(other) for length, other in zip(common, group, strict=True))
  if precision == 0 or recall == 0:
    return 0.0
  return (1 + _BETA**2) * precision * recall / (recall + _BETA**2 * precision)


def _common_subsequence(left: Words, right: Words) -> int:
  """Length of the longest common subsequence, a row of the table in the bits of one number.

  Bit j of `open_` is zero where the length grows at right[j] (Hyyro 2004).
  """
  places: dict[str, int] = {}
  for place, word in enumerate(right):
    places[word] = places.get(word, 0) | 1 << place
  open_ = full = (1 << len(right)) - 1
  for word in left:
    met = open_ & places.get(word, 0)
    open_ = (open_ + met | open_ - met) & full
  return len(right) - open_.bit_count()


def _record(prediction: Mapping[str, Any], truth: Mapping[str, Any]) -> Entry:
  image_id = int(truth["image_id"])
  if int(prediction["image_id"]) != image_id:
    raise DataError(
      f"caption metric: the prediction is of image {prediction['image_id']}, the truth of "
      f"{image_id}"
    )
  caption = str(prediction["caption"])
  return Entry(image_id, caption, tokenize(caption), [tokenize(text) for text in truth["captions"]])


def _summary(state: Sequence[Entry], corpus: Corpus) -> dict[str, float]:
  ids = [record.image_id for record in state]
  if len(set(ids)) != len(ids):
    twice = next(image_id for image_id in ids if ids.count(image_id) > 1)
    raise DataError(f"caption metric: image {twice} was scored more than once")
  if not state:
    raise DataError("caption metric: there are no images to score")
  bare = [record.image_id for record in state if not record.references]
  if bare:
    raise DataError(f"caption metric: image {bare[0]} has no captions to compare with")
  candidates = [record.words for record in state]
  references = [record.references for record in state]
  scores = {
    "CIDEr": float(cider_d(candidates, references, corpus).mean()),
    "CIDEr_own": float(cider_d(candidates, references).mean()),
    **{f"BLEU{n}": value for n, value in enumerate(bleu(candidates, references), start=1)},
    "ROUGE_L": float(rouge_l(candidates, references).mean()),
  }
  words = [word for candidate in candidates for word in candidate]
  pairs = [list(itertools.pairwise(candidate)) for candidate in candidates]
  bigrams = sum(map(len, pairs))
  return {
    **scores,
    "vocabulary": float(len(set(words) - {UNKNOWN})),
    "length": len(words) / len(state),
    "repeated": 1 - sum(len(set(each)) for each in pairs) / bigrams if bigrams else 0.0,
    "unknown": words.count(UNKNOWN) / max(len(words), 1),
  }

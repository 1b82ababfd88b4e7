"""Candidates and the references of all images as one pool of numbered n-grams.

Dimension key:
  M: captions: candidates, one an image, and after them the references
  T: their positions, one after another, a -1 after each caption
  N: n = 1 to 4
  K: rows of counted n-grams
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int64

from rtune.text import ngrams
from rtune.text.corpus import Corpus

Words = Sequence[str]


class Pool(NamedTuple):
  """Numbered n-grams of captions; the candidate of image i is caption i."""

  tokens_T: Int64[np.ndarray, " t"]
  caption_T: Int64[np.ndarray, " t"]
  numbers_NT: Int64[np.ndarray, "4 t"]
  image_M: Int64[np.ndarray, " m"]
  num_images: int


def lay_out(
  candidates: Sequence[Words], references: Sequence[Sequence[Words]], corpus: Corpus | None
) -> Pool:
  """Numbers the words as `corpus` does, or in their own order where there is none."""
  captions = [*candidates, *(words for group in references for words in group)]
  if corpus is not None:
    ids = corpus.distinct_ids(captions)
  else:
    own: dict[str, int] = {}
    ids = [[own.setdefault(word, len(own)) for word in words] for words in captions]
  tokens_T, caption_T = ngrams.lay_out(ids)
  images = np.arange(len(candidates))
  image_M = np.concatenate([images, np.repeat(images, [len(group) for group in references])])
  return Pool(tokens_T, caption_T, ngrams.number_ngrams(tokens_T), image_M, len(candidates))


def own_idf(pool: Pool) -> Float64[np.ndarray, "4 t"]:
  """log(images / images with it in a reference) of the n-gram at each position."""
  documents_NT = np.ones(pool.numbers_NT.shape)
  image_T = pool.image_M[pool.caption_T]
  for numbers_T, documents_T in zip(pool.numbers_NT, documents_NT, strict=True):
    referenced = (pool.caption_T >= pool.num_images) & (numbers_T >= 0)
    pairs = np.unique(numbers_T[referenced] * pool.num_images + image_T[referenced])
    counted = np.bincount(pairs // pool.num_images, minlength=numbers_T.max(initial=0) + 1)
    documents_T[:] = np.maximum(counted[numbers_T], 1)
  return np.log(pool.num_images) - np.log(documents_NT)


def shared(counts: ngrams.Counts, pool: Pool) -> tuple[Int64[np.ndarray, " k"], ...]:
  """Rows of `counts` for n-grams that a candidate shares with a reference: its own, the other."""
  base = counts.number.max(initial=0) + 1
  keys = pool.image_M[counts.caption] * base + counts.number
  split = int(np.searchsorted(counts.caption, pool.num_images))
  if split == 0:
    return np.zeros(0, np.int64), np.zeros(0, np.int64)
  places = np.minimum(np.searchsorted(keys[:split], keys[split:]), split - 1)
  theirs = np.flatnonzero(keys[places] == keys[split:])
  return places[theirs], theirs + split

"""N-grams of captions, numbered and counted with numpy, exactly: nothing is hashed.

Dimension key:
  T: positions of captions that lie one after another, a -1 after each
  N: n = 1 to 4
  K: different n-grams of each caption
  G: n-grams of one n
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int32, Int64

MAX_N = 4


class Table(NamedTuple):
  """Document frequencies of the n-grams of one n, in rows of one prefix each.

  The id of an n-gram is the place of its last word in `last`, within the row of its prefix, which
  is an (n-1)-gram of the table before. For n = 1 there is one row, and it holds every word.
  """

  offsets: Int32[np.ndarray, " p"]  # row i is last[offsets[i] : offsets[i + 1]], and rises
  last: Int32[np.ndarray, " g"]
  documents: Int32[np.ndarray, " g"]  # images with the n-gram in one of their captions


class Counts(NamedTuple):
  """How often each caption holds each of its n-grams, for one n; sorted by caption."""

  caption: Int64[np.ndarray, " k"]
  number: Int64[np.ndarray, " k"]
  count: Int64[np.ndarray, " k"]
  position: Int64[np.ndarray, " k"]  # where it stands first


def lay_out(captions: Sequence[Sequence[int]]) -> tuple[Int64[np.ndarray, " t"], ...]:
  """Word ids of captions one after another with -1 after each, and which caption each is of."""
  lengths = [len(ids) + 1 for ids in captions]
  tokens_T = np.array([number for ids in captions for number in (*ids, -1)], np.int64)
  return tokens_T, np.repeat(np.arange(len(captions)), lengths)


def number_ngrams(tokens_T: Int64[np.ndarray, " t"]) -> Int64[np.ndarray, "4 t"]:
  """Numbers the n-gram that starts at each position: the same if and only if the words are.

  -1 where a caption has ended before n words. Numbers of two n may coincide.
  """
  numbers_NT = np.full((MAX_N, len(tokens_T)), -1, np.int64)
  numbers_NT[0] = tokens_T
  base = int(tokens_T.max(initial=0)) + 1
  for n in range(1, MAX_N):
    at, keys = extended(numbers_NT[n - 1], tokens_T, n, base)
    numbers_NT[n, at] = np.unique(keys, return_inverse=True)[1]
  return numbers_NT


def extended(
  prefix_T: Int64[np.ndarray, " t"], tokens_T: Int64[np.ndarray, " t"], n: int, base: int
) -> tuple[Int64[np.ndarray, " x"], Int64[np.ndarray, " x"]]:
  """Where prefixes of n words are followed by another one, and prefix * base + that word."""
  last_T = np.append(tokens_T[n:], np.full(min(n, len(tokens_T)), -1))
  at = np.flatnonzero((prefix_T >= 0) & (last_T >= 0))
  return at, prefix_T[at] * base + last_T[at]


def count_ngrams(numbers_T: Int64[np.ndarray, " t"], caption_T: Int64[np.ndarray, " t"]) -> Counts:
  """Counts the numbered n-grams of each caption."""
  at = np.flatnonzero(numbers_T >= 0)
  base = numbers_T.max(initial=0) + 1
  keys, first, count = np.unique(
    caption_T[at] * base + numbers_T[at], return_index=True, return_counts=True
  )
  return Counts(keys // base, keys % base, count, at[first])


def build_tables(
  tokens_T: Int64[np.ndarray, " t"], document_T: Int64[np.ndarray, " t"], num_ids: int
) -> tuple[Table, ...]:
  """Tables of n = 1 to 4 from word ids below `num_ids` and the image that each belongs to."""
  documents_G = _count_documents(tokens_T, document_T, num_ids)
  tables = [Table(_int32([0, num_ids]), _int32(np.arange(num_ids)), documents_G)]
  rank_T = tokens_T
  for n in range(1, MAX_N):
    at, keys = extended(rank_T, tokens_T, n, num_ids)
    keys_G, ranks = np.unique(keys, return_inverse=True)
    rank_T = np.full_like(tokens_T, -1)
    rank_T[at] = ranks
    rows = np.arange(len(tables[-1].last) + 1)
    offsets = np.searchsorted(keys_G // num_ids, rows)
    documents_G = _count_documents(rank_T, document_T, len(keys_G))
    tables.append(Table(_int32(offsets), _int32(keys_G % num_ids), documents_G))
  return tuple(tables)


def table_keys(table: Table, num_ids: int) -> Int64[np.ndarray, " g"]:
  """prefix * num_ids + last word of each n-gram of a table, rising."""
  prefix_G = np.repeat(np.arange(len(table.offsets) - 1), np.diff(table.offsets))
  return prefix_G * num_ids + table.last


def _count_documents(
  number_T: Int64[np.ndarray, " t"], document_T: Int64[np.ndarray, " t"], size: int
) -> Int32[np.ndarray, " g"]:
  at = number_T >= 0
  base = document_T.max(initial=0) + 1
  pairs = np.unique(number_T[at] * base + document_T[at])
  return _int32(np.bincount(pairs // base, minlength=size))


def _int32(values: Sequence[int] | np.ndarray) -> Int32[np.ndarray, " x"]:
  return np.asarray(values, np.int32)

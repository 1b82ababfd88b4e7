"""What the training captions say of words: ids, the model's vocabulary, document frequencies.

Dimension key:
  T: positions of captions that lie one after another, a -1 after each
  N: n = 1 to 4
  R, L: references of an image, token slots
"""

import dataclasses
import functools
import hashlib
import os
import zipfile
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Float, Int64

from rtune.errors import DataError, UsageError
from rtune.predictions.captions import References
from rtune.text import ngrams
from rtune.text.tokenize import UNKNOWN, tokenize

END_ID, UNKNOWN_ID, FIRST_WORD_ID = 0, 1, 2
END = "\n"  # the end of a caption among its words, where it counts as one; never part of a word


@dataclasses.dataclass(frozen=True, eq=False)
class Corpus:
  """Words and n-grams of all references of the training images. Equal if the digests are.

  Id 0 is the end of a caption, 1 stands for unknown words, and words[i] has the id i + 2. The model
  writes ids below `vocab_size`; words beyond them are known to references and tables only.

  Attributes:
    words: every word, the most frequent first, equal ones in alphabetical order.
    vocab_size: ids that the model can write.
    num_documents: images with at least one caption.
    longest: words of the longest caption.
    tables: document frequencies for n = 1 to 4. The end of a caption counts as its last word.
  """

  words: tuple[str, ...]
  vocab_size: int
  num_documents: int
  longest: int
  tables: tuple[ngrams.Table, ...]

  def __eq__(self, other: object) -> bool:
    return isinstance(other, Corpus) and self.digest == other.digest

  def __hash__(self) -> int:
    return hash(self.digest)

  def __repr__(self) -> str:
    return f"Corpus({len(self.words)} words, {self.vocab_size} ids, digest {self.digest})"

  @functools.cached_property
  def digest(self) -> str:
    """Names the contents, 16 hexadecimal digits: what is saved with one corpus needs the same."""
    digest = hashlib.sha256("\n".join(self.words).encode())
    digest.update(repr((self.vocab_size, self.num_documents, self.longest)).encode())
    for table in self.tables:
      for array in table:
        digest.update(np.ascontiguousarray(array))
    return digest.hexdigest()[:16]

  @functools.cached_property
  def ids(self) -> dict[str, int]:
    """Id of every word."""
    return {word: FIRST_WORD_ID + index for index, word in enumerate(self.words)}

  @property
  def num_ids(self) -> int:
    """Ids of all words, the end and the unknown one."""
    return FIRST_WORD_ID + len(self.words)

  def encode(self, caption: str) -> list[int]:
    """Ids that the model can write, 1 for all other words; no end."""
    ids = (self.ids.get(word, UNKNOWN_ID) for word in tokenize(caption))
    return [number if number < self.vocab_size else UNKNOWN_ID for number in ids]

  def decode(self, ids: Iterable[int]) -> str:
    """Words up to the end, parted by spaces; <unk> for the unknown and for what is no id at all."""
    words = []
    for number in ids:
      if number == END_ID:
        break
      known = FIRST_WORD_ID <= number < self.num_ids
      words.append(self.words[number - FIRST_WORD_ID] if known else UNKNOWN)
    return " ".join(words)

  def references(self, captions: Sequence[str], slots: int, length: int) -> References:
    """References of one image as arrays: the first `slots` captions, `length` ids of each.

    Words without a slot count in lengths and norms but equal nothing; with a length of `longest` +
    1 every training caption has room, and for its end. Raises UsageError where nothing has room.
    """
    if slots < 1 or length < 1:
      raise UsageError(f"references: {slots} slots of length {length}; both must be at least 1")
    sentences = [tokenize(caption) for caption in captions[:slots]]
    present_R = np.arange(slots) < len(sentences)
    tokens_RL = np.zeros((slots, length), np.int32)
    lengths_R = np.zeros(slots, np.int32)
    norms_R4, ended_R4 = (np.zeros((slots, ngrams.MAX_N), np.float32) for _ in range(2))
    for row, words in enumerate(sentences):
      ids = [self.ids.get(word, -1) for word in words][:length]
      tokens_RL[row, : len(ids)] = ids
      lengths_R[row] = len(words)
    norms_R4[present_R], ended_R4[present_R] = self.norms(sentences)
    return References(tokens_RL, present_R, lengths_R, norms_R4, ended_R4)

  def norms(self, sentences: Sequence[Sequence[str]]) -> tuple[Float[np.ndarray, "r 4"], ...]:
    """Norms of the tf-idf vectors of tokenized captions, without and with the end as a word."""
    ids = self.distinct_ids([[*words, END] for words in sentences])
    tokens_T, caption_T = ngrams.lay_out(ids)
    idf_NT = self.idf(tokens_T)
    squares = np.zeros((2, len(sentences), ngrams.MAX_N))
    for n, numbers_T in enumerate(ngrams.number_ngrams(tokens_T)):
      counts = ngrams.count_ngrams(numbers_T, caption_T)
      weights = np.square(counts.count * idf_NT[n, counts.position])
      ends = tokens_T[counts.position + n] == END_ID
      for which, chosen in enumerate((~ends, slice(None))):
        squares[which, :, n] = np.bincount(
          counts.caption[chosen], weights[chosen], minlength=len(sentences)
        )
    return tuple(np.sqrt(squares))

  def distinct_ids(self, sentences: Sequence[Sequence[str]]) -> list[list[int]]:
    """Ids of tokenized captions; words that the corpus lacks get ids of their own beyond it."""
    unseen = {END: END_ID}
    return [
      [
        self.ids[word] if word in self.ids else unseen.setdefault(word, self.num_ids + len(unseen))
        for word in words
      ]
      for words in sentences
    ]

  def idf(self, tokens_T: Int64[np.ndarray, " t"]) -> Float[np.ndarray, "4 t"]:
    """log(images / images with it) of the n-gram that starts at each position.

    As in CIDEr, an n-gram that no training caption holds counts as if one image had it.
    """
    documents_NT = np.ones((ngrams.MAX_N, len(tokens_T)))
    known_T = np.where(tokens_T < self.num_ids, tokens_T, -1)
    rank_T = known_T
    documents_NT[0] = np.where(rank_T >= 0, self.tables[0].documents[rank_T], 1)
    for n in range(1, ngrams.MAX_N):
      at, wanted = ngrams.extended(rank_T, known_T, n, self.num_ids)
      keys_G = self._keys[n]
      places = np.searchsorted(keys_G, wanted)
      found = keys_G[np.minimum(places, len(keys_G) - 1)] == wanted if len(keys_G) else wanted < 0
      rank_T = np.full_like(known_T, -1)
      rank_T[at[found]] = places[found]
      documents_NT[n, at[found]] = self.tables[n].documents[places[found]]
    return np.log(self.num_documents) - np.log(np.maximum(documents_NT, 1))

  @functools.cached_property
  def _keys(self) -> list[Int64[np.ndarray, " g"]]:
    return [ngrams.table_keys(table, self.num_ids) for table in self.tables]

  def save(self, path: str | os.PathLike[str]) -> None:
    """Writes one .npz file, whole or not at all."""
    arrays = {
      f"{field}_{n}": array
      for n, table in enumerate(self.tables, start=1)
      for field, array in table._asdict().items()
    }
    numbers = np.array([self.vocab_size, self.num_documents, self.longest], np.int64)
    words = np.frombuffer("\n".join(self.words).encode(), np.uint8)
    partial = f"{os.fspath(path)}.partial"
    with open(partial, "wb") as file:
      np.savez(file, words=words, numbers=numbers, digest=np.array(self.digest), **arrays)
    os.replace(partial, path)


def build_corpus(references: Sequence[Sequence[str]], min_count: int) -> Corpus:
  """Counts words and n-grams in the captions of each training image.

  Images without captions are left out. The model can write words that occur at least `min_count`
  times. Raises DataError where there is no caption with words, UsageError where no word occurs
  often enough.
  """
  documents = [[tokenize(caption) for caption in captions] for captions in references if captions]
  sentences = [words for document in documents for words in document]
  counts = Counter(word for words in sentences for word in words if word != UNKNOWN)
  if not counts:
    raise DataError(f"captions: {len(sentences)} in {len(references)} images, and none has words")
  ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
  kept = sum(count >= min_count for _, count in ranked)
  if not kept:
    raise UsageError(
      f"min_count is {min_count}, but the most frequent word ({ranked[0][0]!r}) occurs only "
      f"{ranked[0][1]} times; lower it"
    )
  words = tuple(word for word, _ in ranked)
  ids = {word: FIRST_WORD_ID + index for index, word in enumerate(words)}
  # <unk> is no word, even where somebody wrote it: as everywhere, what holds it equals nothing.
  tokens_T, caption_T = ngrams.lay_out(
    [[*(ids.get(word, -1) for word in sentence), END_ID] for sentence in sentences]
  )
  document_of = np.repeat(np.arange(len(documents)), [len(document) for document in documents])
  tables = ngrams.build_tables(tokens_T, document_of[caption_T], FIRST_WORD_ID + len(words))
  longest = max(map(len, sentences))
  return Corpus(words, FIRST_WORD_ID + kept, len(documents), longest, tables)


def load_corpus(path: str | os.PathLike[str]) -> Corpus:
  """Reads what `Corpus.save` wrote. UsageError if there is no such file, DataError if damaged."""
  try:
    # Opened here, as numpy does not close a file that it finds damaged.
    with open(path, "rb") as stream, np.load(stream, allow_pickle=False) as file:
      arrays = {name: file[name] for name in file.files}
    tables = tuple(
      ngrams.Table(*(arrays[f"{field}_{n}"] for field in ngrams.Table._fields))
      for n in range(1, ngrams.MAX_N + 1)
    )
    words = tuple(arrays["words"].tobytes().decode().split("\n"))
    corpus = Corpus(words, *(int(number) for number in arrays["numbers"]), tables)
    digest = str(arrays["digest"])
  except FileNotFoundError as error:
    raise UsageError(
      f"{path}: no such corpus file; name one that a captioning run saved"
    ) from error
  except (OSError, KeyError, ValueError, EOFError, TypeError, zipfile.BadZipFile) as error:
    raise DataError(
      f"{path} is not a corpus file, or is damaged ({error}); save it anew"
    ) from error
  if corpus.digest != digest:
    raise DataError(f"{path}: the contents do not fit their digest {digest}; copy or save it anew")
  return corpus

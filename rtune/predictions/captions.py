"""What a captioner predicts and what its rewards see.

Dimension key:
  R: references of an image
  L: token slots
"""

from typing import NamedTuple

from jaxtyping import Array, Bool, Float, Int


class Caption(NamedTuple):
  """Ids of the model's vocabulary: 0 ends a caption and fills the slots after it."""

  tokens: Int[Array, "*b l"]


class References(NamedTuple):
  """Captions that people wrote of an image; slots where `present` is false are padding.

  Made by `Corpus.references`.

  Attributes:
    tokens: ids of the corpus, also of words that the model cannot write; 0 ends, as in Caption. A
      word that no training caption holds is -1 and equals nothing.
    present: which of the slots hold a reference.
    lengths: words, also those that found no slot, the end not counted.
    norms: of the tf-idf vectors for n-grams of n = 1 to 4, from the words as written.
    norms_with_end: the same where the end is a word.
  """

  tokens: Int[Array, "*b r l"]
  present: Bool[Array, "*b r"]
  lengths: Int[Array, "*b r"]
  norms: Float[Array, "*b r 4"]
  norms_with_end: Float[Array, "*b r 4"]

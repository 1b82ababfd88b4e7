import math
from collections import Counter

import numpy as np
import pytest

from rtune.errors import DataError, UsageError
from rtune.text.corpus import Corpus, build_corpus, load_corpus
from rtune.text.tokenize import tokenize

IMAGES = [
  ["A dog runs.", "A dog, a dog and a cat", "the dog"],
  ["A cat sits on the mat.", "the cat sits on the mat on the floor"],
  ["two dogs"],
  ["the dog runs on the mat", ""],
]


@pytest.fixture(scope="module")
def corpus() -> Corpus:
  return build_corpus(IMAGES, min_count=2)


def spelled(captions, end=True):
  return [tokenize(caption) + ["</s>"] * end for caption in captions]


def grams(words, n):
  return [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]


def brute_frequencies():
  return Counter(
    gram
    for captions in IMAGES
    for gram in {
      gram for words in spelled(captions) for n in (1, 2, 3, 4) for gram in grams(words, n)
    }
  )


def test_words_are_ranked_and_the_vocabulary_ends_at_the_minimum_count(corpus):
  counts = Counter(word for image in IMAGES for caption in image for word in tokenize(caption))
  assert list(corpus.words) == sorted(counts, key=lambda word: (-counts[word], word))
  assert corpus.vocab_size == 2 + sum(count >= 2 for count in counts.values())
  assert corpus.num_documents == 4
  assert corpus.longest == 9


def test_captions_make_the_round_trip(corpus):
  assert (
    corpus.decode([*corpus.encode("A dog RUNS on the mat!"), 0, 5, 5]) == "a dog runs on the mat"
  )
  assert corpus.encode("two zebras") == [1, 1]  # one is too rare to be written, one never seen
  assert corpus.decode([1, 10**6, -3]) == "<unk> <unk> <unk>"
  assert corpus.encode("<unk> \x00 😀") == [1]
  assert corpus.encode("") == []
  assert corpus.decode([]) == ""
  assert len(corpus.encode("dog " * 5000)) == 5000


def test_document_frequencies_are_those_of_brute_force(corpus):
  expected = brute_frequencies()
  names = ["</s>", "<unk>", *corpus.words]
  found = {(names[i],): int(df) for i, df in enumerate(corpus.tables[0].documents) if df}
  spelled_out = [(name,) for name in names]
  for table in corpus.tables[1:]:
    rows = np.repeat(np.arange(len(table.offsets) - 1), np.diff(table.offsets))
    spelled_out = [
      (*spelled_out[row], names[last]) for row, last in zip(rows, table.last, strict=True)
    ]
    found.update(zip(spelled_out, table.documents.tolist(), strict=True))
  assert found == dict(expected)


def test_idf_is_looked_up_also_for_what_was_never_seen(corpus):
  expected = brute_frequencies()
  words = ["the", "cat", "zebra", "the", "dog", "runs", "on", "the", "dog", "</s>"]
  ids = [0 if w == "</s>" else corpus.ids.get(w, corpus.num_ids + 3) for w in words]
  idf_NT = corpus.idf(np.array(ids))
  for n in (1, 2, 3, 4):
    for place, gram in enumerate(grams(words, n)):
      assert idf_NT[n - 1, place] == pytest.approx(math.log(4) - math.log(max(1, expected[gram])))


def test_references_hold_ids_lengths_and_norms(corpus):
  captions = ["the dog and the dog", "a zebra", "", "left out"]
  references = corpus.references(captions, slots=3, length=4)
  the, dog = corpus.ids["the"], corpus.ids["dog"]
  assert references.tokens.tolist() == [
    [the, dog, corpus.ids["and"], the],
    [corpus.ids["a"], -1, 0, 0],
    [0, 0, 0, 0],
  ]
  assert references.lengths.tolist() == [5, 2, 0]
  assert references.present.all()
  expected = brute_frequencies()
  for end, norms in ((False, references.norms), (True, references.norms_with_end)):
    for words, norm_4 in zip(spelled(captions[:3], end), norms, strict=True):
      for n in (1, 2, 3, 4):
        squares = [
          (count * (math.log(4) - math.log(max(1, expected[gram])))) ** 2
          for gram, count in Counter(grams(words, n)).items()
        ]
        assert norm_4[n - 1] == pytest.approx(math.sqrt(sum(squares)), rel=1e-6)


def test_fewer_captions_than_slots_and_none(corpus):
  assert corpus.references(["a dog"], 3, 5).present.tolist() == [True, False, False]
  none = corpus.references([], 2, 5)
  assert not none.present.any() and not none.tokens.any()
  with pytest.raises(UsageError, match="at least 1"):
    corpus.references(["a dog"], 0, 5)


def test_saved_and_loaded_it_is_the_same(corpus, tmp_path):
  corpus.save(tmp_path / "corpus.npz")
  loaded = load_corpus(tmp_path / "corpus.npz")
  assert loaded == corpus and hash(loaded) == hash(corpus)
  assert loaded.encode("a dog runs") == corpus.encode("a dog runs")
  np.testing.assert_array_equal(
    loaded.references(IMAGES[0], 3, 5).norms, corpus.references(IMAGES[0], 3, 5).norms
  )
  assert [path.name for path in tmp_path.iterdir()] == ["corpus.npz"]


def test_another_corpus_has_another_digest(corpus):
  assert build_corpus(IMAGES, 2) == corpus
  assert build_corpus(IMAGES, 1) != corpus
  assert build_corpus(IMAGES[:3], 2) != corpus
  swapped = [IMAGES[0][:2], [*IMAGES[1], IMAGES[0][2]], *IMAGES[2:]]  # same words, other images
  assert build_corpus(swapped, 2) != corpus


def test_damaged_files_are_named(corpus, tmp_path):
  path = tmp_path / "corpus.npz"
  with pytest.raises(UsageError, match="no such corpus"):
    load_corpus(path)
  for content in (b"", b"not an archive"):
    path.write_bytes(content)
    with pytest.raises(DataError, match="damaged"):
      load_corpus(path)
  np.savez(path, words=np.zeros(3))
  with pytest.raises(DataError, match="damaged"):
    load_corpus(path)
  corpus.save(path)
  with np.load(path) as file:
    arrays = dict(file)
  arrays["documents_2"] = arrays["documents_2"] + 1
  np.savez(path, **arrays)
  with pytest.raises(DataError, match="digest"):
    load_corpus(path)
  corpus.save(path)
  path.write_bytes(path.read_bytes()[:-100])
  with pytest.raises(DataError, match="damaged"):
    load_corpus(path)


def test_captions_without_words_or_with_too_rare_ones_are_refused():
  with pytest.raises(DataError, match="none has words"):
    build_corpus([["", "..."], []], 1)
  with pytest.raises(UsageError, match="'dog'"):
    build_corpus([["dog", "a"], ["dog"]], 3)
  assert build_corpus([["dog"], []], 1).num_documents == 1


def test_short_captions_leave_the_long_tables_empty():
  corpus = build_corpus([["dog"], ["cat"]], 1)
  assert len(corpus.tables[3].last) == 0
  assert np.isfinite(corpus.idf(np.array([2, 3, 2, 3, -1]))).all()

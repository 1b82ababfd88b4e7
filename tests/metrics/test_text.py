import json
import math
from collections import Counter

import numpy as np
import pytest

from rtune.errors import DataError
from rtune.metrics.text import bleu, caption_metric, cider, cider_d, rouge_l
from rtune.text.corpus import END, build_corpus

VOCABULARY = ["a", "a", "a", "the", "the", "dog", "cat", "mat", "on", "sits", "runs", "red", "and"]


def grams(words):
  return Counter(tuple(words[i : i + n]) for n in (1, 2, 3, 4) for i in range(len(words) - n + 1))


def plain_cider(candidate, group, documents, num_documents, clipped):
  """The definition, word for word, in dictionaries."""

  def vector(words):
    counts = grams(words)
    return [
      {
        gram: count * (math.log(num_documents) - math.log(max(1, documents[gram])))
        for gram, count in counts.items()
        if len(gram) == n
      }
      for n in (1, 2, 3, 4)
    ]

  total = 0.0
  for reference in group:
    for ours, theirs in zip(vector(candidate), vector(reference), strict=True):
      shared = ours.keys() & theirs.keys()
      dot = sum((min(ours[g], theirs[g]) if clipped else ours[g]) * theirs[g] for g in shared)
      norm = math.hypot(*ours.values()) * math.hypot(*theirs.values())
      delta = max(len(candidate) - 1, 0) - max(len(reference) - 1, 0)
      penalty = math.exp(-(delta**2) / 72) if clipped else 1.0
      total += penalty * dot / norm if norm else 0.0
  return 10 * total / 4 / len(group)


def document_frequencies(references):
  return Counter(gram for group in references for gram in {g for r in group for g in grams(r)})


def random_pools(seed, images=12):
  rng = np.random.default_rng(seed)

  def sentence(most):
    return rng.choice(VOCABULARY, rng.integers(0, most)).tolist()

  references = [[sentence(12) for _ in range(rng.integers(1, 6))] for _ in range(images)]
  candidates = [sentence(15) for _ in range(images)]
  candidates[0], candidates[1], candidates[2] = [], ["dog"] * 9, list(references[2][0])
  candidates[3] = ["zebra", "<unk>", "<unk>", "dog", "zebra"]
  return candidates, references


@pytest.mark.parametrize("clipped", [True, False])
@pytest.mark.parametrize("seed", range(5))
def test_cider_is_its_definition_over_its_own_references(seed, clipped):
  candidates, references = random_pools(seed)
  documents = document_frequencies(references)
  expected = [
    plain_cider(candidate, group, documents, len(references), clipped)
    for candidate, group in zip(candidates, references, strict=True)
  ]
  scores = (cider_d if clipped else cider)(candidates, references)
  np.testing.assert_allclose(scores, expected, atol=1e-12)
  assert scores.max() > 0.1


@pytest.mark.parametrize("seed", range(3))
def test_cider_takes_document_frequencies_from_the_corpus(seed):
  _, training = random_pools(seed + 100, images=40)
  candidates, references = random_pools(seed)
  corpus = build_corpus([[" ".join(words) for words in group] for group in training], 1)
  # The end as a word of its own, as a reward may have it.
  ended = [[[*words, END] for words in group] for group in training]
  candidates = [words + [END] * (i % 2) for i, words in enumerate(candidates)]
  references = [[[*words, END] for words in group] for group in references]
  documents = document_frequencies(ended)
  expected = [
    plain_cider(candidate, group, documents, 40, True)
    for candidate, group in zip(candidates, references, strict=True)
  ]
  np.testing.assert_allclose(cider_d(candidates, references, corpus), expected, atol=1e-12)


def test_published_scores_of_a_thousand_captions(shared_data):
  folder = shared_data / "eval_fixtures" / "dev" / "captions_coco_fakecap1000"
  truth, results = (json.loads((folder / f"{name}.json").read_text()) for name in ("gts", "res"))
  expected = json.loads((folder / "expected.json").read_text())["published"]
  candidates = [results[key][0].split() for key in truth]
  references = [[caption.split() for caption in group] for group in truth.values()]
  assert cider_d(candidates, references).mean() == pytest.approx(expected["CIDEr"], abs=1e-12)
  assert bleu(candidates, references) == pytest.approx(expected["Bleu"], abs=1e-12)
  assert rouge_l(candidates, references).mean() == pytest.approx(expected["ROUGE_L"], abs=1e-12)


def test_published_scores_of_two_captions(shared_data):
  path = shared_data / "eval_fixtures" / "dev" / "captions_nlgeval" / "example.json"
  example = json.loads(path.read_text())
  candidates = [example["res"][key][0].split() for key in example["gts"]]
  references = [[caption.split() for caption in group] for group in example["gts"].values()]
  expected = example["published"]
  assert cider_d(candidates, references).mean() == pytest.approx(expected["CIDEr"], abs=1e-6)
  assert bleu(candidates, references) == pytest.approx(expected["Bleu"], abs=1e-6)
  assert rouge_l(candidates, references).mean() == pytest.approx(expected["ROUGE_L"], abs=1e-6)


def test_bleu_clips_and_takes_the_closest_length():
  # 2 of 7 "the" count; the closer reference has 7 words, so brevity costs nothing.
  group = [["the", "cat", "is", "on", "the", "mat", "now"], ["the", "cat"]]
  assert bleu([["the"] * 7], [group])[0] == pytest.approx(2 / 7)
  # Lengths 2 and 6 are equally far from 4: the shorter one counts.
  group = [list("ab"), list("abcdef")]
  assert bleu([list("abcd")], [group]) == pytest.approx((1, 1, 1, 1))
  assert bleu([["a"]], [[list("ab")]])[0] == pytest.approx(math.exp(1 - 2))


def test_common_subsequences_are_those_of_the_table():
  def table(left, right):
    rows = np.zeros((len(left) + 1, len(right) + 1), int)
    for i, a in enumerate(left):
      for j, b in enumerate(right):
        rows[i + 1, j + 1] = rows[i, j] + 1 if a == b else max(rows[i, j + 1], rows[i + 1, j])
    return rows[-1, -1]

  candidates, references = random_pools(7, images=60)
  expected = []
  for candidate, group in zip(candidates, references, strict=True):
    common = [table(candidate or [""], other or [""]) for other in group]
    precision = max(common) / max(len(candidate), 1)
    recall = max(c / max(len(other), 1) for c, other in zip(common, group, strict=True))
    both = precision > 0 and recall > 0
    expected.append(2.44 * precision * recall / (recall + 1.44 * precision) if both else 0.0)
  np.testing.assert_allclose(rouge_l(candidates, references), expected, atol=1e-12)


IMAGES = [["a dog runs", "the dog runs fast"], ["a cat sits", "the cat"], ["two birds fly"]]


def scored(captions, images=IMAGES, ids=None):
  corpus = build_corpus(IMAGES, 1)
  metric = caption_metric(corpus)
  state = metric.init()
  for i, (caption, group) in enumerate(zip(captions, images, strict=True)):
    number = i if ids is None else ids[i]
    state = metric.update(
      state, {"image_id": number, "caption": caption}, {"image_id": number, "captions": group}
    )
  return metric, state


def test_the_metric_reports_scores_and_signs_of_gaming():
  metric, state = scored(["A dog runs.", "a <unk> a <unk> a", ""])
  values = metric.compute(state)
  assert values["length"] == pytest.approx(8 / 3)
  assert values["vocabulary"] == 3
  assert values["repeated"] == pytest.approx(2 / 6)
  assert values["unknown"] == pytest.approx(2 / 8)
  assert values["CIDEr"] == pytest.approx(values["CIDEr_own"])  # the corpus is these images
  assert 0 < values["BLEU1"] < 1 and 0 < values["ROUGE_L"] < 1
  assert metric.results(state)[0] == {"image_id": 0, "caption": "A dog runs."}
  assert all(isinstance(value, float) and math.isfinite(value) for value in values.values())


def test_references_of_the_corpus_decide_what_a_word_is_worth():
  metric, state = scored(["a dog", "a cat", "a bird"], [["a dog"], ["a cat"], ["a bird"]])
  values = metric.compute(state)
  # Equal for n = 1 and 2, and nothing is longer.
  assert values["CIDEr_own"] == pytest.approx(5.0) == values["CIDEr"]
  metric, state = scored(["a dog", "a cat", "a"], [["the dog"], ["the cat"], ["two"]])
  values = metric.compute(state)
  # "a", "the", "dog" are in 2, 2, 1 images of the corpus, and in 0, 2, 1 of those scored.
  cosine = math.log(3) / math.hypot(math.log(3), math.log(3 / 2))
  assert values["CIDEr"] == pytest.approx(10 / 4 * 2 / 3 * cosine * cosine)
  own = math.log(3) / math.hypot(math.log(3), math.log(3))
  assert values["CIDEr_own"] == pytest.approx(
    10 / 4 * 2 / 3 * own * math.log(3) / math.hypot(math.log(3), math.log(3 / 2))
  )


def test_nothing_said_is_worth_nothing():
  metric, state = scored(["", "😀", "\x00"])
  assert metric.compute(state) == dict.fromkeys(metric.compute(state), 0.0)


@pytest.mark.parametrize(
  ("captions", "images", "ids", "message"),
  [
    (["a"], [[]], [4], "image 4 has no captions"),
    (["a", "b"], [["a"], ["b"]], [4, 4], "image 4 was scored more than once"),
    ([], [], [], "no images"),
  ],
)
def test_what_cannot_be_scored_is_refused(captions, images, ids, message):
  with pytest.raises(DataError, match=message):
    metric, state = scored(captions, images, ids)
    metric.compute(state)


def test_a_prediction_of_another_image_is_refused():
  metric = caption_metric(build_corpus(IMAGES, 1))
  with pytest.raises(DataError, match="of image 1, the truth of 2"):
    metric.update([], {"image_id": 1, "caption": "a"}, {"image_id": 2, "captions": ["a"]})


def test_five_thousand_words_are_scored():
  metric, state = scored(["a dog " * 2500, "a cat", "two"], ids=[1, 2, 3])
  assert metric.compute(state)["length"] == pytest.approx(5003 / 3)

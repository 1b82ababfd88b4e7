"""How fast captions are judged: CIDEr-D on the device, in numpy, and in plain Python.

Dimension key:
  B: images
  S: samples for each image
  L: tokens of a caption
"""

import functools
import math
from collections import Counter
from collections.abc import Sequence

import jax
import numpy as np

from rtune.benchmark.row import Row
from rtune.benchmark.timing import interleaved
from rtune.data.scenes.captioned import CaptionedShapes
from rtune.metrics import text as metrics
from rtune.predictions.captions import Caption
from rtune.rewards.text import cider_d
from rtune.text.corpus import END, build_corpus
from rtune.text.tokenize import tokenize

IMAGES, SAMPLES, LENGTH = 64, 4, 32
_COUNTED = 1000  # images whose captions words and n-grams are counted in
_SIGMA = 6.0


def plain_cider_d(
  candidates: Sequence[Sequence[str]],
  references: Sequence[Sequence[Sequence[str]]],
  frequency: Counter,
  documents: int,
) -> list[float]:
  """The yardstick: CIDEr-D (1411.5726) with dicts, one candidate after the other, as scorers do.

  Args:
    frequency: images that each n-gram, a tuple of words, occurs in, of `documents`.
  """
  return [
    10 * sum(_similar(words, other, frequency, documents) for other in group) / len(group)
    for words, group in zip(candidates, references, strict=True)
  ]


def ngrams_of(words: Sequence[str]) -> Counter:
  """Counts of all n-grams of 1 to 4 words."""
  ends = range(len(words) + 1)
  return Counter(tuple(words[end - n : end]) for n in range(1, 5) for end in ends if end >= n)


def _similar(words, other, frequency: Counter, documents: int) -> float:
  """Mean over n of the clipped cosine, with the penalty for another number of bigrams."""
  total = 0.0
  ours, theirs = (_weighted(ngrams_of(w), frequency, documents) for w in (words, other))
  for one, two in zip(ours, theirs, strict=True):
    norms = (math.sqrt(sum(v * v for v in weights.values())) for weights in (one, two))
    both = math.prod(norms)
    dot = sum(min(value, two[gram]) * two[gram] for gram, value in one.items() if gram in two)
    total += dot / both if both else 0.0
  gap = max(len(words) - 1, 0) - max(len(other) - 1, 0)
  return total / 4 * math.exp(-(gap**2) / (2 * _SIGMA**2))


def _weighted(counts: Counter, frequency: Counter, documents: int) -> list[dict]:
  """Counts times idf, for each n."""
  weights: list[dict] = [{} for _ in range(4)]
  for gram, count in counts.items():
    weights[len(gram) - 1][gram] = count * math.log(documents / max(frequency[gram], 1))
  return weights


@functools.cache
def scorers() -> dict:
  """Calls that give CIDEr-D, end as a word, of the same captions: [B, S] or a list."""
  groups = CaptionedShapes("train", num=_COUNTED).references()
  corpus = build_corpus(groups, min_count=1)
  rng = np.random.default_rng(0)
  tokens_BSL = np.zeros((IMAGES, SAMPLES, LENGTH), np.int32)
  words, references = [], []
  for b in range(IMAGES):
    for s in range(SAMPLES):  # a caption of another image, and of this one
      source = groups[int(rng.integers(_COUNTED))] if s else groups[b]
      ids = corpus.encode(source[int(rng.integers(len(source)))])[: LENGTH - 1]
      tokens_BSL[b, s, : len(ids)] = ids
      words.append([*tokenize(corpus.decode(ids)), END])
      references.append([[*tokenize(text), END] for text in groups[b]])
  rows = [corpus.references(group, 5, corpus.longest + 1) for group in groups[:IMAGES]]
  truth = jax.tree.map(lambda *arrays: np.stack(arrays), *rows)

  def one(caption, reference):
    return cider_d(caption, reference, corpus=corpus)["reward"]

  score = jax.jit(jax.vmap(jax.vmap(one, in_axes=(0, None))))
  seen = (set().union(*(ngrams_of([*tokenize(t), END]) for t in group)) for group in groups)
  frequency = Counter(gram for grams in seen for gram in grams)
  return {
    "device": lambda: score(Caption(tokens_BSL), truth),
    "numpy": lambda: metrics.cider_d(words, references, corpus),
    "plain": lambda: plain_cider_d(words, references, frequency, _COUNTED),
  }


def caption_rows(repeats: int) -> list[Row]:
  """CIDEr-D of sampled captions against five references each, three ways in turns."""
  timed = interleaved(scorers(), repeats)
  title = f"CIDEr-D, {IMAGES * SAMPLES} captions x 5 references"
  names = {"device": "on the device", "numpy": "numpy", "plain": "plain Python"}
  rows = []
  for key, name in names.items():
    note = "" if key == "plain" else f"{timed.ratio('plain', key):.1f} x as fast as plain Python"
    amount = IMAGES * SAMPLES
    rows.append(Row("rewards", f"{title}: {name}", timed.median(key), amount, "caption", note=note))
  return rows

"""Captioning: a sentence as a sequence of words, or of SentencePiece's pieces.

Token 0 ends a caption. With words token 1 stands for those too rare to be written and the others
follow by frequency. What the words of the training captions are, and in how many images their
n-grams occur, is a Corpus: it comes from the data, travels with the workdir, and the reward asks
for it by name.

Dimension key:
  B: batch
  S: samples for each image
  R: reference captions of an image
  L: tokens of a caption
  M: words of a reference
"""

import dataclasses
import pathlib
from collections.abc import Collection, Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, UInt8

from rtune.data import augment
from rtune.data.source import CaptionSource, Example, Source
from rtune.display import console
from rtune.errors import UsageError
from rtune.policies.policy import Scored
from rtune.policies.space import Ending, Tokens
from rtune.policies.tokens import alive
from rtune.predictions.captions import Caption, References
from rtune.tasks.task import Knowledge, Served, View
from rtune.text.corpus import FIRST_WORD_ID, UNKNOWN_ID, Corpus, build_corpus, load_corpus
from rtune.text.sentence_pieces import SentencePieces, load_pieces

ENDING = Ending(token=0)
_READ = "tokens up to the first 0 are words[token], or, minus 1, ids of the SentencePiece model"
_CHECKED = 1000  # images whose captions are compared with a corpus of others
_CORPUS, _PIECES = "corpus.npz", "sentence_piece.model"  # in a workdir


@dataclasses.dataclass(frozen=True)
class Captioning:
  """The captioning task."""

  image_size: int = 224  # side of the square model input in pixels
  length: int = 32  # tokens of a caption with its end; longer ones are imitated up to there
  references: int = 5  # captions of an image that imitation and the reward see; metrics see all
  reference_length: int = 0  # words of a reference that are compared; 0: as many as the longest has
  min_count: int = 1  # rarer words of the training captions cannot be written
  flip: float = 0.0  # chance of a horizontal flip in training; left and right would be wrong then
  color_jitter: float = 0.0  # strength of changes of brightness, contrast and saturation
  corpus: str = ""  # corpus.npz of another run, for its words; empty: made from the training data
  sentence_piece: str = ""  # a SentencePiece .model: its pieces are written instead of words
  digest: str = ""  # of words and pieces, filled in: weights are worth nothing with others
  known: Corpus | None = dataclasses.field(default=None, metadata={"learned": True})
  pieces: SentencePieces | None = dataclasses.field(default=None, metadata={"learned": True})

  def __post_init__(self):
    augment.check_jitter(self.color_jitter)
    least = {"image_size": 1, "length": 1, "references": 1, "reference_length": 0, "min_count": 1}
    for name, low in least.items():
      if getattr(self, name) < low:
        value = getattr(self, name)
        raise UsageError(f"config.task.args.{name} is {value}; it must be at least {low}.")

  @property
  def _corpus(self) -> Corpus:
    if self.known is None:
      raise UsageError("Captioning has no words yet: bind it to training data, or load a workdir.")
    return self.known

  @property
  def _vocabulary(self) -> Corpus | SentencePieces:
    """What captions are written with."""
    return self.pieces or self._corpus

  def _bind(self, source: Source) -> "Captioning":
    if not isinstance(source, CaptionSource):
      raise UsageError(
        f"{type(source).__name__} has no captions: captioning needs a source with references()."
      )
    # With a corpus there is little to find out, and some sources must read all of their images.
    references = source.references(_CHECKED if self.corpus else 0)
    if self.corpus:
      corpus, where = load_corpus(self.corpus), f"config.task.args.corpus, {self.corpus},"
    else:
      corpus, where = build_corpus(references, self.min_count), "the training data"
    pieces = load_pieces(self.sentence_piece) if self.sentence_piece else None
    bound = self._with(corpus, pieces, where)
    bound._check(references)
    return bound

  def _with(self, corpus: Corpus, pieces: SentencePieces | None, where: str) -> "Captioning":
    """This task with its words; UsageError if it was of others."""
    digest = f"{corpus.digest}-{pieces.digest}" if pieces else corpus.digest
    if self.digest not in ("", digest):
      raise UsageError(
        f"The vocabulary of {where} (digest {digest}) is not that of the model (digest "
        f"{self.digest}). Set config.task.args.corpus to the corpus.npz in the workdir that its "
        "weights come from."
      )
    return dataclasses.replace(self, known=corpus, pieces=pieces, digest=digest)

  def _check(self, references: Sequence[Sequence[str]]) -> None:
    """Tells what of the training captions cannot be written; UsageError if nothing can."""
    encoded = [[self._vocabulary.encode(caption) for caption in own] for own in references]
    lengths = [len(ids) for own in encoded for ids in own]
    long = sum(length >= self.length for length in lengths)
    if long:
      console.warn_once(
        "length",
        f"{long} of {len(lengths)} training captions have no room for their end in "
        f"task.args.length={self.length} (longest: {max(lengths)} tokens); their beginning is "
        "imitated. Rewards and metrics see all of them.",
      )
    if self.pieces:
      return
    unknown = sum(all(set(ids) <= {UNKNOWN_ID} for ids in own) for own in encoded)
    if unknown == len(encoded):
      raise UsageError(
        "No training image has a caption with a word of the vocabulary. Lower "
        f"config.task.args.min_count ({self.min_count}), or use the corpus of these data."
      )
    if unknown:
      console.warn_once(
        "unknown",
        f"{unknown} of {len(encoded)} training images have only captions of unknown words; no "
        "reward can be earned on them. Lower task.args.min_count to know more words.",
      )

  def _knows(self, names: Collection[str]) -> dict[str, object]:
    known = {"corpus": self._corpus, "words": self._corpus}  # words: of metrics, which read text
    known |= {"pieces": self.pieces} if self.pieces else {}
    if self.pieces and "corpus" in names and "pieces" not in names:
      raise UsageError(
        "config.reward.fn reads words, but with config.task.args.sentence_piece captions are of "
        "pieces; use rtune.rewards.text:cider_d_of_pieces."
      )
    if not self.pieces and "pieces" in names:
      raise UsageError(
        "config.reward.fn reads pieces, but config.task.args.sentence_piece is empty; name a "
        "model, or use rtune.rewards.text:cider_d."
      )
    return {name: value for name, value in known.items() if name in names}

  def _save(self, folder: pathlib.Path) -> None:
    self._corpus.save(folder / _CORPUS)
    if self.pieces:
      self.pieces.save(folder / _PIECES)

  def _load(self, folder: pathlib.Path) -> "Captioning":
    pieces = load_pieces(folder / _PIECES) if self.sentence_piece else None
    return self._with(load_corpus(folder / _CORPUS), pieces, str(folder))

  def example(self, raw: Example, rng: np.random.Generator | None) -> dict[str, np.ndarray]:
    none = np.zeros((0, 4), np.float32)
    if rng is None:
      image, _, _ = augment.fit(raw["image"], none, self.image_size)
    else:
      image, _, _ = augment.train_view(raw["image"], none, self.image_size, rng, flip=self.flip)
      image = augment.jitter(image, rng, self.color_jitter)
    captions = list(raw["captions"])
    if rng is not None:  # another order each time: any may be imitated, none is always left out
      rng.shuffle(captions)
    target_L = np.zeros(self.length, np.int32)
    ids = self._vocabulary.encode(captions[0])[: self.length] if captions else []
    target_L[: len(ids)] = ids
    features = {"image": image, "target": target_L}
    slots = self.reference_length or self._corpus.longest + 1
    truth = self._corpus.references(captions, self.references, slots)
    return features | {f"reference_{name}": value for name, value in truth._asdict().items()}

  def inputs(self, batch) -> UInt8[Array, "b i i 3"]:
    return batch["image"]

  def space(self) -> Tokens:
    return Tokens(self.length, self._vocabulary.vocab_size, ENDING)

  def targets(self, frozen, batch, key) -> Int[Array, "b l"]:
    """One of each image's captions; `example` draws another one each time."""
    return batch["target"]

  def decode(
    self, frozen, actions: Int[Array, "*b l"], batch, scored: Scored | None = None
  ) -> Caption:
    """Total: what follows the first end does not count."""
    return Caption(jnp.where(alive(actions, ENDING) > 0, actions, 0))

  def truth(self, batch) -> References:
    return References(**{name: batch[f"reference_{name}"] for name in References._fields})

  @property
  def view(self) -> View:
    from rtune.data.sources.coco_captions import CocoCaptions

    return View(
      record=self._record,
      draw=_draw,
      text=_text,
      headline=("CIDEr", "CIDEr_beam", "BLEU4", "ROUGE_L", "length", "repeated", "vocabulary"),
      watched=("CIDEr", "BLEU4", "ROUGE_L"),
      annotated=_annotated,
      unlabeled=_unlabeled,
      source=CocoCaptions,
      metrics=("rtune.metrics.text:caption_metric",),
      served=self._served(),
    )

  @property
  def knowledge(self) -> Knowledge:
    return Knowledge(self._bind, self._knows, self._save, self._load)

  def _served(self) -> Served:
    words = () if self.pieces or self.known is None else self.known.words
    names = {"words": (*("",) * FIRST_WORD_ID, *words)} if words else {}
    return Served("fit", (self.image_size,) * 2, _READ, names)

  def _record(self, prediction: Caption, features, raw: Example) -> dict[str, object]:
    caption = self._vocabulary.decode(np.asarray(prediction.tokens).tolist())
    return {"image_id": raw["image_id"], "caption": caption}


def _unlabeled(image: np.ndarray, image_id: int) -> Example:
  return {"image": image, "image_id": image_id, "captions": ()}


def _annotated(raw: Example) -> dict[str, object]:
  return {"image_id": raw["image_id"], "captions": tuple(raw["captions"])}


def _text(record) -> tuple[str, ...]:
  return record["captions"] if "captions" in record else (record["caption"],)


def _draw(image: np.ndarray, record) -> np.ndarray:
  from rtune.display.draw import draw_text

  return draw_text(image, _text(record))

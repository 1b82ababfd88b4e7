"""Captions in all scripts; tests/text/test_scripts.py has the words of the official tokenizer."""

import pathlib
import unicodedata

from odd_base import Row, first, opened, refused, warned

from rtune.data import findings
from rtune.data.sources.coco_captions import CocoCaptions
from rtune.text.tokenize import tokenize

_KIND = "Captions"


def _words(caption: str, *words: str):
  def check(folder: pathlib.Path) -> None:
    source = opened(folder, first(caption=caption), CocoCaptions)
    assert source.warnings == () and tokenize(source[0]["captions"][0]) == list(words)

  return check


def _all(caption: str):
  def change(data: dict) -> None:
    for record in data["annotations"]:
      record["caption"] = caption

  return change


def _uncut(caption: str, told: bool):
  def check(folder: pathlib.Path) -> None:
    source = opened(folder, _all(caption), CocoCaptions)
    text = "\n".join(findings.gather({"data.train": source}))
    assert ("captions that are a single word (4 of the first 4)" in text) == told

  return check


ROWS = [
  Row(
    _KIND,
    "vowel signs, as in Hindi",
    "belong to their word",
    _words("एक लाल डिब्बा", "एक", "लाल", "डिब्बा"),
  ),
  Row(
    _KIND,
    "vowel signs, as in Arabic and Hebrew",
    "belong to their word",
    _words("رَجُلٌ שָׁלוֹם", "رَجُلٌ", unicodedata.normalize("NFC", "שָׁלוֹם")),
  ),
  Row(
    _KIND,
    "accents apart from their letters (macOS)",
    "the same words as composed ones",
    _words(unicodedata.normalize("NFD", "un café"), "un", "café"),
  ),
  Row(
    _KIND,
    "French apostrophes",
    "as the official tokenizer has them",
    _words("l'homme n'est pas", "l'homme", "n'est", "pas"),
  ),
  Row(
    _KIND,
    "emoji, with modifiers and flags",
    "no words",
    _words("a dog 👍🏽 👨‍👩‍👧 🇫🇷 1️⃣", "a", "dog", "1"),
  ),
  Row(
    _KIND,
    "soft hyphens and marks without width",
    "nothing, or a gap",
    _words("soft\u00adhyphen zero\u200bwidth", "softhyphen", "zero", "width"),
  ),
  Row(
    _KIND,
    "Chinese, Japanese, Thai without spaces",
    "warned of: each sentence is one word",
    _uncut("一个红色的盒子和一个蓝色的盒子", True),
  ),
  Row(_KIND, "Chinese parted by spaces", "words", _uncut("一 个 红色 的 盒子", False)),
  Row(_KIND, "captions of one word", "warned of", _uncut("dogs", True)),
  Row(
    _KIND,
    "a caption that is null or a list",
    "an error",
    refused(first(caption=None), "annotations without a caption (1)", kind=CocoCaptions),
  ),
  Row(
    _KIND,
    "a caption without a word",
    "left out, in one warning",
    warned(first(caption="..."), "captions without a word (1)", len, 3, CocoCaptions),
  ),
  Row(
    _KIND,
    "captions that their authors rejected (VizWiz)",
    "left out, in one warning",
    warned(
      first(is_rejected=True), "captions that say they do not count (1)", len, 3, CocoCaptions
    ),
  ),
  Row(
    _KIND,
    "canned captions (VizWiz)",
    "left out, in one warning",
    warned(first(is_precanned=True), "annotation 1 (is_precanned)", len, 3, CocoCaptions),
  ),
  Row(
    _KIND,
    "captions of images that are not listed",
    "left out, in one warning",
    warned(first(image_id=99), "captions of images that are not listed (1)", len, 3, CocoCaptions),
  ),
  Row(
    _KIND,
    "boxes in place of captions",
    "an error",
    refused(
      lambda d: d["annotations"][0].pop("caption") and None,
      "annotations without a caption (1)",
      kind=CocoCaptions,
    ),
  ),
]

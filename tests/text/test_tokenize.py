import json
import time

import pytest

from rtune.text.tokenize import UNKNOWN, tokenize

# Right: what corenlp 3.4.1 makes of it, less the punctuation that the COCO scorer drops.
CASES = {
  "A man's dog isn't big.": "a man 's dog is n't big",
  "I'm he'll they're we've I'd don't can't cannot": (
    "i 'm he 'll they 're we 've i 'd do n't ca n't can not"
  ),
  "gonna wanna gotta gimme lemme 'tis": "gon na wan na got ta gim me lem me 't is",
  "the boys' toys at 3 o'clock O'Neil ma'am": "the boys toys at 3 o'clock o'neil ma'am",
  "a no-parking (black) [red] {x} sign": (
    "a no-parking -lrb- black -rrb- -lsb- red -rsb- -lcb- x -rcb- sign"
  ),
  "he said \"hi\" and 'yo' ``c``": "he said hi and yo c",
  "\u201csmart quotes\u201d \u2018single\u2019 it\u2019s \u2014 dash \u2013 en … dots... more": (
    "smart quotes single it 's dash en dots more"
  ),
  "Mr. Smith of the U.S. team at St. Louis vs. D.C. etc. and more.": (
    "mr. smith of the u.s. team at st. louis vs. d.c. etc. and more"
  ),
  "1/2 and 10,000 and .50 and 5% and #1 and $5.50 and 3.5ft 2x4 4th 90's '50s": (
    "1/2 and 10,000 and .50 and 5 % and # 1 and $ 5.50 and 3.5 ft 2x4 4th 90 's '50s"
  ),
  "3:30 10:30am 1-2 555-1234 -5 +5 1/2-inch 12-year-old 50/50": (
    "3:30 10:30 am 1-2 555-1234 -5 +5 1/2-inch 12-year-old 50/50"
  ),
  "and/or this\\that a*b a_b AT&T a & b a+b a=b": (
    "and/or this \\ that a * b a_b at&t a & b a + b a = b"
  ),
  "dog,cat dog;cat dog:cat .dog cat!!! cat?! !": "dog cat dog cat dog cat dog cat !!! cat ?!",
  "semi- truck well -known un- done d--e": "semi truck well known un done d e",
  "café naïve 日本語 ½ £5 €5 ♥": "café naïve 日本語 1/2 # 5 $ 5 ♥",
  "http://www.foo.com/a.jpg me@x.com @home no.1 No. 5 12.": (
    "http://www.foo.com/a.jpg me@x.com @home no. 1 no. 5 12"
  ),
  "a <unk> <unk>.": "a <unk> <unk>",
}


@pytest.mark.parametrize("caption", CASES)
def test_words_are_those_of_the_official_tokenizer(caption):
  assert " ".join(tokenize(caption)) == CASES[caption]


@pytest.mark.parametrize(
  ("caption", "words"),
  [
    ("", []),
    (" \n\t ", []),
    ("...!", []),
    ("😀👍🏽", []),
    ("a dog 😀 here", ["a", "dog", "here"]),
    ("nul\x00inside", ["nul", "inside"]),
    ("\ud800 lone \ufeff", ["lone"]),
    ("no\xa0break", ["no", "break"]),
  ],
)
def test_what_is_no_word_is_dropped(caption, words):
  assert tokenize(caption) == words


@pytest.mark.parametrize("piece", ["dog ", "x", "-", "a-", "'", "1.", "a.", "a@", "<a", "can't "])
def test_long_captions_take_no_longer_than_their_length(piece):
  start = time.monotonic()
  words = tokenize(piece * 5000)
  assert time.monotonic() - start < 2
  if piece == "dog ":
    assert words == ["dog"] * 5000


def test_written_captions_are_words_already(shared_data):
  """Words joined by spaces stay as they are, so decoded captions score as their ids do."""
  path = shared_data / "eval_fixtures" / "dev" / "captions_coco_fakecap1000" / "gts.json"
  captions = [caption for group in json.loads(path.read_text()).values() for caption in group]
  # One of 5,005 holds a word that the tokenizer itself would have cut.
  assert sum(tokenize(caption) != caption.split() for caption in captions) == 1
  assert tokenize(f"a {UNKNOWN} b") == ["a", UNKNOWN, "b"]

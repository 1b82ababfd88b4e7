"""Captions as words, the way the COCO caption scorer cuts them.

The scorer runs Stanford's PTBTokenizer (corenlp 3.4.1, lower case) in Java and drops a list of
punctuation. These rules give the same words for captions as people write them. They differ in what
captions hardly hold: smileys, foreign clitics, marks stuck together.
"""

import re

UNKNOWN = "<unk>"  # how a word outside the vocabulary is written; one token, as tags are

# Signs that PTBTokenizer writes in another way: quotes, dashes and dots as typeset, money.
_PLAIN = str.maketrans(
  dict.fromkeys("\u2018\u2019\u201b", "'")
  | dict.fromkeys("\u201c\u201d\u201e", '"')
  | dict.fromkeys("\u2013\u2014\u2015", " -- ")
  | {"…": "...", "½": " 1/2 ", "¼": " 1/4 ", "¾": " 3/4 "}
  | {"£": " # ", "€": " $ ", "¢": " cents "}
)
# The scorer means to drop round and curly brackets, but misses them as it lists their names in
# upper case; the published scores count them.
_BRACKETS = {
  mark: f"-{name}b-"
  for mark, name in zip("()[]{}", ("lr", "rr", "ls", "rs", "lc", "rc"), strict=True)
}
_DROPPED = re.compile(r"""['"`]+ | -+ | \.+ | [?!,:;]""", re.VERBOSE)
# Control characters part words; so do marks without width and what lies beyond the basic plane,
# such as emoji, which are no words at all.
_UNWRITTEN = re.compile(
  "[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060\ud800-\uf8ff\ufe00-\ufe0f\ufeff\ufffd"
  "\U00010000-\U0010ffff]"
)
_ABBREVIATIONS = (
  r"mr|mrs|ms|dr|st|mt|ft|vs|etc|jr|sr|ph\.d|prof|gen|rep|sen|gov|capt|lt|col|sgt|inc|ltd|co|corp|bros"
  r"|ave|blvd|rd|dept|univ|assn|est|fig|tel|pres|jan|feb|mar|apr|jun|jul|aug|sep|sept|oct|nov|dec"
)
_TOKEN = re.compile(
  "|".join(
    [
      r"</?[a-z][^\s<>]*>",  # <unk>
      r"https?://\S*[\w/]|[\w.+-]+@[\w-]+(?:\.\w+)*",
      r"(?:[a-z]\.){2,}",  # u.s., p.m.
      rf"\b(?:{_ABBREVIATIONS})\.(?!\w)",
      r"\bno\.(?=\s?\d)",
      r"\b[a-z]\.(?=\s+\S)",  # initials
      r"[@#][a-z]\w*",
      r"\b(?:can(?=not\b)|(?:gon|wan)(?=na\b)|got(?=ta\b)|(?:gim|lem)(?=me\b))",
      r"(?<![\w'])'(?:(?:\d0s|em|til|cause|n)\b|t(?=(?:is|was)\b))",
      r"(?<!\w)[+-]?\d*(?:[.,:/]\d+)+(?!\w)(?:-\w+)*",  # 10,000 and 1/2-inch
      r"(?<!\w)\d+(?:[.,:]\d+)+",  # the number of 3.5ft
      r"(?<!\w)[+-]\d+\b",
      r"n't\b|'(?:s|m|d|ll|re|ve)\b",
      r"[odl]'[^\W\d_]{3,}|o'er\b|ne'er\b|ma'am\b|c'mon\b|d'ye\b",
      # Letters and digits up to an n't, parts joined by hyphens, slashes and marks without a space.
      r"\w(?:(?!n't\b)\w|[-/](?=\w)|(?<=[^\W\d_])[.!?](?=[^\W\d_])|(?<=\bat)&(?=t\b))*",
      r"-+|[!?]+|\.+|\*+|#+|['`]+",
      r"\S",
    ]
  )
)


def tokenize(caption: str) -> list[str]:
  """Words of a caption, in lower case and without punctuation; [] where there are none."""
  text = _UNWRITTEN.sub(" ", caption.lower().translate(_PLAIN))
  tokens = _TOKEN.findall(text)
  return [_BRACKETS.get(token, token) for token in tokens if not _DROPPED.fullmatch(token)]

"""Captions as words, the way the COCO caption scorer cuts them.

The scorer runs Stanford's PTBTokenizer (corenlp 3.4.1, lower case) in Java and drops a list of
punctuation. These rules give the same words for captions as people write them, in any script. They
differ in what captions hardly hold (smileys, marks stuck together), in that text is brought into
Unicode's composed form (NFC) first, and in that words stay whole where the scorer, which is of
2014, loses their vowel signs: in Gurmukhi, Kannada, Malayalam, Sinhala, Burmese and Khmer.
"""

import itertools
import re
import unicodedata

UNKNOWN = "<unk>"  # how a word outside the vocabulary is written; one token, as tags are

# Signs that PTBTokenizer writes in another way: quotes, dashes and dots as typeset, money. Numbers
# above and below the line are words of their own, and a soft hyphen is nothing.
_PLAIN = str.maketrans(
  dict.fromkeys("\u201c\u201d\u00ab\u00bb\u2039\u203a", '"')
  | dict.fromkeys("\u2012\u2013\u2014\u2015", " -- ")
  | {"…": "...", "½": " 1/2 ", "¼": " 1/4 ", "¾": " 3/4 ", "⅓": " 1/3 ", "⅔": " 2/3 "}
  | {"£": " # ", "€": " $ ", "¢": " cents "}
  | {number: f" {number} " for number in "⁰¹²³⁴⁵⁶⁷⁸⁹₀₁₂₃₄₅₆₇₈₉"}
  | {"\xad": ""}
)
# The scorer means to drop round and curly brackets, but misses them as it lists their names in
# upper case; the published scores count them.
_BRACKETS = {
  mark: f"-{name}b-"
  for mark, name in zip("()[]{}", ("lr", "rr", "ls", "rs", "lc", "rc"), strict=True)
}
_DROPPED = re.compile(
  r"""['"`\u2018\u2019\u201b]+ | [-\u2010\u2011]+ | \.+ | [?!,:;]""", re.VERBOSE
)
# What is no word at all: control characters, marks without width, what lies beyond the basic plane,
# such as emoji, and signs that the scorer does not know, such as brackets of Chinese and Japanese.
_UNWRITTEN = re.compile(
  "[\x00-\x1f\x7f-\x9f\u058a-\u058f\u060d-\u060f\u0970\u104a-\u104f\u1360-\u137c\u17d4-\u17db"
  "\u200b-\u200f\u2028-\u202e\u203c\u203d\u2043\u2045-\u205e\u2060\u20a1-\u20a3\u20a5-\u20ab\u20ad-\u20c0"
  "\u20d0-\u20ff\u2160-\u218b\u2e00-\u2e5d\u3003\u3007-\u3011\u3013-\u301f\u3030\u3200-\u33ff"
  "\ud800-\uf8ff\ufe00-\ufe19\ufe30-\ufe6b\ufeff\ufffd\U00010000-\U0010ffff]"
)
_ABBREVIATIONS = (
  r"mr|mrs|ms|dr|st|mt|ft|vs|etc|jr|sr|ph\.d|prof|gen|rep|sen|gov|capt|lt|col|sgt|inc|ltd|co|corp|bros"
  r"|ave|blvd|rd|dept|univ|assn|est|fig|tel|pres|jan|feb|mar|apr|jun|jul|aug|sep|sept|oct|nov|dec"
)


def _marks() -> str:
  """Combining marks, as the inside of a regular expression's [...]."""
  codes = [code for code in range(0x10000) if unicodedata.category(chr(code))[0] == "M"]
  runs = itertools.groupby(enumerate(codes), lambda pair: pair[1] - pair[0])
  ends = [[code for _, code in run] for _, run in runs]
  return "".join(f"\\u{run[0]:04x}-\\u{run[-1]:04x}" for run in ends)


def _pattern(marks: str, apostrophes: str, flags: re.RegexFlag) -> re.Pattern[str]:
  r"""What a token is.

  Args:
    marks: those that belong to the word that they stand in, which Python's \w does not know.
    apostrophes: of words; those of quotes are more.
  """
  word, apos, quotes = rf"[\w{marks}]", f"[{apostrophes}]", "['\u2018\u2019\u201b]"
  letter = rf"(?:[^\W\d_][{marks}]*)" if marks else r"[^\W\d_]"
  after_letter = rf"(?:(?<=[^\W\d_])|(?<=[{marks}]))" if marks else r"(?<=[^\W\d_])"
  parts = [
    # What most words are; all else is tried for the others alone.
    r"(?<!\w)(?!(?:cannot|gonna|wanna|gotta|gimme|lemme)\b)[a-z]+(?=\s|$)",
    r"</?[a-z][^\s<>]*>",  # <unk>
    r"https?://\S*[\w/]|[\w.+-]+@[\w-]+(?:\.\w+)*",
    r"(?:[a-z]\.){2,}",  # u.s., p.m.
    rf"\b(?:{_ABBREVIATIONS})\.(?!\w)",
    r"\bno\.(?=\s?\d)",
    r"\b[a-z]\.(?=\s+\S)",  # initials
    rf"[@#]{letter}{word}*",
    r"\b(?:can(?=not\b)|(?:gon|wan)(?=na\b)|got(?=ta\b)|(?:gim|lem)(?=me\b))",
    rf"(?<![\w'\u2019]){apos}(?:\d0s|em|til|cause)\b|{apos}n{apos}|(?<![\w'\u2019]){apos}n\b",
    r"(?<![\w'])'t(?=(?:is|was)\b)",
    r"(?<!\w)[+-]?\d*(?:[.,:/]\d+)+(?!\w)(?:-\w+)*",  # 10,000 and 1/2-inch
    r"(?<!\w)\d+(?:[.,:]\d+)+",  # the number of 3.5ft
    r"(?<!\w)[+-]\d+\b",
    rf"n{apos}t\b|{apos}(?:s|m|d|ll|re|ve)\b",
    rf"\b(?:ma{apos}am|c{apos}mon|d{apos}ye|n?e{apos}er|o{apos}er|s{apos}mores|li{apos}l)\b",
    # O'Neil and l'homme, with capitals of nearly all letters; c'est; qu'il, with vowels on both
    # sides; l' and d' before what is shorter.
    rf"(?<!{word})(?-i:[A-HJ-XZdlno]){quotes}{letter}{{2,}}|(?<!{word})c{apos}[aeiou]{letter}+",
    rf"(?<!{word}){letter}+[aeiouy]{quotes}(?-i:[aeiouA-Z]){letter}*",
    rf"(?<!{word})[dlj]{apos}|(?<!{word})y{apos}(?=[^\W\d_])",
    r"(?-i:[A-Z]+&[A-Z]+)",
    # Letters and digits up to an n't, parts joined by hyphens, slashes and marks without a space.
    rf"[^\W_](?:(?!n{apos}t\b){word}|[-\u2010\u2011](?=\w)|(?<=[a-z0-9])/(?=[a-z0-9])"
    rf"|{after_letter}[.!?](?=[^\W\d_]))*",
    r"_+|-+|[!?]+|\.+|\*+|#+|['`\u2018\u2019\u201b]+",
    r"\S",
  ]
  return re.compile("|".join(parts), re.IGNORECASE | flags)


_ASCII = _pattern("", "'", re.ASCII)  # of most captions
_UNICODE = _pattern(_marks(), "'\u2019", re.NOFLAG)
_EDGES = re.compile(r"(?<![^\W_])_+|_+(?![^\W_])")  # of words; a_b is one
_CLITIC = re.compile("n\u2019t|\u2019(?:s|m|d|ll|re|ve)")


def tokenize(caption: str) -> list[str]:
  """Words of a caption, in lower case and without punctuation; [] where there are none."""
  plain = caption.isascii()
  text = caption if plain else unicodedata.normalize("NFC", caption).translate(_PLAIN)
  text = _UNWRITTEN.sub(" ", text)
  if "_" in text:
    text = _EDGES.sub(r" \g<0> ", text)
  tokens = (_ASCII if plain else _UNICODE).findall(text)
  found = []
  for token in tokens:
    token = token.lower()
    if "\u2019" in token and _CLITIC.fullmatch(token):
      token = token.replace("\u2019", "'")
    if not _DROPPED.fullmatch(token):
      found.append(_BRACKETS.get(token, token))
  return found

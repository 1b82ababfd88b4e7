"""Words of all scripts, against the official tokenizer and scorers (tests/golden/scripts.py)."""

import importlib.util
import json
import pathlib
import unicodedata

import pytest

from rtune.metrics.text import caption_metric
from rtune.text.corpus import build_corpus
from rtune.text.tokenize import tokenize

GOLDEN = pathlib.Path(__file__).resolve().parents[1] / "golden"
FOUND = json.loads((GOLDEN / "scripts.json").read_text(encoding="utf-8"))


def groups():
  spec = importlib.util.spec_from_file_location("golden_scripts", GOLDEN / "scripts.py")
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module.GROUPS


@pytest.mark.parametrize("form", ["NFC", "NFD"])
@pytest.mark.parametrize("caption", FOUND["words"])
def test_words_are_those_of_the_official_tokenizer(caption, form):
  # What macOS writes (NFD) means the same words.
  words = unicodedata.normalize("NFC", FOUND["words"][caption])
  assert " ".join(tokenize(unicodedata.normalize(form, caption))) == words


@pytest.mark.parametrize(
  "caption", ["ਲਾਲ ਡੱਬਾ", "ಕೆಂಪು ಪೆಟ್ಟಿಗೆ", "ചുവന്ന പെട്ടി", "රතු පෙට්ටිය", "ပုံထဲတွင်", "ប្រអប់ក្រហម"]
)
def test_words_stay_whole_where_the_official_tokenizer_loses_their_marks(caption):
  assert tokenize(caption) == caption.split()


def test_words_are_written_as_they_are_read():
  captions = [caption for caption in FOUND["words"] if tokenize(caption)]
  corpus = build_corpus([captions], min_count=1)
  for caption in captions:
    assert corpus.decode(corpus.encode(caption)) == " ".join(tokenize(caption))


@pytest.mark.parametrize("name", FOUND["scores"])
@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_scores_are_those_of_the_official_scorer(name, form):
  group = groups()[name]
  metric = caption_metric(build_corpus([references for _, references in group], min_count=1))
  state = metric.init()
  for number, (candidate, references) in enumerate(group):
    record = {"image_id": number, "caption": unicodedata.normalize(form, candidate)}
    captions = tuple(unicodedata.normalize(form, text) for text in references)
    state = metric.update(state, record, {"image_id": number, "captions": captions})
  values = metric.compute(state)
  for key, expected in FOUND["scores"][name].items():
    assert values[key] == pytest.approx(expected, rel=1e-6), key

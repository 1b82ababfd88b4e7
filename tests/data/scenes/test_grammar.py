"""Captions of scenes: true, varied, and the same whenever they are asked for."""

import itertools
import pickle
import re

import numpy as np
import pytest

from rtune.data.scenes import grammar, render
from rtune.data.scenes.captioned import CaptionedShapes
from rtune.data.scenes.shapes import Shapes
from rtune.errors import UsageError
from rtune.text.tokenize import tokenize

SCENES = {"size": 48, "max_objects": 4, "smallest": 0.25}
# Every word for a kind or a color, in singular and plural, as the name it has in the renderer.
KINDS = {word: kind for kind, words in grammar._KINDS.items() for word in itertools.chain(*words)
         if isinstance(word, str)}  # fmt: skip
COLORS = {name: name for name in render.COLORS} | {"violet": "purple", "dark": "black"}


@pytest.fixture(scope="module")
def examples():
  source = CaptionedShapes("train", 400, **SCENES)
  return source, [source[index] for index in range(400)]


def words_of(example):
  return [tokenize(caption) for caption in example["captions"]]


def test_examples_have_five_sentences(examples):
  _, found = examples
  for index, example in enumerate(found):
    assert set(example) == {"image", "image_id", "captions"}
    assert example["image_id"] == index
    assert len(example["captions"]) == 5
    for caption in example["captions"]:
      assert re.fullmatch(r"[A-Z][a-z, ]+\.", caption), caption
      assert 2 <= len(tokenize(caption)) <= grammar.LONGEST
      assert not re.search(r"\b(an [^aeiou]|a [aeiou])", caption.lower()), caption


def test_a_caption_follows_from_seed_split_and_index_alone(examples):
  _, found = examples
  again = pickle.loads(pickle.dumps(CaptionedShapes("train", 10_000, **SCENES)))
  for index in (399, 3, 3, np.int64(20), 0):
    assert again[index]["captions"] == found[index]["captions"]
    np.testing.assert_array_equal(again[index]["image"], found[index]["image"])


# A change of these is a change of the dataset, and of every figure measured on it.
GOLDEN = {
  0: (
    "A violet block and a white triangle near a forest.",
    "There are four shapes, one of them orange.",
    "There is a white triangle, a big orange cross and a purple object.",
    "There is a large orange cross, a triangle and a small dark ring in front of the trees.",
    "There is a white triangle over a rectangle near a forest.",
  ),
  1: (
    "A view of a white donut right of a tiny purple diamond.",
    "There is a white object and a violet diamond on the sand.",
    "An image of a white ring to the right of a small violet diamond on a beach.",
    "A pink rectangle on the left on the sand.",
    "There is a rectangle on the left side.",
  ),
}


def test_captions_stay_what_they_were_when_figures_were_measured():
  source = CaptionedShapes("val", 2, **SCENES)
  assert {index: source[index]["captions"] for index in GOLDEN} == GOLDEN


def test_images_are_those_of_shapes(examples):
  _, found = examples
  shapes = Shapes("train", 400, **SCENES)
  for index in range(0, 400, 40):
    np.testing.assert_array_equal(found[index]["image"], shapes[index]["image"])


def test_captions_differ_between_splits_seeds_and_writers(examples):
  _, found = examples
  others = [CaptionedShapes("val", 50, **SCENES), CaptionedShapes("train", 50, seed=1, **SCENES)]
  for other in others:
    same = [other[i]["captions"] == found[i]["captions"] for i in range(50)]
    assert not any(same)
  distinct = [len(set(example["captions"])) for example in found]
  assert np.mean(distinct) > 4
  more = CaptionedShapes("train", 50, captions=7, **SCENES)
  assert more[4]["captions"][:5] == found[4]["captions"] and len(more[4]["captions"]) == 7


def test_every_word_is_used_and_there_are_about_a_hundred(examples):
  source, _ = examples
  references = source.references()
  assert len(references) == 400
  used = {word for own in references for caption in own for word in tokenize(caption)}
  assert 60 <= len(used) <= 150
  singular = {word for word, kind in KINDS.items() if not word.endswith("s") or word == "cross"}
  assert singular | set(COLORS) | {"two", "above", "behind", "corner", "grass", "there"} <= used


def test_kinds_and_colors_that_are_named_are_in_view(examples):
  source, found = examples
  for index, example in enumerate(found):
    scene = source.scene(index)
    seen = np.nonzero((scene.visible_N >= 0.3) & (scene.area_N > 0))[0]
    kinds = {render.KINDS[scene.kinds_N[i]] for i in seen}
    colors = {tuple(render.COLORS)[scene.colors_N[i]] for i in seen}
    # "a blue sky" and "a green field" are of the background.
    text = " ".join(example["captions"]).lower().replace("blue sky", "sky")
    words = tokenize(text)
    assert {KINDS[word] for word in words if word in KINDS} <= kinds
    assert {COLORS[word] for word in words if word in COLORS} <= colors
    pairs = {(render.KINDS[scene.kinds_N[i]], tuple(render.COLORS)[scene.colors_N[i]])
             for i in seen}  # fmt: skip
    for color, kind in itertools.pairwise(words):
      if color in COLORS and kind in KINDS:
        assert (KINDS[kind], COLORS[color]) in pairs


def test_numbers_are_right(examples):
  source, found = examples
  checked = 0
  for index, example in enumerate(found):
    scene = source.scene(index)
    seen = ((scene.visible_N >= 0.3) & (scene.area_N > 0)).sum()
    for words in words_of(example):
      for number, noun in itertools.pairwise(words):
        if number in ("two", "three", "four") and noun in ("shapes", "objects", "things"):
          assert seen == {"two": 2, "three": 3, "four": 4}[number]
          checked += 1
  assert checked > 50


def scene_of(*objects, size=40):
  """A scene of (kind, color, (y0, x0, y1, x1)) before a wall and sand; later ones are in front."""
  count = len(objects)
  stuff = np.ones((size, size), np.uint8)
  stuff[30:] = 4
  return render.Scene(
    image=np.zeros((size, size, 3), np.uint8),
    ids_SS=np.zeros((size, size), np.uint8),
    stuff_SS=stuff,
    kinds_N=np.array([render.KINDS.index(kind) for kind, _, _ in objects], np.int32),
    colors_N=np.array([tuple(render.COLORS).index(c) for _, c, _ in objects], np.int32),
    boxes_N4=np.array([box for _, _, box in objects], np.float32).reshape(count, 4),
    area_N=np.full(count, 50, np.int32),
    visible_N=np.ones(count, np.float32),
  )


def said_of(scene, count=400):
  return grammar.describe(scene, np.random.default_rng(0), count)


@pytest.mark.parametrize(
  ("box", "row", "column"),
  [
    ((0, 0, 10, 10), -1, -1),
    ((30, 30, 40, 40), 1, 1),
    ((16, 0, 26, 10), 0, -1),
    ((30, 15, 40, 25), 1, 0),
    ((15, 15, 25, 25), 0, 0),
  ],
)
def test_places_are_right(box, row, column):
  own = [text for text, _ in grammar._PLACES[(row, column)]]
  others = [text for options in grammar._PLACES.values() for text, _ in options]
  texts = said_of(scene_of(("ring", "red", box)))
  assert all(any(phrase in text for text in texts) for phrase in own)
  for text in texts:
    for phrase in own:
      text = re.sub(rf"{phrase}\b", "", text)
    assert not any(re.search(rf"{phrase}\b", text) for phrase in others), text


RING, CROSS = r"\b(red|ring|donut)\b", r"\b(blue|cross|plus)\b"


@pytest.mark.parametrize(
  ("ring", "cross", "relation", "reverse"),
  [
    ((0, 0, 10, 10), (28, 4, 38, 14), "above|over", "below|under"),
    ((10, 0, 20, 10), (14, 28, 24, 38), "left of", "right of"),
    ((10, 10, 22, 22), (14, 12, 26, 24), "behind", "covering|in front of a"),
  ],
)
def test_relations_are_right(ring, cross, relation, reverse):
  found = set()
  for text in said_of(scene_of(("ring", "red", ring), ("cross", "blue", cross))):
    text = text.replace("in front of a wall", "")
    places = [re.search(pattern, text) for pattern in (RING, CROSS)]
    said = re.search(r"\b(above|over|below|under|left of|right of|behind|covering|in front of a)\b",
                     text)  # fmt: skip
    if said and all(places):
      ring_first = places[0].start() < places[1].start()
      assert re.fullmatch(relation if ring_first else reverse, said[0]), text
      found.add(said[0])
  assert found == {*relation.split("|"), *reverse.split("|")}


def test_a_scene_without_objects_is_described_by_its_ground():
  texts = said_of(scene_of(), 50)
  assert all("wall" in text and "sand" in text for text in texts)
  assert len(set(texts)) > 1


def test_more_general_words_come_with_the_special_ones():
  """What makes it worth tuning: every scene is described in many ways."""
  scene = scene_of(("ring", "purple", (0, 0, 18, 18)), ("cross", "black", (20, 22, 30, 32)))
  texts = said_of(scene)
  assert len(set(texts)) > 150
  assert any("two" in text for text in texts) and any("violet" in text for text in texts)


@pytest.mark.parametrize("field", [{"captions": 0}, {"max_objects": 7}, {"split": "test"}])
def test_senseless_fields_are_named(field):
  with pytest.raises(UsageError, match=next(iter(field))):
    CaptionedShapes(**{"split": "train", "num": 3} | field)


@pytest.mark.parametrize("index", [-1, 3])
def test_no_example_outside_the_split(index):
  with pytest.raises(IndexError):
    CaptionedShapes("train", 3)[index]

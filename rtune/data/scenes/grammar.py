"""Captions of a rendered scene, as several people would write them.

Everybody sees the same objects, but each has an eye for other ones, other words for them, and says
more or less: what there is, where it is, how many there are, what is next to what. All that is said
is true. Chance comes from one generator, so the same generator state gives the same captions.
"""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from rtune.data.scenes import render

# Words and how often each is chosen; where nothing stands beside a word it has weight 1.
_KINDS = {
  "rectangle": (("rectangle", "rectangles", 2), ("block", "blocks", 1)),
  "ellipse": (("oval", "ovals", 2), ("ellipse", "ellipses", 1)),
  "triangle": (("triangle", "triangles", 1),),
  "diamond": (("diamond", "diamonds", 2), ("rhombus", "rhombuses", 1)),
  "cross": (("cross", "crosses", 3), ("plus", "pluses", 1)),
  "ring": (("ring", "rings", 2), ("donut", "donuts", 1)),
}
_THINGS = (("shape", "shapes", 3), ("object", "objects", 2), ("thing", "things", 1))
_COLORS = {"purple": (("purple", 2), ("violet", 1)), "black": (("black", 4), ("dark", 1))}
_LARGE = (("large", 2), ("big", 3), ("huge", 1))
_SMALL = (("small", 3), ("little", 2), ("tiny", 1))
_NUMBERS = {2: "two", 3: "three", 4: "four", 5: "five", 6: "six"}
_GROUNDS = {
  "sky": (("under the sky", 2), ("under a blue sky", 1), ("before the sky", 1)),
  "wall": (("in front of a wall", 3), ("by a wall", 1)),
  "forest": (("near a forest", 2), ("in front of the trees", 1)),
  "grass": (("on the grass", 3), ("in a green field", 1)),
  "sand": (("on the sand", 3), ("on a beach", 1)),
  "water": (("on the water", 2), ("over the water", 1)),
}
_EMPTY = (("nothing but", 2), ("an empty scene with", 1), ("a picture of", 1))
_OPENINGS = (("a picture of", 2), ("an image of", 1), ("a view of", 1))
_PLACES = {
  (0, 0): (("in the middle", 2), ("in the center", 1)),
  (0, -1): (("on the left", 2), ("on the left side", 1)),
  (0, 1): (("on the right", 2), ("on the right side", 1)),
  (-1, 0): (("at the top", 1),),
  (1, 0): (("at the bottom", 1),),
  (-1, -1): (("in the upper left corner", 2), ("at the top left", 1)),
  (-1, 1): (("in the upper right corner", 2), ("at the top right", 1)),
  (1, -1): (("in the lower left corner", 2), ("at the bottom left", 1)),
  (1, 1): (("in the lower right corner", 2), ("at the bottom right", 1)),
}
_BESIDE = (("next to", 2), ("beside", 1))
_RELATIONS = {
  "above": (("above", 3), ("over", 1)),
  "below": (("below", 2), ("under", 2)),
  "left": (("to the left of", 2), ("left of", 1), *_BESIDE),
  "right": (("to the right of", 2), ("right of", 1), *_BESIDE),
  "front": (("in front of", 2), ("covering", 1)),
  "behind": (("behind", 1),),
}
LONGEST = 19  # words
_SEEN = 0.3  # objects with less than this share in view are mentioned by nobody
_LARGE_FROM, _SMALL_TO = 0.37, 0.27  # sqrt(height * width) as a fraction of the image


class _Item(NamedTuple):
  """What a writer knows of one object; places and sizes are fractions of the image."""

  kind: str
  color: str
  y: float
  x: float
  side: float
  box: tuple[float, ...]  # y0, x0, y1, x1
  layer: int  # higher ones cover lower ones


class _Writer:
  """Chance as one who writes needs it."""

  def __init__(self, rng: np.random.Generator):
    self._random = rng.random

  def chance(self, share: float) -> bool:
    return self._random() < share

  def pick(self, options: Sequence[tuple]) -> tuple:
    """One of the options by the weight that each ends with."""
    left = self._random() * sum(option[-1] for option in options)
    for option in options:
      left -= option[-1]
      if left < 0:
        return option
    return options[-1]

  def word(self, options: Sequence[tuple]) -> str:
    return self.pick(options)[0]

  def by_salience(self, items: Sequence[_Item]) -> list[_Item]:
    """Large objects come first, mostly."""
    return sorted(items, key=lambda item: item.side * (0.6 + self._random()), reverse=True)


def describe(scene: render.Scene, rng: np.random.Generator, count: int = 5) -> tuple[str, ...]:
  """`count` captions, each a sentence with a capital and a full stop.

  Args:
    scene: what there is to see.
    rng: the only source of chance.
    count: how many people write.
  """
  items, writer = _items(scene), _Writer(rng)
  counts = np.bincount(scene.stuff_SS.ravel(), minlength=len(render.STUFF))
  order = np.argsort(-counts, kind="stable").tolist()
  grounds = [render.STUFF[index][0] for index in order if counts[index]]
  texts = [_caption(items, grounds, writer) for _ in range(count)]
  return tuple(f"{text[0].upper()}{text[1:]}." for text in texts)


def _items(scene: render.Scene) -> list[_Item]:
  size = scene.image.shape[0]
  colors, found = tuple(render.COLORS), []
  boxes = (scene.boxes_N4 / size).tolist()
  for layer, (y0, x0, y1, x1) in enumerate(boxes):
    if scene.area_N[layer] and scene.visible_N[layer] >= _SEEN:
      kind, color = render.KINDS[scene.kinds_N[layer]], colors[scene.colors_N[layer]]
      side = ((y1 - y0) * (x1 - x0)) ** 0.5
      box = (y0, x0, y1, x1)
      found.append(_Item(kind, color, (y0 + y1) / 2, (x0 + x1) / 2, side, box, layer))
  return found


def _caption(items: Sequence[_Item], grounds: Sequence[str], writer: _Writer) -> str:
  if not items:
    names = [f"the {name}" if name != "wall" else "a wall" for name in grounds]
    return f"{writer.word(_EMPTY)} {' and '.join(names)}"
  styles = [(_naming, 45), (_placing, 35), (_counting, 20)]
  if len(items) > 1:
    styles.append((_relating, 60))
  text = writer.pick(styles)[0](writer.by_salience(items), writer)
  # Nobody goes on for ever: no caption is longer than LONGEST.
  room = LONGEST - len(text.split())
  if room > 7 and writer.chance(0.5):
    text += f" {_ground(grounds, writer, both=room > 10)}"
  if LONGEST - len(text.split()) < 3:
    return text
  if writer.chance(0.3):
    text = f"{writer.word(_OPENINGS)} {text}"
  elif writer.chance(0.3):
    many = text.split(" ", 1)[0] in (*_NUMBERS.values(), "several")
    text = f"there {'are' if many else 'is'} {text}"
  return text


def _ground(grounds: Sequence[str], writer: _Writer, both: bool) -> str:
  """Where it all is: mostly what fills more of the image, at times `both` regions."""
  if both and len(grounds) > 1 and writer.chance(0.2):
    return " ".join(writer.word(_GROUNDS[name]) for name in grounds[:2])
  other = len(grounds) > 1 and writer.chance(0.2)
  return writer.word(_GROUNDS[grounds[1 if other else 0]])


def _naming(items: Sequence[_Item], writer: _Writer) -> str:
  """Some of what there is, one after the other."""
  most = min(len(items), 3)
  named = min(most, 1 + writer.chance(0.6) + writer.chance(0.25))
  return _joined([_thing(item, writer) for item in items[:named]])


def _placing(items: Sequence[_Item], writer: _Writer) -> str:
  """One thing or two, and where in the picture they are."""
  named = items[: 1 + writer.chance(0.35)]
  return _joined([f"{_thing(item, writer)} {_place(item, writer)}" for item in named])


def _relating(items: Sequence[_Item], writer: _Writer) -> str:
  """Two things and how they lie to each other."""
  one, other = items[:2]
  relation = writer.word(_RELATIONS[_relation(one, other)])
  return f"{_thing(one, writer)} {relation} {_thing(other, writer)}"


def _counting(items: Sequence[_Item], writer: _Writer) -> str:
  """How many there are, of a kind, of a color, or of all."""
  for key in ("kind", "color"):
    name, number = Counter(getattr(item, key) for item in items).most_common(1)[0]
    if number > 1 and writer.chance(0.6):
      noun = writer.pick(_KINDS[name] if key == "kind" else _THINGS)[1]
      of_them = [item for item in items if getattr(item, key) == name]
      same = len({item.color for item in of_them}) == 1
      noun = f"{_color(of_them[0], writer)} {noun}" if same else noun
      rest = [item for item in items if getattr(item, key) != name]
      text = f"{_number(number, writer)} {noun}"
      return f"{text} and {_thing(rest[0], writer)}" if rest and writer.chance(0.6) else text
  if len(items) == 1:
    return _thing(items[0], writer)
  text = f"{_number(len(items), writer)} {writer.pick(_THINGS)[1]}"
  if writer.chance(0.4):
    return f"{text}, one of them {_color(items[0], writer)}"
  return text


def _number(number: int, writer: _Writer) -> str:
  if number > 6 or (number > 3 and writer.chance(0.3)):
    return "several"
  return "a pair of" if number == 2 and writer.chance(0.15) else _NUMBERS[number]


def _thing(item: _Item, writer: _Writer) -> str:
  """An object with its article, and of its size and color what the writer cares for."""
  words = []
  if item.side > _LARGE_FROM and writer.chance(0.35):
    words.append(writer.word(_LARGE))
  if item.side < _SMALL_TO and writer.chance(0.35):
    words.append(writer.word(_SMALL))
  plain = writer.chance(0.08)
  if not writer.chance(0.12) or plain:
    words.append(_color(item, writer))
  words.append(writer.word(_THINGS if plain else _KINDS[item.kind]))
  return f"{'an' if words[0][0] in 'aeiou' else 'a'} {' '.join(words)}"


def _color(item: _Item, writer: _Writer) -> str:
  return writer.word(_COLORS.get(item.color, ((item.color, 1),)))


def _place(item: _Item, writer: _Writer) -> str:
  return writer.word(_PLACES[(_third(item.y), _third(item.x))])


def _third(place: float) -> int:
  return -1 if place < 0.37 else 1 if place > 0.63 else 0


def _relation(one: _Item, other: _Item) -> str:
  """How `one` lies to `other`: covering it, or above, below, left or right of it."""
  height = min(one.box[2], other.box[2]) - max(one.box[0], other.box[0])
  width = min(one.box[3], other.box[3]) - max(one.box[1], other.box[1])
  if max(height, 0) * max(width, 0) > 0.25 * min(one.side, other.side) ** 2:
    return "front" if one.layer > other.layer else "behind"
  down, right = one.y - other.y, one.x - other.x
  if abs(down) > abs(right):
    return "below" if down > 0 else "above"
  return "right" if right > 0 else "left"


def _joined(texts: Sequence[str]) -> str:
  """a, b and c."""
  head = ", ".join(texts[:-1])
  return f"{head} and {texts[-1]}" if head else texts[-1]

"""A class for each pixel: samples, their score and the best map are of one distribution.

Dimension key:
  B: batch of images
  S: samples for each image
  N: all label maps there are
  T: pixels
  K: classes
"""

import contextlib
import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from rtune.devices.compiling import jit_once
from rtune.errors import UsageError
from rtune.models.dense import Dense, pixels
from rtune.policies import heads, windows
from rtune.policies.labels import drawn, labels
from rtune.policies.policy import Sampled
from rtune.policies.space import Labels
from rtune.training import advantages, losses

pytestmark = pytest.mark.usefixtures("quick_compiles")

ADVANTAGES = ("leave_one_out", "paper", "group_mean", "greedy", "batch", "none")
TINY = Labels(2, 2, 3)
UNET = {"fn": "rtune.models.unet:unet", "args": {"width": 4, "depth": 1}}
DEEPLAB = {
  "fn": "rtune.models.deeplab:deeplab",
  "args": {"backbone": "small", "width": 8, "rates": [2]},
}


def by_color(classes: int) -> Dense:
  """A network: logits of a pixel are linear in its color."""

  def init(key, image):
    return {"head": {"kernel": jax.random.normal(key, (3, classes)), "bias": jnp.zeros(classes)}}

  def apply(params, image, key=None):
    head = params["head"]
    return {"logits": pixels(image) @ head["kernel"] + head["bias"][None, None, None]}

  return Dense(init, apply)


BY_COLOR = {"fn": f"{__file__}:by_color"}


def inputs_of(height: int, width: int, number: int = 2, ignore: float = 0.3):
  rng = np.random.default_rng(height * width)
  image = rng.integers(0, 256, (number, height, width, 3), np.uint8)
  ignored = rng.random((number, height, width)) < ignore
  return {"image": jnp.asarray(image), "ignored": jnp.asarray(ignored)}


def random_params(policy, inputs, scale: float = 0.3):
  """Parameters of no particular network; those of `init` give every pixel the same logits."""
  rng = np.random.default_rng(0)

  def moved(leaf):  # in numpy: jax would compile a sum for each shape
    return jnp.asarray(np.asarray(leaf) + scale * rng.normal(size=leaf.shape), leaf.dtype)

  return jax.tree.map(moved, jit_once(policy.init)(jax.random.key(0), inputs))


@contextlib.contextmanager
def all_optimizations():
  """Of the compiler, as training has them."""
  before = jax.config.values["jax_disable_most_optimizations"]
  jax.config.update("jax_disable_most_optimizations", False)
  yield
  jax.config.update("jax_disable_most_optimizations", before)


@pytest.fixture(scope="module")
def tiny():
  """Maps so small that all of them can be listed: policy, parameters, inputs."""
  policy = labels(TINY, network=BY_COLOR)
  inputs = inputs_of(2, 2)
  inputs["ignored"] = jnp.zeros((2, 2, 2), bool).at[1, 0, 1].set(True)
  return policy, random_params(policy, inputs), inputs


@pytest.fixture(scope="module")
def small():
  """A network that sees its surroundings, with jitted functions."""
  policy = labels(Labels(12, 10, 5), network=UNET)
  inputs = inputs_of(12, 10)
  policy = policy._replace(score=jax.jit(policy.score), best=jax.jit(policy.best))
  params = random_params(policy, inputs)
  sampled = jax.jit(policy.sample, static_argnums=3)(params, inputs, jax.random.key(3), 4)
  return policy, params, inputs, sampled


def every_map(images: int) -> np.ndarray:
  """All label maps of TINY, [B, N, H, W]."""
  every = np.array([*itertools.product(range(3), repeat=4)], np.int32).reshape(-1, 2, 2)
  return np.broadcast_to(every, (images, *every.shape))


def likelihoods(policy, params, inputs) -> jax.Array:
  """Of all maps [B, N]; maps that differ in ignored pixels only are one, which is 0 there."""
  every = jnp.asarray(every_map(len(inputs["image"])))
  log_prob = policy.score(params, inputs, every).log_prob
  plain = jnp.all((every == 0) | ~inputs["ignored"][:, None], axis=(2, 3))
  return jnp.where(plain, jnp.exp(log_prob.sum(-1)), 0.0)


def test_samples_follow_their_score(tiny):
  policy, params, inputs = tiny
  number = 20_000
  likely = np.asarray(jax.jit(likelihoods, static_argnums=0)(*tiny), np.float64)
  np.testing.assert_allclose(likely.sum(axis=1), 1, rtol=1e-5)
  assert np.abs(likely[0] - likely[1]).max() > 0.02, "the image must matter"
  sampled = jax.jit(policy.sample, static_argnums=3)(params, inputs, jax.random.key(5), number)
  place = 3 ** np.arange(4)[::-1]
  for shares, actions in zip(likely, np.asarray(sampled.actions), strict=True):
    counts = np.bincount(actions.reshape(number, 4) @ place, minlength=81)
    wanted = number * shares / shares.sum()
    assert counts[wanted == 0].sum() == 0
    rare = wanted < 5  # together they are one case
    counts, wanted = ([*x[~rare], x[rare].sum() + 1e-9] for x in (counts, wanted))
    assert stats.chisquare(counts, wanted, sum_check=False).pvalue > 1e-4


@pytest.mark.parametrize("scale", [1.0, 20.0])
def test_labels_are_drawn_as_the_head_draws_them(scale):
  """One class after the other, and all at once; at the larger scale most classes are rare."""
  logits = scale * jax.random.normal(jax.random.key(0), (2, 5, 4, 19))
  key = jax.random.key(1)
  found = jax.jit(drawn, static_argnums=2)(key, logits, 500)
  want = jax.jit(heads.categorical.sample, static_argnums=2)(key, logits, 500)
  assert len(np.unique(found)) > 15
  assert np.mean(found != want) < 1e-4  # where numbers of 24 bits are added in another order


@pytest.mark.parametrize("common_first", [True, False])
def test_rare_classes_are_drawn_as_often_as_they_are_likely(common_first):
  """400 classes of 2e-7, in a million samples of a pixel."""
  rare, common = np.full(400, np.log(2e-7)), np.full(3, np.log((1 - 8e-5) / 3))
  logits = np.concatenate([common, rare] if common_first else [rare, common])
  given = jnp.asarray(logits, jnp.float32)[None, None, None]
  labels_N = np.asarray(jax.jit(drawn, static_argnums=2)(jax.random.key(0), given, 1_000_000))
  seen = labels_N[logits[labels_N] < -10]
  assert abs(len(seen) - 80) < 4 * np.sqrt(80)
  assert len(set(seen.tolist())) > 0.8 * len(seen)


def test_impossible_classes_are_never_drawn_and_a_sure_one_always():
  one_way = jnp.array([-jnp.inf, 0.0, -jnp.inf, 1.0, -jnp.inf])[None, None, None]
  labels_N = jax.jit(drawn, static_argnums=2)(jax.random.key(0), one_way, 5000)
  assert set(np.unique(labels_N)) == {1, 3}
  sure = jnp.array([-100.0, 50.0, -100.0])[None, None, None]
  assert np.all(np.asarray(jax.jit(drawn, static_argnums=2)(jax.random.key(0), sure, 1000)) == 1)


def test_sampled_log_prob_is_that_of_the_score(small):
  policy, params, inputs, sampled = small
  scored = policy.score(params, inputs, sampled.actions)
  assert sampled.actions.shape == (2, 4, 12, 10) and sampled.actions.dtype == jnp.int32
  assert sampled.log_prob.shape == scored.log_prob.shape == scored.mask.shape == (2, 4, 120)
  np.testing.assert_allclose(sampled.log_prob, scored.log_prob, atol=1e-5)
  assert len(np.unique(sampled.actions)) == 5
  assert np.any(np.asarray(sampled.actions[:, 0] != sampled.actions[:, 1]))


def test_scores_entropy_and_divergence_are_their_definitions(small):
  policy, params, inputs, sampled = small
  other = jax.tree.map(lambda x: 0.5 * x, params)
  scored, reference = (policy.score(p, inputs, sampled.actions) for p in (params, other))
  assert scored.outputs["logits"].shape == (2, 1, 12, 10, 5)

  def shares(scored):
    odds = np.exp(np.asarray(scored.outputs["logits"], np.float64))
    return (odds / odds.sum(-1, keepdims=True)).reshape(2, 1, 120, 5)

  p, q = shares(scored), shares(reference)
  counted = ~np.asarray(inputs["ignored"]).reshape(2, 1, 120)
  chosen = np.asarray(sampled.actions).reshape(2, 4, 120)
  taken = np.take_along_axis(np.broadcast_to(p, (2, 4, 120, 5)), chosen[..., None], -1)[..., 0]
  np.testing.assert_allclose(scored.log_prob, np.log(taken) * counted, atol=1e-5)
  np.testing.assert_array_equal(scored.mask, np.broadcast_to(counted, (2, 4, 120)))
  for found, want in (
    (policy.entropy(scored), -(p * np.log(p)).sum(-1)),
    (policy.divergence(scored, reference), (p * np.log(p / q)).sum(-1)),
  ):
    assert found.shape == (2, 4, 120)
    np.testing.assert_allclose(found, np.broadcast_to(want, (2, 4, 120)), atol=1e-5)


def test_best_is_the_mode(tiny, small):
  policy, params, inputs = tiny
  likely = np.asarray(likelihoods(policy, params, inputs))
  mode = every_map(2)[np.arange(2), np.argmax(likely, axis=1)]
  best = np.asarray(policy.best(params, inputs))
  np.testing.assert_array_equal(np.where(inputs["ignored"], 0, best), mode)
  policy, params, inputs, sampled = small
  logits = policy.score(params, inputs, sampled.actions).outputs["logits"][:, 0]
  np.testing.assert_array_equal(policy.best(params, inputs), np.argmax(logits, axis=-1))


def test_labels_of_ignored_pixels_change_nothing(small):
  policy, params, inputs, sampled = small
  ignored = np.broadcast_to(inputs["ignored"][:, None], sampled.actions.shape)
  assert not np.asarray(sampled.actions)[ignored].any()
  assert not np.asarray(sampled.log_prob)[ignored.reshape(2, 4, -1)].any()

  @jax.jit
  def all_of(params, actions):
    scored = policy.score(params, inputs, actions)
    weights = jnp.sin(jnp.arange(scored.log_prob.size, dtype=jnp.float32))
    return jnp.sum(scored.log_prob * weights.reshape(scored.log_prob.shape)), scored

  results = []
  for label in (0, 4, -1, 255):
    actions = jnp.where(ignored, label, sampled.actions)
    results.append(jax.value_and_grad(all_of, has_aux=True)(params, actions))
  for result in results[1:]:
    jax.tree.map(np.testing.assert_array_equal, result, results[0])


def test_the_image_is_encoded_once_for_all_samples(tiny):
  policy, params, inputs = tiny
  program = jax.jit(policy.sample, static_argnums=3).lower(params, inputs, jax.random.key(0), 7)
  products = re.findall(r"dot_general .*-> (\S+)", program.as_text())
  assert products == ["tensor<2x2x2x3xf32>"]


@pytest.mark.parametrize("samples", [4, 8])
def test_compiled_samples_are_those_of_plain_operations(tiny, samples):
  policy, params, inputs = tiny

  def draw(params, inputs, key):
    return policy.sample(params, inputs, key, samples)

  given = params, inputs, jax.random.key(3)
  with all_optimizations():
    compiled = jax.jit(draw)(*given)
  jax.tree.map(
    lambda one, other: np.testing.assert_allclose(one, other, atol=1e-5), compiled, draw(*given)
  )


# ---- Gradients


def gradients(policy, params, inputs, tables, samples: int, copies: int, steps: int):
  """Of REINFORCE, by advantage and by kind of reward: leaves [steps, ...]."""
  inputs = jax.tree.map(lambda x: jnp.repeat(x, copies, axis=0), inputs)
  tables = jax.tree.map(lambda x: jnp.repeat(x, copies, axis=0), tables)
  best = jnp.where(inputs["ignored"], 0, policy.best(params, inputs))[:, None]
  greedy = {kind: judge(kind, tables, best)[:, 0] for kind in tables}

  def one(key):
    sampled: Sampled = policy.sample(params, inputs, key, samples)
    valid = jnp.ones(sampled.actions.shape[:2], bool)
    found = {}
    for kind, name in itertools.product(tables, ADVANTAGES):
      rewards = judge(kind, tables, sampled.actions)
      function = advantages.named(name)
      compared = advantages.advantages(function, rewards, valid, greedy=greedy[kind])

      def loss(params, compared=compared):
        return losses.reinforce(policy.score(params, inputs, sampled.actions), compared)

      found[kind, name] = jax.grad(loss)(params)
    return found

  return jax.jit(lambda keys: jax.lax.map(one, keys))(jax.random.split(jax.random.key(1), steps))


def judge(kind: str, tables, actions):
  """Rewards [B, S] that depend on all of a map, or what each pixel earned [B, S, T]."""
  batch, samples = actions.shape[:2]
  flat = actions.reshape(batch, samples, 4)
  if kind == "whole":
    place = jnp.sum(flat * jnp.asarray([27, 9, 3, 1])[None, None], axis=-1)
    return jnp.take_along_axis(tables[kind], place, axis=1)
  return jnp.take_along_axis(tables[kind][:, None], flat[..., None], axis=-1)[..., 0]


@pytest.fixture(scope="module")
def measured(tiny):
  """Tables of rewards, and the gradients of many REINFORCE steps."""
  rng = np.random.default_rng(0)
  tables = {
    "whole": jnp.asarray(rng.normal(size=(2, 81)), jnp.float32),
    "credit": jnp.asarray(rng.normal(size=(2, 4, 3)), jnp.float32),
  }
  return tables, jax.device_get(gradients(*tiny, tables, samples=4, copies=48, steps=40))


@pytest.fixture(scope="module")
def exact(tiny, measured):
  """Minus the gradient of the expected reward, over the number of pixels: all maps are listed."""
  policy, params, inputs = tiny
  every = jnp.asarray(every_map(2))

  def expected(params, kind):
    rewards = judge(kind, measured[0], every)
    rewards = rewards if kind == "whole" else counted(rewards, inputs).sum(-1)
    return -jnp.mean(jnp.sum(likelihoods(policy, params, inputs) * rewards, axis=1)) / 4

  grad = jax.jit(jax.grad(expected), static_argnums=1)
  return {kind: jax.device_get(grad(params, kind)) for kind in measured[0]}


def counted(credit, inputs):
  return jnp.where(inputs["ignored"].reshape(2, 1, 4), 0.0, credit)


@pytest.mark.parametrize("advantage", ADVANTAGES)
@pytest.mark.parametrize("kind", ["whole", "credit"])
def test_gradient_of_the_expected_reward(measured, exact, kind, advantage):
  """Its length along the exact gradient, and each number, within a few standard errors."""
  found = [x.reshape(len(x), -1) for x in jax.tree.leaves(measured[1][kind, advantage])]
  rows = np.concatenate(found, axis=1).astype(np.float64)
  shrink = 1 - 1 / 4 if advantage == "group_mean" else 1
  want = shrink * np.concatenate([x.ravel() for x in jax.tree.leaves(exact[kind])])
  length = rows @ want / (want @ want)
  error, length_error = (x.std(axis=0, ddof=1) / np.sqrt(len(rows)) for x in (rows, length))
  assert np.all(np.abs(rows.mean(axis=0) - want) <= 5 * error + 1e-6)
  assert abs(length.mean() - 1) <= 4 * length_error
  assert length_error < 0.08, "a gradient of another length would pass"


# ---- What is in memory


def large_arrays(compiled, size: int) -> list[str]:
  """Lines of a compiled program that put an array of so many numbers into memory."""
  text = compiled.as_text()
  fused = set(re.findall(r" fusion\(.*calls=(%[\w.-]+)", text))
  found, inside = [], ""
  for line in text.splitlines():
    if line.endswith("{"):
      inside = line.split()[0]
    _, _, made = line.partition(" = ")
    made = made.partition(") " if made.startswith("(") else "(")[0]
    arrays = re.findall(r"\w+\[([\d,]+)\]", made)
    largest = max((np.prod([int(n) for n in shape.split(",")]) for shape in arrays), default=0)
    if inside not in fused and largest >= size:
      found.append(line.strip())
  return found


@pytest.mark.parametrize("what", ["sample", "gradient"])
def test_nothing_has_a_number_for_each_class_of_each_sample(what):
  batch, samples, height, width, classes = 2, 8, 14, 10, 150
  policy = labels(Labels(height, width, classes), network=BY_COLOR)
  inputs = inputs_of(height, width, batch)
  params = jit_once(policy.init)(jax.random.key(0), inputs)
  actions = jnp.zeros((batch, samples, height, width), jnp.int32)

  def loss(params, actions, advantages):
    scored = policy.score(params, inputs, actions)
    return losses.reinforce(scored, advantages) + jnp.mean(policy.entropy(scored))

  with all_optimizations():
    if what == "sample":
      program = jax.jit(policy.sample, static_argnums=3)
      compiled = program.lower(params, inputs, jax.random.key(0), samples).compile()
    else:
      given = params, actions, jnp.ones((batch, samples, height * width))
      compiled = jax.jit(jax.grad(loss)).lower(*given).compile()
  numbers = batch * samples * height * width * classes
  assert large_arrays(compiled, numbers // classes), "the samples themselves are seen"
  assert not large_arrays(compiled, numbers)
  assert compiled.memory_analysis().temp_size_in_bytes < numbers * 4


# ---- Windows


def by_hand(apply, image, window, stride):
  """Logits averaged over windows, one after the other."""
  height, width = image.shape[1:3]
  total, times = 0.0, np.zeros((height, width))
  for row, column in itertools.product(
    [*range(0, height - window[0], stride[0]), height - window[0]],
    [*range(0, width - window[1], stride[1]), width - window[1]],
  ):
    place = slice(row, row + window[0]), slice(column, column + window[1])
    whole = np.zeros((len(image), height, width, 5))
    whole[:, *place] = apply(image[:, *place])
    total = total + whole
    times[place] += 1
  assert times.min() == 1 and times.max() > 1
  return total / times[None, :, :, None]


@pytest.fixture(scope="module", params=[UNET, DEEPLAB], ids=["unet", "deeplab"])
def windowed(request):
  """A policy with windows, the same without, parameters, and images that do not fit."""
  space = Labels(24, 20, 5)
  seen = labels(space, network=request.param, window=[8, 9], stride=[5, 4])
  whole = labels(space, network=request.param)
  inputs = inputs_of(24, 20)
  return seen, whole, random_params(whole, inputs_of(8, 9), 0.2), inputs


def test_windows_are_averaged_where_they_overlap(windowed):
  seen, whole, params, inputs = windowed
  actions = jnp.zeros((2, 1, 24, 20), jnp.int32)
  outputs = jax.jit(seen.score)(params, inputs, actions).outputs

  @jax.jit
  def apply(image):
    part = {"image": image, "ignored": jnp.zeros(image.shape[:3], bool)}
    found = whole.score(params, part, jnp.zeros((2, 1, 8, 9), jnp.int32)).outputs
    return {name: x[:, 0] for name, x in found.items()}

  for name, logits in outputs.items():
    want = by_hand(lambda part, name=name: apply(part)[name], inputs["image"], (8, 9), (5, 4))
    np.testing.assert_allclose(logits[:, 0], want, atol=1e-5)
  best = np.asarray(jax.jit(seen.best)(params, inputs))
  np.testing.assert_array_equal(best, np.argmax(outputs["logits"][:, 0], axis=-1))
  assert np.any(best != jax.jit(whole.best)(params, inputs)), "windows must matter here"


@pytest.mark.parametrize("size", [(8, 9), (6, 9), (8, 5)])
def test_an_image_that_fits_is_seen_as_a_whole(windowed, size):
  seen, whole, params, _ = windowed
  inputs = inputs_of(*size)
  actions = jnp.ones((2, 1, *size), jnp.int32)
  one, other = (jax.jit(policy.score)(params, inputs, actions) for policy in (seen, whole))
  jax.tree.map(np.testing.assert_array_equal, one, other)


def test_samples_through_windows_are_those_of_the_score(windowed):
  seen, _, params, inputs = windowed
  sampled = jax.jit(seen.sample, static_argnums=3)(params, inputs, jax.random.key(0), 3)
  scored = jax.jit(seen.score)(params, inputs, sampled.actions)
  np.testing.assert_allclose(sampled.log_prob, scored.log_prob, atol=1e-5)


def test_an_image_narrower_than_a_window_but_higher():
  policy = labels(Labels(24, 6, 5), network=UNET, window=(8, 9))
  whole = labels(Labels(24, 6, 5), network=UNET)
  inputs = inputs_of(24, 6)
  params = random_params(policy, inputs)

  def apply(image):
    part = {"image": image, "ignored": jnp.zeros(image.shape[:3], bool)}
    return whole.score(params, part, jnp.zeros((2, 1, 8, 6), jnp.int32)).outputs["logits"][:, 0]

  found = policy.score(params, inputs, jnp.zeros((2, 1, 24, 6), jnp.int32)).outputs["logits"]
  want = by_hand(jax.jit(apply), inputs["image"], (8, 6), (6, 6))  # two thirds of 8, rounded up
  np.testing.assert_allclose(found[:, 0], want, atol=1e-5)


@pytest.mark.parametrize(
  ("size", "window", "stride", "want"),
  [
    (10, 4, 3, [0, 3, 6]),
    (11, 4, 3, [0, 3, 6, 7]),
    (5, 4, 4, [0, 1]),
    (4, 4, 4, [0]),
    (8, 4, 4, [0, 4]),
  ],
)
def test_the_last_window_ends_where_the_image_does(size, window, stride, want):
  assert windows.starts(size, window, stride) == want


def test_windows_take_the_memory_of_one():
  def temporary(side: int, window=()) -> int:
    policy = labels(Labels(side, side, 2), network=UNET, window=window)
    inputs = {
      "image": jax.ShapeDtypeStruct((1, side, side, 3), jnp.uint8),
      "ignored": jax.ShapeDtypeStruct((1, side, side), jnp.bool_),
    }
    params = jax.eval_shape(policy.init, jax.random.key(0), inputs)
    compiled = jax.jit(policy.best).lower(params, inputs).compile()
    return compiled.memory_analysis().temp_size_in_bytes

  with all_optimizations():
    logits = 4 * 2 * 256**2  # of the whole image, which are added up
    assert temporary(256, (64, 64)) < temporary(64) + 3 * logits < temporary(256) / 1.5


def test_parameters_are_made_for_a_window():
  """However large the images are that are at hand: a ViT has a position for each patch."""
  network = {
    "fn": "rtune.models.vit_dense:linear",
    "args": {"encoder": {"patch_size": 4, "width": 8, "depth": 1, "num_heads": 2, "mlp_dim": 8}},
  }
  policy = labels(Labels(8, 8, 5), network=network, window=(8, 8))
  params = jax.eval_shape(policy.init, jax.random.key(0), inputs_of(24, 20))
  assert params["encoder"]["pos_embedding"].shape == (1, 4, 8)


def test_each_window_has_its_own_dropout():
  def see(image, key):
    return jax.random.normal(key, (*image.shape[:3], 1))

  image = jnp.zeros((1, 8, 4, 3), jnp.uint8)
  seen = windows.averaged(see, image, jax.random.key(0), (4, 4), (4, 4))
  assert np.all(seen[:, :4] != seen[:, 4:])


# ---- Settings


def no_network(classes: int):
  return classes


@pytest.mark.parametrize(
  ("args", "message"),
  [
    ({"network": {"fn": UNET["fn"], "args": {"widht": 4}}}, "network.args.widht. Did you mean"),
    ({"network": {"fn": UNET["fn"], "args": {"width": "4"}}}, "network.args.width must be int"),
    ({"network": {"name": "unet"}}, "network.name"),
    ({"network": {"fn": f"{__file__}:no_network"}}, "network.fn"),
    ({"window": [8]}, "window is (8,); give height and width"),
    ({"window": [8, 0]}, "window is (8, 0)"),
    ({"window": [8, 8], "stride": [9, 8]}, "stride=(9, 8) is larger than"),
    ({"stride": [9, 8]}, "stride is (9, 8), but there is no"),
  ],
)
def test_wrong_settings_are_one_line(args, message):
  with pytest.raises(UsageError) as caught:
    labels(TINY, **args)
  assert f"config.policy.args.{message}" in str(caught.value)
  assert "\n" not in str(caught.value)

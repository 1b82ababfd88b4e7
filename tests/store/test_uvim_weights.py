"""Published UViM weights: they load by name, and the model then says what the reference said.

tests/golden/uvim.py made the weights, inputs and outputs.
"""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rtune import config as configs
from rtune.devices.compiling import jit_once
from rtune.errors import UsageError
from rtune.models.codes import code_model
from rtune.models.encoder_decoder import build
from rtune.policies.tokens import autoregressive
from rtune.store import uvim_weights, weights

SIZE, CHANNELS = 16, (("semantics", 3), ("instances", 4))
GOLDEN = dict(np.load(pathlib.Path(__file__).resolve().parents[1] / "golden" / "uvim.npz"))
IMAGES = jnp.asarray(GOLDEN["images"])
SETTINGS = {
  "patch_size": 4,
  "code_length": 4,
  "width": 16,
  "encoder_depth": 1,
  "decoder_depth": 1,
  "num_heads": 2,
  "mlp_dim": 32,
  "dict_size": 8,
  "codeword_dim": 8,
}
POLICY = configs.Model(
  encoder=configs.Encoder(patch_size=4, width=16, depth=1, num_heads=2, mlp_dim=32),
  decoder=configs.Decoder(width=16, depth=1, num_heads=2, mlp_dim=32),
)


def part(name):
  """The golden arrays below a name."""
  return {key[len(name) + 1 :]: v for key, v in GOLDEN.items() if key.startswith(f"{name}/")}


def stage1(resize=True):
  matrices = ("params/bottleneck_downsample", "params/bottleneck_upsample")
  return {k: v for k, v in part("stage1").items() if not (resize and k in matrices)}


def save(path, arrays):
  np.savez(path, **arrays)
  return path


def template(size=SIZE, **settings):
  model = code_model(configs.CodeSizes(**{**SETTINGS, **settings}), size, CHANNELS)
  return model, jax.eval_shape(model.init, jax.random.key(0))


def one_hot(labels, count):
  return jax.nn.one_hot(labels, count, axis=-2)


@pytest.mark.parametrize("resize", [True, False])
def test_code_model_agrees_with_the_reference(tmp_path, resize):
  model, shapes = template(resize=resize)
  path = save(tmp_path / "panoptic_stageI_params.npz", stage1(resize))
  variables = uvim_weights.load_codes(path, shapes)
  expected, images = part("resize" if resize else "matrix"), IMAGES
  labels = {name: one_hot(GOLDEN[f"labels/{name}"], count) for name, count in CHANNELS}
  codes = jax.jit(model.encode)(variables, labels, images)
  np.testing.assert_array_equal(codes, expected["codes"])
  decoded = jax.jit(model.decode)(variables, codes, images)
  for name, _ in CHANNELS:
    np.testing.assert_allclose(decoded[name], expected[f"logits/{name}"], atol=1e-4)
  _, found = jax.jit(model.train)(variables, labels, images, jax.random.key(0))
  np.testing.assert_allclose(found.vectors, expected["vectors"], atol=1e-4)
  state, _ = jax.jit(model.learn)(variables["state"], found, jax.random.key(0))
  for name in ("dictionary", "counts"):
    np.testing.assert_allclose(state[name], expected[f"after/{name}"], atol=1e-4)


@pytest.mark.parametrize("prefix", ["params/", "opt/target/", ""])
def test_policy_agrees_with_the_reference(tmp_path, prefix):
  arrays = {f"{prefix}{k.removeprefix('params/')}": v for k, v in part("stage2").items()}
  network = build(POLICY, vocab_size=9, max_length=4)
  policy = autoregressive(network, 4, None)
  shapes = jax.eval_shape(policy.init, jax.random.key(0), IMAGES)
  loaded = uvim_weights.load_policy(save(tmp_path / "panoptic_stageII_params.npz", arrays))
  params = weights.merge(shapes, loaded)
  scored = jax.jit(policy.score)(params, IMAGES, jnp.asarray(GOLDEN["tokens"])[:, None])
  np.testing.assert_allclose(scored.outputs[:, 0], GOLDEN["policy/logits"], atol=1e-4)


def test_weights_of_the_first_files_have_other_names(tmp_path):
  old = {"params/encoder/": "params/Encoder/", "params/decoder/": "params/Decoder/"}
  arrays = {}
  for name, value in stage1().items():
    for new, theirs in old.items():
      name = theirs + name.removeprefix(new) if name.startswith(new) else name
    arrays[name] = value
  assert "params/Encoder/encoder_norm/scale" in arrays
  shapes = template()[1]
  loaded = uvim_weights.load_codes(save(tmp_path / "old.npz", arrays), shapes)
  expected = uvim_weights.load_codes(save(tmp_path / "new.npz", stage1()), shapes)
  jax.tree.map(np.testing.assert_array_equal, loaded, expected)


def test_positions_fit_another_resolution(tmp_path):
  said = []
  path = save(tmp_path / "w.npz", stage1())
  loaded = uvim_weights.load_codes(path, template(size=32)[1], said.append)
  small = GOLDEN["stage1/params/pos_embedding_encoder"].astype(np.float32)
  expected = weights.resize_grid(small, 8)
  np.testing.assert_allclose(loaded["params"]["pos_embedding_encoder"], expected, atol=1e-3)
  assert [line for line in said if "pos_embedding_decoder resized from a grid of 4 x 4" in line]


def test_what_does_not_fit_is_a_table(tmp_path):
  path = save(tmp_path / "w.npz", stage1(resize=False))
  with pytest.raises(UsageError) as caught:
    uvim_weights.load_codes(path, template(dict_size=9)[1])
  rows = [line.split("  ") for line in str(caught.value).splitlines()]
  rows = {tuple(cell.strip() for cell in row if cell.strip()) for row in rows}
  assert ("state/dictionary", "[8, 8]", "[9, 8]") in rows
  assert ("params/bottleneck_upsample", "[4, 16]", "-") in rows
  assert "config.task.args.codes" in str(caught.value)
  at = "--config.task.args.codes"
  assert str(caught.value).endswith(f"These would fit: {at}.dict_size=8 {at}.resize=False")


def test_other_sizes_of_a_code_model_end_with_the_settings_that_would_fit(tmp_path):
  path = save(tmp_path / "w.npz", stage1())
  with pytest.raises(UsageError) as caught:
    uvim_weights.load_codes(path, template(encoder_depth=2, mlp_dim=24, num_heads=4)[1])
  at = "--config.task.args.codes"
  flags = f"{at}.encoder_depth=1 {at}.num_heads=2 {at}.mlp_dim=32"
  assert str(caught.value).endswith(f"These would fit: {flags}")


def test_a_policy_is_not_a_code_model(tmp_path):
  path = save(tmp_path / "stageII.npz", part("stage2"))
  with pytest.raises(UsageError, match="are not a code model's: state/dictionary is not there"):
    uvim_weights.load_codes(path, template()[1])


def test_our_own_code_model_loads(tmp_path):
  model, shapes = template()
  variables = jit_once(model.init)(jax.random.key(3))
  weights.save_weights(tmp_path / "codes.safetensors", variables, {"phase": "codes"})
  loaded = uvim_weights.load_codes(tmp_path / "codes.safetensors", shapes)
  jax.tree.map(np.testing.assert_array_equal, loaded, variables)

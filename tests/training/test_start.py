"""Weights that a run starts from are checked in full before anything trains or is written."""

import dataclasses
import pathlib

import jax
import numpy as np
import pytest

from rtune.config.load import load_config
from rtune.errors import DataError, UsageError
from rtune.policies.networks import PATH
from rtune.store import vit_weights, weights
from rtune.training import loop, start
from rtune.training.setup import prepare

CONFIGS = pathlib.Path(__file__).resolve().parents[2] / "configs"
AT = "--config.model"


def config_of(name, **settings):
  return load_config(f"{CONFIGS}/{name}", [(key, str(value)) for key, value in settings.items()])


@pytest.fixture(scope="module")
def another_model(tmp_path_factory, tiny_run):
  """A file of a detector whose encoder has other heads and whose decoder is deeper."""
  leaves = weights.flatten(weights.load_weights(tiny_run / "weights" / "mle.safetensors"))
  changed = {}
  for name, leaf in leaves.items():
    if name.startswith("encoder/") and "/MultiHeadDotProductAttention_0/" in name:
      sizes = {2: 4, 16: 8}  # twice as many heads, half as wide
      leaf = leaf.reshape([sizes.get(size, size) for size in leaf.shape])
    changed[name] = leaf
    if "/EncDecBlock0/" in name:
      changed[name.replace("/EncDecBlock0/", "/EncDecBlock1/")] = leaf
  path = tmp_path_factory.mktemp("another") / "mle.safetensors"
  weights.save_weights(path, weights.nest(changed), {})
  return path


@pytest.mark.parametrize("key", ["encoder_init", "init_from", "warm_start"])
def test_weights_that_do_not_fit_end_with_what_would(key, another_model, tmp_path):
  config = config_of("detection_recall.py:tiny", **{key: another_model})
  with pytest.raises(UsageError) as caught:
    loop.run(config, str(tmp_path / "run"))
  decoder = "" if key == "encoder_init" else f" {AT}.decoder.depth=2"
  assert str(caught.value).endswith(f"These would fit: {AT}.encoder.num_heads=4{decoder}")
  assert not (tmp_path / "run").exists()


def test_the_first_phase_does_not_begin_without_the_weights_of_the_second(another_model, tmp_path):
  config = config_of("colorization_vivid.py:tiny", encoder_init=another_model)
  assert config.phases[0] == "codes"
  with pytest.raises(UsageError, match=r"These would fit: .*--config\.model\.encoder\.num_heads=4"):
    loop.run(config, str(tmp_path / "run"))
  assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["vit.patch_embed.proj.weight", "embedding"])
def test_an_encoder_alone_is_no_policy(name, tmp_path):
  leaves = {name: np.ones((3, 2)), "Transformer": np.ones(3)}
  weights.save_weights(tmp_path / "vit.safetensors", leaves, {})
  config = config_of("detection_recall.py:tiny", init_from=tmp_path / "vit.safetensors")
  with pytest.raises(UsageError, match=r"vit\.safetensors: .* Give a ViT as config.encoder_init"):
    loop.run(config, str(tmp_path / "run"))


def test_an_encoder_that_is_no_vit_takes_none(tmp_path, tiny_run):
  """A network of one's own may have parameters of that name."""
  with pytest.raises(UsageError, match="encoder_init is for ViTs, and this encoder is none"):
    vit_weights.load_encoder(tiny_run / "weights" / "mle.safetensors", {"conv": np.ones(3)})


def test_values_that_are_not_finite_are_found_before_training(tiny_run, tmp_path):
  tree = weights.load_weights(tiny_run / "weights" / "mle.safetensors")
  tree["decoder"]["pos_embedding"] = np.full_like(tree["decoder"]["pos_embedding"], np.inf)
  weights.save_weights(tmp_path / "w.safetensors", tree, {})
  config = config_of("detection_recall.py:tiny", init_from=tmp_path / "w.safetensors")
  with pytest.raises(DataError, match="values of decoder/pos_embedding are not finite"):
    loop.run(config, str(tmp_path / "run"))
  assert not (tmp_path / "run").exists()


def test_an_encoder_of_the_home_folder_is_taken(tiny_run, tmp_path, monkeypatch):
  monkeypatch.setenv("HOME", str(tmp_path))
  tree = weights.load_weights(tiny_run / "weights" / "mle.safetensors")["encoder"]
  weights.save_weights(tmp_path / "mine.safetensors", {"encoder": tree}, {})
  setup = prepare(config_of("detection_recall.py:tiny", encoder_init="~/mine.safetensors"))
  start.check(setup, tmp_path / "run")
  params = start.policy(setup, tmp_path / "run")
  jax.tree.map(np.testing.assert_array_equal, jax.device_get(params["encoder"]), tree)


def test_settings_of_a_network_for_label_maps_are_named(tmp_path, another_model):
  network = {"fn": "rtune.models.vit_dense:linear", "args": {"encoder": {"patch_size": 8}}}
  sizes = {"width": 32, "depth": 1, "num_heads": 2, "mlp_dim": 32, "conv_stem": True}
  network["args"]["encoder"] |= sizes
  config = config_of("segmentation_miou.py:tiny", encoder_init=another_model)
  policy = dataclasses.replace(config.policy, args={**config.policy.args, "network": network})
  config = dataclasses.replace(config, policy=policy)
  with pytest.raises(UsageError) as caught:
    loop.run(config, str(tmp_path / "run"))
  assert f'--{PATH}.network.args.encoder="{{' in str(caught.value)
  assert "'num_heads': 4" in str(caught.value)

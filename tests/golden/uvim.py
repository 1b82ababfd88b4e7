"""Records what the reference implementation of UViM says on small random weights.

In a checkout of https://github.com/google-research/big_vision (0127fb6) with flax and without need
of TensorFlow: PYTHONPATH=. python .../tests/golden/uvim.py; it writes uvim.npz beside this file.
Names below `stage1/` and `stage2/` are those of the published checkpoints.
"""

import importlib
import pathlib
import sys
import types

import flax.training.checkpoints  # looks for TensorFlow, so it comes before `reference`
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

SIZE, PATCH, CODES, WORDS, WIDTH = 16, 4, 4, 8, 8
CHANNELS = {"semantics": 3, "instances": 4}


def reference():
  """The two modules of the reference, without what its utils import for files in the cloud."""
  stubs = ("tensorflow", "tensorflow.io", "tensorflow.io.gfile", "big_vision.pp.registry")
  for name in stubs:
    sys.modules[name] = types.ModuleType(name)
  sys.modules["big_vision.pp.registry"].Registry = None
  modules = [importlib.import_module(f"big_vision.models.proj.uvim.{n}") for n in ("vit", "vtt")]
  for name in stubs:
    del sys.modules[name]
  return modules


def random_like(tree, rng):
  """Random weights, exact in half precision to keep the file small; scales of norms near 1."""
  flat = flax.traverse_util.flatten_dict(tree, sep="/")
  return {
    f"params/{name}": (0.3 * rng.normal(size=leaf.shape) + name.endswith("scale")).astype("f2")
    for name, leaf in sorted(flat.items())
  }


def as_tree(flat):
  leaves = {name: jnp.asarray(leaf, jnp.float32) for name, leaf in flat.items()}
  return flax.traverse_util.unflatten_dict(leaves, sep="/")


def code_model(resize):
  shapes = {name: (count, PATCH**2) for name, count in CHANNELS.items()}
  return reference()[0].Model(
    inputs=shapes,
    outputs=shapes,
    input_size=(SIZE, SIZE),
    patch_size=(PATCH, PATCH),
    code_len=CODES,
    width=16,
    enc_depth=1,
    dec_depth=1,
    mlp_dim=32,
    num_heads=2,
    dict_size=WORDS,
    codeword_dim=WIDTH,
    statistics_axis_name=None,
    with_encoder_ctx=True,
    with_decoder_ctx=True,
    bottleneck_resize=resize,
  )


def stage1(resize, weights, labels, image, rngs):
  """What the code model makes of labels, and its dictionary after a step of training."""
  model = code_model(resize)
  unused = () if not resize else ("params/bottleneck_downsample", "params/bottleneck_upsample")
  variables = as_tree({name: leaf for name, leaf in weights.items() if name not in unused})
  (_, out), changed = model.apply(
    variables, labels, ctx=image, train=True, rngs=rngs, mutable=["state"]
  )
  logits, _ = model.apply(
    variables, out["code"], ctx=image, discrete_input=True, method=model.decode
  )
  return {
    "codes": out["code"],
    "vectors": out["bottleneck"],
    **{f"logits/{name}": value for name, value in logits.items()},
    **{f"after/{name}": value for name, value in changed["state"].items()},
  }


def main():
  rng = np.random.default_rng(0)
  images = rng.integers(0, 256, (2, SIZE, SIZE, 3)).astype(np.uint8)
  scaled = jnp.asarray(images, jnp.float32) / 127.5 - 1.0
  pixels = {name: rng.integers(0, n, (2, 16, PATCH**2)) for name, n in CHANNELS.items()}
  labels = {name: jax.nn.one_hot(pixels[name], n, axis=-2) for name, n in CHANNELS.items()}
  names = ("params", "state", "vqvae", "dropout")
  rngs = dict(zip(names, jax.random.split(jax.random.key(0), 4), strict=True))

  variables = code_model(False).init(rngs, labels, ctx=scaled)
  first = random_like(variables["params"], rng)
  first["state/dictionary"] = rng.normal(size=(WORDS, WIDTH)).astype(np.float16)
  first["state/counts"] = rng.uniform(1, 5, WORDS).astype(np.float16)
  arrays = {f"labels/{name}": value.astype(np.uint8) for name, value in pixels.items()}
  for name, resize in (("resize", True), ("matrix", False)):
    outputs = stage1(resize, first, labels, scaled, rngs)
    arrays |= {f"{name}/{key}": value for key, value in outputs.items()}

  policy = reference()[1].Model(
    patches=ml_collections.ConfigDict({"size": (PATCH, PATCH)}),
    num_heads=2,
    num_layers=1,
    mlp_dim=32,
    emb_dim=16,
    vocab_size=WORDS + 1,
    seq_len=CODES,
    input_size=(SIZE, SIZE),
    posemb_type="learn",
  )
  tokens = rng.integers(1, WORDS + 1, (2, CODES)).astype(np.int32)
  second = random_like(policy.init(rngs, scaled, tokens)["params"], rng)
  logits = policy.apply(as_tree(second), scaled, tokens)

  arrays |= {f"stage1/{name}": leaf for name, leaf in first.items()}
  arrays |= {f"stage2/{name}": leaf for name, leaf in second.items()}
  arrays |= {"images": images, "tokens": tokens, "policy/logits": logits}
  np.savez_compressed(pathlib.Path(__file__).with_suffix(".npz"), **arrays)


if __name__ == "__main__":
  main()

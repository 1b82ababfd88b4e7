"""The programs of GPUs can be written down without one: nothing in them is missing there.

They are lowered, not compiled: what the kernels compute, tests/gpu says where there is a GPU.
"""

import jax
import jax.numpy as jnp
import pytest
from jax._src.cudnn import fused_attention_stablehlo as kernel

from rtune import config as configs
from rtune.benchmark import decode
from rtune.models import attention

SETTING = decode.Setting(
  model=configs.Model(
    encoder=configs.Encoder(patch_size=16, width=64, depth=1, num_heads=1, mlp_dim=64),
    decoder=configs.Decoder(width=64, depth=2, num_heads=1, mlp_dim=64),
    dtype="bfloat16",
    cache_block=8,
  ),
  vocab_size=31,
  image_size=64,
  length=16,
  batch=2,
  samples=2,
)


@pytest.fixture
def ready(monkeypatch):
  # What asks the GPU that is not here: whether it has the kernel, and which cuDNN.
  monkeypatch.setattr(attention, "has_kernel", attention.takes)
  monkeypatch.setattr(kernel, "check_cudnn_version", lambda: 91100)
  return decode.make_ready(SETTING)


def lowered(function, *given, **options):
  return jax.jit(function, **options).trace(*given).lower(lowering_platforms=("cuda",)).as_text()


def test_sampling_lowers_for_cuda(ready):
  given = ready.params, ready.images, jax.random.key(0), SETTING.samples
  text = lowered(ready.policy.sample, *given, static_argnums=3)
  # The encoder's layer; steps of decoding have one query each, for which there is no use for it.
  assert text.count("call @__cudnn$fmhaSoftmax(") == 1


def test_an_update_lowers_for_cuda(ready):
  actions = jnp.zeros((SETTING.batch, SETTING.samples, SETTING.length), jnp.int32)

  def loss(params):
    return jnp.mean(ready.policy.score(params, ready.images, actions).log_prob)

  text = lowered(jax.value_and_grad(loss), ready.params)
  layers = 1 + 2 * 2  # of the encoder; self-attention and attention to the image of the decoder
  assert text.count("call @__cudnn$fmhaSoftmaxBackward(") == layers

import jax
import jax.numpy as jnp
import numpy as np

from rtune.devices import compiling


def attend(x):
  return jax.nn.softmax(x @ x.T) @ x


def test_options_change_how_and_not_what():
  x = jax.random.normal(jax.random.key(0), (16, 384)) / 20
  options = compiling.of_decoding(384, jnp.dtype("float32"))
  assert (
    "__ynn_fusion" not in jax.jit(attend, compiler_options=options).lower(x).compile().as_text()
  )
  wanted = jax.jit(attend)(x)
  np.testing.assert_allclose(jax.jit(attend, compiler_options=options)(x), wanted, atol=1e-6)
  np.testing.assert_allclose(compiling.jit_once(attend)(x), wanted, atol=1e-6)


def test_narrow_decoders_halves_and_accelerators_need_no_options(monkeypatch):
  assert compiling.of_decoding(64, jnp.dtype("float32")) is None
  assert compiling.of_decoding(384, jnp.dtype("bfloat16")) is None
  monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
  assert compiling.of_decoding(384, jnp.dtype("float32")) is None
  assert compiling.jit_once(jnp.sin)(0.0) == 0


def test_weights_are_drawn_by_one_kernel_on_gpus():
  """And only what runs once is: in a step it could not be fused with what follows."""

  def by_kernel() -> bool:
    draw = jax.jit(lambda key: jax.random.normal(key, (8, 8)))
    lowered = draw.trace(jax.random.key(0)).lower(lowering_platforms=("cuda",))
    return "cu_threefry2x32" in lowered.as_text()

  seen = []

  def once(x):
    seen.append(by_kernel())
    return x

  compiling.jit_once(once)(0.0)
  assert seen == [True]
  assert not by_kernel()

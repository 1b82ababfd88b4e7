"""What a profile says of a program: how often, how long, what kind, and where it comes from."""

import jax
import jax.numpy as jnp
import pytest

from rtune.benchmark import operations
from rtune.benchmark.operations import Operation


def test_a_loop_is_told_by_what_is_in_it():
  matrix = jnp.ones((64, 64))

  @jax.jit
  def repeated(x):
    return jax.lax.fori_loop(0, 7, lambda _, y: jnp.sin(matrix @ y), x)

  compiled = repeated.lower(matrix).compile()
  jax.block_until_ready(repeated(matrix))
  found = operations.profiled(lambda: repeated(matrix))
  (product,) = [one for one in found if one.kind == "matrix product"]
  assert (product.program, product.times) == ("jit_repeated", 7)
  assert product.seconds > 0
  kinds = operations.by_kind(found)["jit_repeated"]
  assert kinds["matrix product"] == {"seconds": product.seconds, "times": 7}
  assert "dot_general" in product.as_dict(operations.sources(compiled.as_text()))["source"]


def test_what_is_called_is_not_counted_twice():
  events = [
    operations._Event(0.0, 10.0, ("p", "while.1")),
    operations._Event(1.0, 4.0, ("p", "dot.1")),
    operations._Event(4.0, 9.0, ("p", "call.2")),
    operations._Event(5.0, 7.0, ("p", "dot.3")),
    operations._Event(12.0, 13.0, ("p", "dot.1")),
  ]
  told = [(name, took) for (_, name), took in operations._own_times(events)]
  assert sorted(told) == [
    ("call.2", 3.0),
    ("dot.1", 1.0),
    ("dot.1", 3.0),
    ("dot.3", 2.0),
    ("while.1", 2.0),
  ]


@pytest.mark.parametrize(
  ("name", "kind"),
  [
    ("gemm_fusion_dot_213", "matrix product"),
    ("nvjet_hsh_128x64", "matrix product"),
    ("ynn_fusion.13", "matrix product"),
    ("cudnn_generated_fort_native_sdpa_sm90_flash_fprop", "attention kernel"),
    ("conv_general_dilated.4", "convolution"),
    ("cudnn-conv-bw-filter.1", "convolution"),
    ("loop_convert_fusion.2", "elementwise"),
    ("input_reduce_fusion_64", "sum over an axis"),
    ("loop_dynamic_update_slice_fusion.40", "copy or turn"),
    ("MemcpyH2D", "copy or turn"),
    ("while.85", "loop"),
    ("loop_add_fusion", "elementwise"),
  ],
)
def test_kinds(name, kind):
  assert Operation("jit_x", name, 1, 1.0).kind == kind


def test_kernels_are_known_under_their_operations():
  text = """HloModule jit_f, is_scheduled=true
  %gemm_fusion_dot.2 = f32[] fusion(x), metadata={op_name="jit(f)/decoder/Dense_0/dot_general"}
  ROOT %add.1 = f32[] add(x, y), metadata={op_name="jit(f)/while/body/jvp(second)/add"}
  """
  found = operations.sources(text)
  kernel = Operation("jit_f", "gemm_fusion_dot_2", 3, 0.5).as_dict(found)
  assert kernel["source"] == "decoder/Dense_0/dot_general"
  assert Operation("jit_f", "add.1", 1, 0.5).as_dict(found)["source"] == "second/add"
  assert Operation("jit_f", "other", 1, 0.5).as_dict(found)["source"] == ""
  # Names are those of one program: another may have the same for something else.
  assert Operation("jit_g", "add.1", 1, 0.5).as_dict(found)["source"] == ""

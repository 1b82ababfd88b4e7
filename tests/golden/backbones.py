"""Makes backbones.json: what torchvision's networks with seeded weights say of a picture.

  pip install torch torchvision
  python tests/golden/backbones.py

The same weights are made again in the test; no pretrained ones are downloaded.
"""

import json
import pathlib

import numpy as np

SIDE = 64
PLACES = 12  # numbers of each map that are kept
RESNETS = ("resnet18", "resnet50")
# Torchvision's layers behind whose ReLU maps of each stride end.
PLAIN = {"alexnet": {4: 1, 8: 4, 16: 11}, "vgg16": {4: 15, 8: 22, 16: 29}}


def picture() -> np.ndarray:
  """[SIDE, SIDE, 3], waves and noise in [-1, 1], float32."""
  y, x, channel = np.meshgrid(*map(np.arange, (SIDE, SIDE, 3)), indexing="ij")
  waves = 0.6 * np.sin(0.21 * x + 0.5 * channel) * np.cos(0.13 * y - channel)
  noise = 0.3 * np.random.default_rng(1).uniform(-1, 1, (SIDE, SIDE, 3))
  return (waves + noise).astype(np.float32)


def seeded(shapes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
  """Weights by torchvision's names that keep features alive."""
  rng = np.random.default_rng(0)
  found = {}
  for name, shape in sorted(shapes.items()):
    values = rng.standard_normal(shape).astype(np.float32)
    if len(shape) > 1:
      values *= np.float32((2 / np.prod(shape[1:])) ** 0.5)
    elif name.endswith("running_var"):
      values = np.float32(0.5) + np.abs(values)
    elif name.endswith("weight"):
      values = 1 + np.float32(0.2) * values
    else:
      values *= np.float32(0.1)
    found[name] = values
  return found


def kept(map_HWC: np.ndarray) -> list[float]:
  """Some of its numbers, evenly spread."""
  flat = map_HWC.reshape(-1)
  return flat[np.linspace(0, flat.size - 1, PLACES).astype(int)].tolist()


def main() -> None:
  import torch
  import torchvision

  mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
  image = (torch.from_numpy(picture()) / 2 + 0.5 - mean) / deviation
  image = image.permute(2, 0, 1)[None]
  made = {}
  for name in (*RESNETS, *PLAIN):
    model = getattr(torchvision.models, name)(weights=None).eval()
    shapes = {n: tuple(v.shape) for n, v in model.state_dict().items() if v.ndim}
    own = {n: torch.from_numpy(v) for n, v in seeded(shapes).items()}
    model.load_state_dict(own, strict=False)
    maps = {}
    with torch.no_grad():
      if name in RESNETS:
        x = model.maxpool(model.relu(model.bn1(model.conv1(image))))
        for stage in range(1, 5):
          x = getattr(model, f"layer{stage}")(x)
          maps[2 ** (stage + 1)] = x
      else:
        x = image
        for place, layer in enumerate(model.features):
          x = layer(x)
          maps |= {stride: x.clone() for stride, last in PLAIN[name].items() if last == place}
    made[name] = {
      "shapes": shapes,
      "maps": {stride: kept(x[0].permute(1, 2, 0).numpy()) for stride, x in maps.items()},
    }
  path = pathlib.Path(__file__).with_suffix(".json")
  path.write_text(json.dumps(made, indent=1))


if __name__ == "__main__":
  main()

"""Records what transformers and timm make of an image with small random weights.

With torch, transformers (5.24) and timm (1.0.31): python tests/golden/vit.py; it writes vit.npz
beside this file. Arrays below `<model>/weights/` have the names of the model's own files, as it
saves them; `<model>/now/` are the names of today's modules. `<model>/tokens` are the tokens of
patches after the last norm.
"""

import pathlib
import tempfile

import numpy as np
import timm
import torch
import transformers
from safetensors.torch import load_file

SIDE, PATCH, WIDTH, DEPTH, HEADS, MLP = 12, 4, 8, 2, 2, 16
PATCHES = (SIDE // PATCH) ** 2
SIZES = {"hidden_size": WIDTH, "num_hidden_layers": DEPTH, "num_attention_heads": HEADS}
OF_IMAGE = {"image_size": SIDE, "patch_size": PATCH}
TIMM = {"img_size": SIDE, "patch_size": PATCH, "embed_dim": WIDTH, "depth": DEPTH}
TIMM |= {"num_heads": HEADS, "mlp_ratio": MLP / WIDTH, "num_classes": 3}


def huggingface(name, **more):
  """A model of transformers by the first part of its class's name."""
  suffix = "VisionConfig" if name.startswith("Siglip") else "Config"
  config = getattr(transformers, name + suffix)(**SIZES, **more)
  return getattr(transformers, f"{name}{'VisionModel' if 'Vision' in suffix else 'Model'}")(config)


def models():
  of_mlp, of_ratio = {"intermediate_size": MLP}, {"mlp_ratio": MLP // WIDTH}
  shared = {"init_values": 0.1, "no_embed_class": True}
  return {
    "vit": huggingface("ViT", **of_mlp, **OF_IMAGE),
    "vit_without_qkv_bias": huggingface("ViT", **of_mlp, **OF_IMAGE, qkv_bias=False),
    "deit": huggingface("DeiT", **of_mlp, **OF_IMAGE),
    "ijepa": huggingface("IJepa", **of_mlp, **OF_IMAGE),
    "dinov2": huggingface("Dinov2", **of_ratio, **OF_IMAGE),
    "dinov2_registers": huggingface("Dinov2WithRegisters", **of_ratio, **OF_IMAGE),
    "siglip": huggingface("Siglip", **of_mlp, **OF_IMAGE),
    "siglip2": huggingface("Siglip2", **of_mlp, patch_size=PATCH, num_patches=PATCHES),
    "timm_vit": timm.models.VisionTransformer(**TIMM),
    "timm_deit": timm.models.VisionTransformerDistilled(**TIMM),
    "timm_deit3": timm.models.VisionTransformer(**TIMM, **shared),
    "timm_registers": timm.models.VisionTransformer(**TIMM, **shared, reg_tokens=4),
  }


def randomize(model, rng):
  """Random weights, exact in half precision to keep the file small; scales of norms near 1."""
  with torch.no_grad():
    for name, value in model.named_parameters():
      one = "norm" in name and name.endswith("weight")
      drawn = (0.3 * rng.normal(size=value.shape) + one).astype(np.float16)
      value.copy_(torch.from_numpy(drawn.astype(np.float32)))


def patch_tokens(name, model, image):
  """[PATCHES, WIDTH]; what stands before them is left out."""
  if name.startswith("timm"):
    return model.forward_features(image)[0, -PATCHES:]
  if name == "siglip2":
    grid = SIDE // PATCH
    # As its image processor does: rows of patches, then rows of pixels, channels last.
    cut = image.reshape(1, 3, grid, PATCH, grid, PATCH).permute(0, 2, 4, 3, 5, 1)
    inputs = {
      "pixel_values": cut.reshape(1, PATCHES, -1),
      "pixel_attention_mask": torch.ones(1, PATCHES, dtype=torch.long),
      "spatial_shapes": torch.tensor([[grid, grid]]),
    }
    return model(**inputs).last_hidden_state[0]
  return model(image).last_hidden_state[0, -PATCHES:]


def saved(name, model):
  """The arrays of the model's own file."""
  if name.startswith("timm"):
    return model.state_dict()
  with tempfile.TemporaryDirectory() as folder:
    model.save_pretrained(folder)
    return load_file(f"{folder}/model.safetensors")


def main():
  rng = np.random.default_rng(0)
  image = rng.uniform(-1, 1, (1, 3, SIDE, SIDE)).astype(np.float16).astype(np.float32)
  arrays = {"image": image.transpose(0, 2, 3, 1)}
  for name, model in models().items():
    model.eval()
    randomize(model, rng)
    with torch.no_grad():
      arrays[f"{name}/tokens"] = patch_tokens(name, model, torch.from_numpy(image)).numpy()
    leaves, now = saved(name, model), model.state_dict()
    arrays |= {f"{name}/weights/{key}": leaf.numpy().astype("f2") for key, leaf in leaves.items()}
    if name in ("vit", "dinov2"):  # the two of them stand for all
      arrays |= {f"{name}/now/{key}": leaf.numpy().astype("f2") for key, leaf in now.items()}
  np.savez_compressed(pathlib.Path(__file__).with_suffix(".npz"), **arrays)


if __name__ == "__main__":
  main()

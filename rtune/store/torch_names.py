"""What ViTs of PyTorch call their arrays, and what else they may have.

transformers (ViT, DeiT, MAE, I-JEPA, DINOv2, SigLIP; of versions 4 and 5), timm and those who name
as it does (DeiT, DINO, MAE and DINOv2 themselves), torchvision. What stands before the names, such
as "module." or "backbone.", is found by the patch projection, which each has once.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from rtune.errors import UsageError
from rtune.store.unreadable import shown

ATTENTION = "MultiHeadDotProductAttention_0"
QKV = (f"{ATTENTION}/query", f"{ATTENTION}/key", f"{ATTENTION}/value")
FUSED = "qkv"
PATCHES = (
  "embeddings.patch_embeddings.projection.weight",  # transformers
  "embeddings.patch_embedding.weight",  # SigLIP and CLIP there
  "patch_embed.proj.weight",  # timm
  "conv_proj.weight",  # torchvision
)
BLOCK = re.compile(
  r"(?:encoder\.)?(?:layers?|blocks)\.(?:\d+\.|encoder_layer_)?(\d+)\.(?:(.+)\.)?(\w+)"
)
IN_BLOCK = {
  **dict.fromkeys(("layernorm_before", "norm1", "layer_norm1", "ln_1"), "LayerNorm_0"),
  **dict.fromkeys(("layernorm_after", "norm2", "layer_norm2", "ln_2"), "LayerNorm_1"),
  **dict.fromkeys(("attention.attention.query", "attention.q_proj", "self_attn.q_proj"), QKV[0]),
  **dict.fromkeys(("attention.attention.key", "attention.k_proj", "self_attn.k_proj"), QKV[1]),
  **dict.fromkeys(("attention.attention.value", "attention.v_proj", "self_attn.v_proj"), QKV[2]),
  **dict.fromkeys(("attn.qkv", "self_attention.in_proj"), FUSED),
  **dict.fromkeys(
    (
      *("attention.output.dense", "attention.o_proj", "self_attn.out_proj", "attn.proj"),
      "self_attention.out_proj",
    ),
    f"{ATTENTION}/out",
  ),
  **dict.fromkeys(("intermediate.dense", "mlp.fc1", "mlp.0", "mlp.linear_1"), "MlpBlock_0/Dense_0"),
  **dict.fromkeys(("output.dense", "mlp.fc2", "mlp.3", "mlp.linear_2"), "MlpBlock_0/Dense_1"),
  **dict.fromkeys(("layer_scale1", "ls1"), "LayerScale_0"),
  **dict.fromkeys(("layer_scale2", "ls2"), "LayerScale_1"),
}
KINDS = {"weight": "kernel", "bias": "bias", "lambda1": "scale", "gamma": "scale"}
NORMS = ("layernorm", "norm", "post_layernorm", "encoder.ln")
POSITIONS = (
  *("embeddings.position_embeddings", "embeddings.position_embedding.weight", "pos_embed"),
  "encoder.pos_embedding",
)
# Tokens beside the patches, in their order: first those that have positions.
PLACED = (
  *("embeddings.cls_token", "cls_token", "class_token"),
  *("embeddings.distillation_token", "dist_token"),
)
TOKENS = (*PLACED, "embeddings.register_tokens", "register_tokens", "reg_token")
_HEADS = ("head", "attn_pool", "decoder", "pooler", "classifier")  # what is not of the encoder
# What a ViT may have that this one has not, by a part of a name.
_FOREIGN = {
  r"lora_[AB]|base_layer": "LoRA adapters, which are not merged yet",
  r"rel_pos|relative_position": "relative positions, as BEiT, Swin and SAM have them",
  r"(lambda|gamma)_[12]$": "the layout of BEiT",
  r"rope|rotary": "rotary positions, as DINOv3 and EVA have them",
  r"pre_layrnorm|norm_pre": "a norm before its blocks, as CLIP has it",
  r"(q|k|query|key)_(layer)?norm": "norms of queries and keys",
  r"mlp\.(w\d|w12|weights_|fc1_|gate|up_proj|down_proj)": "another MLP, such as SwiGLU",
  r"downsample|layers?\.\d+\.blocks|stages\.": "levels of several resolutions, as Swin has them",
  r"patch_embed(dings)?\.(backbone|stem|conv|norm|proj\.\d)": "convolutions before its patches",
}
# What people call a model, by a part of a name, the most telling first.
_NAMES = {
  r"pre_layrnorm|class_embedding": "a CLIP",
  r"embeddings\.patch_embedding\.": "a SigLIP",
  r"distillation_token|dist_token": "a distilled DeiT",
  r"register_tokens|reg_token": "a ViT with registers, such as DINOv2's",
  r"ls1\.gamma|layer_scale1": "a ViT with layer scale, such as DINOv2 or DeiT III",
  r"patch_embed\.": "a ViT of timm",
  r"conv_proj\.": "a ViT of torchvision",
  r"": "a ViT of transformers",
}
# Networks that have no such patch projection.
_OTHERS = {
  r"embeddings\.patch_embeddings\.weight$": "a DINOv3 or another ViT with rotary positions",
  r"visual\.(conv1|transformer|class_embedding)": "a CLIP of OpenAI or open_clip",
  r"resblocks\.": "a CLIP of OpenAI or open_clip",
  r"(^|\.)layer[1-4]\.\d+\.conv\d": "a ResNet",
  r"stages\.\d+|downsample_layers": "a ConvNeXt or another network of stages",
  r"(^|\.)(bert|roberta|distilbert|gpt|transformer\.h|model\.layers)": "a language model",
  r"features\.\d+|_block_args|inverted_residual": "a convolutional network",
}


def tower(flat: Iterable[str]) -> str:
  """What stands before the names of the image encoder, such as "vit." or "module.backbone."."""
  found = {
    name.removesuffix(patches): None
    for name in flat
    for patches in PATCHES
    if name == patches or name.endswith(f".{patches}")
  }
  if len(found) == 1:
    return next(iter(found))
  if found:
    raise UsageError(
      f"it holds {len(found)} image encoders: {', '.join(map(shown, found))}. Save the arrays of "
      "one in a file of their own."
    )
  names = list(flat)
  what = next((w for p, w in _OTHERS.items() if any(re.search(p, name) for name in names)), "")
  raise UsageError(
    f"these are not the names of a Hugging Face ViT, nor of timm's: "
    f"{', '.join(map(shown, names[:5]))}. {f'It looks like {what}. ' if what else ''}"
    "Give a plain ViT, such as ViT, DeiT, DINOv2 or SigLIP."
  )


def what(own: Mapping[str, np.ndarray]) -> str:
  """What people call such a model."""
  return next(what for name, what in _NAMES.items() if any(re.search(name, n) for n in own))


def refuse_foreign(own: Mapping[str, np.ndarray], config: Mapping[str, Any]) -> None:
  """Raises UsageError for a ViT that would not be the same without a part of it."""
  names = [name for name in own if not name.startswith(_HEADS)]
  for pattern, what in _FOREIGN.items():
    name = next((name for name in names if re.search(pattern, name)), "")
    if name:
      raise UsageError(f"it has {what} ({shown(name)}); this encoder has not. Give a plain ViT.")
  for name in names:
    block = BLOCK.fullmatch(name)
    if block and (block[2] not in IN_BLOCK or block[3] not in KINDS):
      raise UsageError(f"it has parts that this encoder lacks ({shown(name)}). Give a plain ViT.")
  if "fc_norm.weight" in own and "norm.weight" not in own:
    raise UsageError(
      "its last norm (fc_norm) comes after its mean over patches, so that patches have none; this "
      "encoder has one. Give a ViT whose patches are used."
    )
  act = said(config, "hidden_act", str) or "gelu"
  if "gelu" not in act or act == "quick_gelu":
    raise UsageError(f"its config.json names {act!r} as hidden_act; this encoder has GELU.")


def said(config: Mapping[str, Any], key: str, kind: type) -> Any:
  """A value of a config, or of the table in it that is about the image encoder; else None."""
  tables = (config.get("vision_config"), config.get("model_args"), config)
  values = [table.get(key) for table in tables if isinstance(table, Mapping)]
  return next((value for value in values if type(value) is kind), None)

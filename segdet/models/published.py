"""Names of tensors in other projects' files, turned into ours.

Our names follow the first publication of each model, so most tables are short. What a table does not know keeps its name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import torch

State = Mapping[str, torch.Tensor]
Renaming = Sequence[tuple[str, str]]

# COCO's category ids run from 1 to 90 with holes; DETR's head has a row for every id and "no object" as the last one.
COCO_HOLES = (0, 12, 26, 29, 30, 45, 66, 68, 69, 71, 83)

TORCHVISION: Renaming = [(r"^backbone\.", "backbone.model.")]
SMP: Renaming = [(r"^encoder\.", "encoder.model.")]
DETR: Renaming = [(r"^(?:detr\.)?backbone\.0\.body\.", "backbone.model."), (r"^detr\.", "")]

_HF_DETR_LAYERS: Renaming = [
    (r"\.encoder_attn\.", ".multihead_attn."),
    (r"\.encoder_attn_layer_norm\.", ".norm2."),
    (r"(encoder\.layers\.\d+)\.final_layer_norm\.", r"\1.norm2."),
    (r"(decoder\.layers\.\d+)\.final_layer_norm\.", r"\1.norm3."),
    (r"\.self_attn_layer_norm\.", ".norm1."),
    (r"\.(?:mlp\.)?fc([12])\.", r".linear\1."),
    (r"\.o_proj\.", ".out_proj."),
]
HF_DETR: Renaming = [
    (r"^model\.backbone\.(?:conv_encoder\.)?model\.", "backbone.model."),
    (r"^model\.query_position_embeddings\.", "query_embed."),
    (r"^model\.input_projection\.", "input_proj."),
    (r"^model\.decoder\.layernorm\.", "transformer.decoder.norm."),
    (r"^model\.(encoder|decoder)\.layers\.", r"transformer.\1.layers."),
    *_HF_DETR_LAYERS,
    (r"^class_labels_classifier\.", "class_embed."),
    (r"^bbox_predictor\.", "bbox_embed."),
]

_STAGES: Renaming = [(r"^backbone\.(?=stem|stages)", "backbone.model."), (r"^(backbone\.model\.stages)\.", r"\1_")]
DFINE: Renaming = _STAGES
HF_DFINE: Renaming = [
    (r"^model\.backbone\.model\.embedder\.", "backbone.stem."),
    (r"^model\.backbone\.model\.encoder\.", "backbone."),
    (r"^(backbone\..*)\.convolution\.", r"\1.conv."),
    (r"^(backbone\..*)\.normalization\.", r"\1.bn."),
    *_STAGES,
    (r"^model\.encoder_input_proj\.(\d+)\.0\.", r"encoder.input_proj.\1.conv."),
    (r"^model\.encoder_input_proj\.(\d+)\.1\.", r"encoder.input_proj.\1.norm."),
    (r"^model\.decoder_input_proj\.(\d+)\.0\.", r"decoder.input_proj.\1.conv."),
    (r"^model\.decoder_input_proj\.(\d+)\.1\.", r"decoder.input_proj.\1.norm."),
    (r"^model\.encoder\.(?:aifi|encoder)\.", "encoder.encoder."),
    (r"^model\.encoder\.downsample_convs\.(\d+)\.conv", r"encoder.downsample_convs.\1.0.cv"),
    (r"^model\.encoder\.(fpn|pan)_blocks\.(\d+)\.csp_rep1\.", r"encoder.\1_blocks.\2.cv2.0."),
    (r"^model\.encoder\.(fpn|pan)_blocks\.(\d+)\.csp_rep2\.", r"encoder.\1_blocks.\2.cv3.0."),
    (r"^model\.encoder\.(fpn|pan)_blocks\.(\d+)\.conv2\.", r"encoder.\1_blocks.\2.cv2.1."),
    (r"^model\.encoder\.(fpn|pan)_blocks\.(\d+)\.conv3\.", r"encoder.\1_blocks.\2.cv3.1."),
    (r"^model\.encoder\.(fpn|pan)_blocks\.(\d+)\.conv([14])\.", r"encoder.\1_blocks.\2.cv\3."),
    (r"^model\.encoder\.", "encoder."),
    (r"^model\.enc_output\.0\.", "decoder.enc_output.proj."),
    (r"^model\.enc_output\.1\.", "decoder.enc_output.norm."),
    (r"^model\.(enc_score_head|enc_bbox_head|denoising_class_embed)\.", r"decoder.\1."),
    (r"^model\.decoder\.(layers|lqe_layers)\.", r"decoder.decoder.\1."),
    (r"^model\.decoder\.class_embed\.", "decoder.dec_score_head."),
    (r"^model\.decoder\.bbox_embed\.", "decoder.dec_bbox_head."),
    (r"^model\.decoder\.", "decoder."),
    (r"\.encoder_attn\.", ".cross_attn."),
    (r"\.self_attn_layer_norm\.", ".norm1."),
    (r"^(encoder\..*)\.final_layer_norm\.", r"\1.norm2."),
    (r"^(decoder\..*)\.final_layer_norm\.", r"\1.norm3."),
    (r"\.mlp\.layers\.0\.", ".linear1."),
    (r"\.mlp\.layers\.1\.", ".linear2."),
    (r"^((?:en|de)coder\..*)\.fc([12])\.", r"\1.linear\2."),
    (r"\.o_proj\.", ".out_proj."),
]

TABLES: Sequence[Renaming] = ((), TORCHVISION, SMP, DETR, HF_DETR, DFINE, HF_DFINE)


def renamed(state: State, table: Renaming) -> dict[str, torch.Tensor]:
    """The state under our names; separate query, key and value projections are joined as PyTorch's attention has them."""
    out = {}
    for name, tensor in state.items():
        for pattern, replacement in table:
            name = re.sub(pattern, replacement, name)
        out[name] = tensor
    return _joined(out)


def for_coco(state: State, classes: int) -> State:
    """DETR's class head of 91 ids and no-object cut down to the 80 classes in use, when the model has 80."""
    if classes != 80 or "class_embed.weight" not in state or len(state["class_embed.weight"]) != 92:
        return state
    rows = [row for row in range(92) if row not in COCO_HOLES]
    return {**state, **{key: state[key][rows] for key in ("class_embed.weight", "class_embed.bias")}}


def _joined(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    for name in [name for name in state if re.search(r"\.q_proj\.(weight|bias)$", name)]:
        parts = [name.replace(".q_proj.", f".{letter}_proj.") for letter in "qkv"]
        if all(part in state for part in parts):
            stem, _, kind = name.partition(".q_proj.")
            state[f"{stem}.in_proj_{kind}"] = torch.cat([state.pop(part) for part in parts])
    return state

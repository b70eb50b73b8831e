"""Prompts of AudioLDM 2: embedded by CLAP and T5, continued by GPT-2."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..errors import ModelError
from .checkpoint import Checkpoint
from .loading import load_network

PARTS = ("text_encoder", "text_encoder_2", "projection_model", "language_model", "tokenizer", "tokenizer_2")


class Condition(NamedTuple):
    """Conditioning of the UNet: `sequence` [1, 8, 768] of GPT-2, `text` [1, L, 1024] of T5 and its `mask` [1, L]."""

    sequence: Tensor
    text: Tensor
    mask: Tensor


def text_stack(checkpoint: Checkpoint, device: str, dtype: torch.dtype) -> Any:
    """diffusers' AudioLDM2Pipeline with the parts that read text, and no other.

    GPT-2 is loaded as GPT2LMHeadModel: published checkpoints name GPT2Model, which newer transformers cannot generate
    with (diffusers issue 12630).

    Raises:
        ModelError: a part is missing or does not load, or transformers is.
    """
    if missing := [sub for sub in PARTS if not checkpoint.has(sub)]:
        raise ModelError(f"a prompt needs the text encoders; checkpoint {checkpoint.name} has no {missing[0]}/")
    try:
        import transformers
    except ImportError as error:
        raise ModelError("a prompt needs transformers: pip install 'aldm[audioldm2]'") from error
    from diffusers.pipelines.audioldm2.modeling_audioldm2 import AudioLDM2ProjectionModel
    from diffusers.pipelines.audioldm2.pipeline_audioldm2 import AudioLDM2Pipeline

    classes = (transformers.ClapModel, transformers.T5EncoderModel, AudioLDM2ProjectionModel,
               transformers.GPT2LMHeadModel)  # fmt: skip
    networks = {
        sub: load_network(network, checkpoint, sub, device, dtype)[0]
        for sub, network in zip(PARTS, classes, strict=False)
    }
    try:
        own = dict(local_files_only=True, trust_remote_code=False)
        tokenizers = {sub: transformers.AutoTokenizer.from_pretrained(checkpoint.part(sub), **own) for sub in PARTS[4:]}
    except Exception as error:  # as in `load_network`
        raise ModelError(
            f"the tokenizers of {checkpoint.name} do not load: {(str(error) or repr(error)).splitlines()[0]}"
        ) from error
    parts: dict[str, Any] = {**networks, **tokenizers}
    parts.update(dict.fromkeys(("vae", "unet", "vocoder", "scheduler", "feature_extractor")))
    return AudioLDM2Pipeline(**parts)


@torch.inference_mode()
def embed(checkpoint: Checkpoint, prompt: str, device: str, dtype: torch.dtype) -> Condition:
    """The UNet's conditioning for a prompt.

    Raises:
        ModelError: as for `text_stack`.
    """
    stack = text_stack(checkpoint, device, dtype)
    text, mask, sequence = stack.encode_prompt(prompt, device, 1, False)
    return Condition(sequence, text, mask)

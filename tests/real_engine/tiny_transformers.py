"""Writes the tiny model for transformers: `python -m tests.real_engine.tiny_transformers FOLDER TEXT...`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from tests.real_engine.tiny_model import (
    CONTEXT,
    END,
    HEADS,
    INNER,
    LAYERS,
    STOP,
    TEMPLATE,
    WIDTH,
    readable,
    tokens_of,
    trained_tokenizer,
)


def write_transformers(tokenizer: Any, folder: Path) -> None:
    """Write what `from_pretrained` reads."""
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=END, eos_token=STOP, pad_token=END, model_max_length=CONTEXT
    )
    fast.chat_template = TEMPLATE
    fast.save_pretrained(folder)
    torch.manual_seed(1)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=tokenizer.get_vocab_size(),
            hidden_size=WIDTH,
            intermediate_size=INNER,
            num_hidden_layers=LAYERS,
            num_attention_heads=HEADS,
            max_position_embeddings=CONTEXT,
            initializer_range=0.3,
            bos_token_id=fast.bos_token_id,
            eos_token_id=fast.eos_token_id,
            pad_token_id=fast.pad_token_id,
        )
    )
    generated = torch.tensor([readable(token) for token in tokens_of(tokenizer)])
    with torch.no_grad():
        model.lm_head.weight.normal_(0, 1)
        model.lm_head.weight[~generated] = 0
    model.save_pretrained(folder)


if __name__ == "__main__":
    write_transformers(trained_tokenizer(sys.argv[2:]), Path(sys.argv[1]))

"""Writes the tiny model for llama.cpp: `python -m tests.real_engine.tiny_gguf FOLDER TEXT...`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from tests.real_engine.tiny_model import (
    CONTEXT,
    END,
    HEADS,
    INNER,
    LAYERS,
    SPECIALS,
    STOP,
    TEMPLATE,
    WIDTH,
    readable,
    tokens_of,
    trained_tokenizer,
)


def write_gguf(tokenizer: Any, folder: Path) -> None:
    """Write `tiny.gguf`: the architecture `llama` in 32-bit floats."""
    tokens = tokens_of(tokenizer)
    ids = {token: at for at, token in enumerate(tokens)}
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    kinds = [gguf.TokenType.CONTROL if token in SPECIALS else gguf.TokenType.NORMAL for token in tokens]
    random = np.random.default_rng(1)
    writer = gguf.GGUFWriter(folder / "tiny.gguf", "llama")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_merges([" ".join(merge) for merge in merges])
    writer.add_token_types(kinds)
    writer.add_bos_token_id(ids[END])
    writer.add_eos_token_id(ids[STOP])
    writer.add_add_bos_token(False)
    writer.add_chat_template(TEMPLATE)

    def add(name: str, *shape: int, rows: list[bool] | None = None) -> None:
        values = random.normal(0, 1 if rows else 0.3, shape).astype(np.float32)
        if rows:
            values[~np.array(rows)] = 0
        writer.add_tensor(name, values)

    add("token_embd.weight", len(tokens), WIDTH)
    add("output.weight", len(tokens), WIDTH, rows=[readable(token) for token in tokens])
    writer.add_tensor("output_norm.weight", np.ones(WIDTH, np.float32))
    for layer in range(LAYERS):
        for norm in ("attn_norm", "ffn_norm"):
            writer.add_tensor(f"blk.{layer}.{norm}.weight", np.ones(WIDTH, np.float32))
        for part in ("attn_q", "attn_k", "attn_v", "attn_output"):
            add(f"blk.{layer}.{part}.weight", WIDTH, WIDTH)
        add(f"blk.{layer}.ffn_gate.weight", INNER, WIDTH)
        add(f"blk.{layer}.ffn_up.weight", INNER, WIDTH)
        add(f"blk.{layer}.ffn_down.weight", WIDTH, INNER)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    write_gguf(trained_tokenizer(sys.argv[2:]), Path(sys.argv[1]))

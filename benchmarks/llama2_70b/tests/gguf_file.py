"""The miniature as llama.cpp reads it: its GGUF format, written with llama.cpp's own library."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import sentencepiece

from bench_llama2_70b.config import LlamaConfig

_NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}
_WHOLE = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}


def write_gguf(path: Path, config: LlamaConfig, tensors: dict[str, Any], tokenizer: bytes) -> None:
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_dimension_count(config.head_size)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_theta)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    _add_tokenizer(writer, sentencepiece.SentencePieceProcessor(model_proto=tokenizer))
    for name, value in tensors.items():
        writer.add_tensor(_name(name), _neighbours(name, value.astype(np.float32), config))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _name(name: str) -> str:
    stem = name.removesuffix(".weight")
    if stem in _WHOLE:
        return f"{_WHOLE[stem]}.weight"
    _, _, number, part = stem.split(".", 3)
    return f"blk.{number}.{_NAMES[part]}.weight"


def _neighbours(name: str, value: Any, config: LlamaConfig) -> Any:
    """llama.cpp turns neighbouring channels, Hugging Face's files have halves: see `model.rotated`."""
    if not name.endswith(("q_proj.weight", "k_proj.weight")):
        return value
    heads = len(value) // config.head_size
    return value.reshape(heads, 2, config.head_size // 2, -1).swapaxes(1, 2).reshape(value.shape)


def _add_tokenizer(writer: gguf.GGUFWriter, pieces: sentencepiece.SentencePieceProcessor) -> None:
    count = pieces.vocab_size()
    kinds = [
        gguf.TokenType.UNKNOWN
        if pieces.is_unknown(n)
        else gguf.TokenType.CONTROL
        if pieces.is_control(n)
        else gguf.TokenType.BYTE
        if pieces.is_byte(n)
        else gguf.TokenType.NORMAL
        for n in range(count)
    ]
    writer.add_tokenizer_model("llama")
    writer.add_token_list([pieces.id_to_piece(n).encode() for n in range(count)])
    writer.add_token_scores([pieces.get_score(n) for n in range(count)])
    writer.add_token_types(kinds)
    writer.add_bos_token_id(pieces.bos_id())
    writer.add_eos_token_id(pieces.eos_id())
    writer.add_unk_token_id(pieces.unk_id())
    writer.add_add_bos_token(False)

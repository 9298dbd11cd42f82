"""Writes the exact bf16 dequantization of a llama GGUF and its tokenizer as a Hugging Face folder, for peers
that read no GGUF. Needs the packages gguf, numpy, torch and transformers.

    python gguf_to_hf.py MODEL.gguf OUT_FOLDER
"""

import os
import sys

import gguf
import numpy as np
import torch
import transformers


def field(reader, key, default=None):
    found = reader.get_field(key)
    return default if found is None else found.contents()


def unpermute(rows, heads):
    """GGUF stores query and key rows in pairs (2i, 2i + 1); Hugging Face rotates halves."""
    out, columns = rows.shape
    return rows.reshape(heads, out // heads // 2, 2, columns).swapaxes(1, 2).reshape(out, columns)


def main():
    source, target = sys.argv[1:]
    reader = gguf.GGUFReader(source)
    heads = field(reader, "llama.attention.head_count")
    kv_heads = field(reader, "llama.attention.head_count_kv", heads)
    tensors = {t.name: gguf.quants.dequantize(t.data, t.tensor_type) for t in reader.tensors}
    config = transformers.LlamaConfig(
        vocab_size=tensors["token_embd.weight"].shape[0],
        hidden_size=field(reader, "llama.embedding_length"),
        intermediate_size=field(reader, "llama.feed_forward_length"),
        num_hidden_layers=field(reader, "llama.block_count"),
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        max_position_embeddings=field(reader, "llama.context_length"),
        rms_norm_eps=field(reader, "llama.attention.layer_norm_rms_epsilon"),
        rope_theta=field(reader, "llama.rope.freq_base", 10000.0),
        tie_word_embeddings="output.weight" not in tensors,
        bos_token_id=field(reader, "tokenizer.ggml.bos_token_id"),
        eos_token_id=field(reader, "tokenizer.ggml.eos_token_id"),
        dtype="bfloat16",
    )
    names = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
    parts = {"attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
             "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
             "ffn_down": "mlp.down_proj", "attn_norm": "input_layernorm",
             "ffn_norm": "post_attention_layernorm"}
    state = {}
    for name, data in tensors.items():
        stem = name.removesuffix(".weight")
        if stem.startswith("blk."):
            _, layer, part = stem.split(".")
            if part == "attn_q":
                data = unpermute(data, heads)
            elif part == "attn_k":
                data = unpermute(data, kv_heads)
            key = f"model.layers.{layer}.{parts[part]}.weight"
        else:
            key = f"{names[stem]}.weight"
        state[key] = torch.from_numpy(np.ascontiguousarray(data)).to(torch.bfloat16)
    model = transformers.LlamaForCausalLM(config).to(torch.bfloat16)
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not unexpected, unexpected
    assert set(missing) <= {"lm_head.weight"}, missing
    model.save_pretrained(target)
    folder, name = os.path.split(os.path.abspath(source))
    transformers.AutoTokenizer.from_pretrained(folder, gguf_file=name).save_pretrained(target)
    print(f"wrote {target}")


if __name__ == "__main__":
    main()

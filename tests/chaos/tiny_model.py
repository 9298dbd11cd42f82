"""A small untied Llama as a Hugging Face folder, seeded, in which the embedding of one token is NaN:
whatever sequence has that token has logits that are no numbers, and no other has."""

import json
import os
import random
import struct

HIDDEN, FFN, LAYERS, HEADS, KV_HEADS, VOCAB = 64, 160, 2, 4, 2, 96
NAN_TOKEN = 17


def tensors():
    kv = HIDDEN // HEADS * KV_HEADS
    yield "model.embed_tokens.weight", (VOCAB, HIDDEN)
    for i in range(LAYERS):
        layer = f"model.layers.{i}."
        yield layer + "input_layernorm.weight", (HIDDEN,)
        yield layer + "self_attn.q_proj.weight", (HIDDEN, HIDDEN)
        yield layer + "self_attn.k_proj.weight", (kv, HIDDEN)
        yield layer + "self_attn.v_proj.weight", (kv, HIDDEN)
        yield layer + "self_attn.o_proj.weight", (HIDDEN, HIDDEN)
        yield layer + "post_attention_layernorm.weight", (HIDDEN,)
        yield layer + "mlp.gate_proj.weight", (FFN, HIDDEN)
        yield layer + "mlp.up_proj.weight", (FFN, HIDDEN)
        yield layer + "mlp.down_proj.weight", (HIDDEN, FFN)
    yield "model.norm.weight", (HIDDEN,)
    yield "lm_head.weight", (VOCAB, HIDDEN)


def values(name, shape, dice):
    count = shape[0] * (shape[1] if len(shape) > 1 else 1)
    if len(shape) == 1:
        return [1.0] * count
    numbers = [dice.uniform(-0.3, 0.3) for _ in range(count)]
    if name == "model.embed_tokens.weight":
        numbers[NAN_TOKEN * HIDDEN:(NAN_TOKEN + 1) * HIDDEN] = [float("nan")] * HIDDEN
    return numbers


def write(folder):
    os.makedirs(folder)
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "torch_dtype": "float32",
              "hidden_act": "silu", "tie_word_embeddings": False, "num_hidden_layers": LAYERS,
              "hidden_size": HIDDEN, "intermediate_size": FFN, "num_attention_heads": HEADS,
              "num_key_value_heads": KV_HEADS, "vocab_size": VOCAB, "max_position_embeddings": 2048,
              "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "bos_token_id": 1, "eos_token_id": 2}
    with open(os.path.join(folder, "config.json"), "w") as file:
        json.dump(config, file)
    dice, header, data = random.Random(1), {}, bytearray()
    for name, shape in tensors():
        numbers = values(name, shape, dice)
        begin = len(data)
        data += struct.pack(f"<{len(numbers)}f", *numbers)
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [begin, len(data)]}
    text = json.dumps(header).encode()
    with open(os.path.join(folder, "model.safetensors"), "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + data)

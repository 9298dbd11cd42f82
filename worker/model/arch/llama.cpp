// Llama (arXiv 2302.13971, 2407.21783) and the models built like it: pre-norm RMSNorm, rotary
// positions, grouped-query attention, SwiGLU; optional biases, tied or own vocabulary matrix.
#include "worker/model/arch/arch.h"

namespace quire {
namespace {

constexpr TensorRow kTensors[] = {
    {Role::kAttentionNorm, "layers.{}.attention_norm", "blk.{}.attn_norm.weight",
     "model.layers.{}.input_layernorm.weight", Cut::kNone, Dim::kHidden, Dim::kOne, Need::kAlways},
    {Role::kQuery, "layers.{}.query", "blk.{}.attn_q.weight",
     "model.layers.{}.self_attn.q_proj.weight", Cut::kRowsByHead, Dim::kQuery, Dim::kHidden,
     Need::kAlways},
    {Role::kKey, "layers.{}.key", "blk.{}.attn_k.weight", "model.layers.{}.self_attn.k_proj.weight",
     Cut::kRowsByKvHead, Dim::kKv, Dim::kHidden, Need::kAlways},
    {Role::kValue, "layers.{}.value", "blk.{}.attn_v.weight",
     "model.layers.{}.self_attn.v_proj.weight", Cut::kRowsByKvHead, Dim::kKv, Dim::kHidden,
     Need::kAlways},
    {Role::kOut, "layers.{}.out", "blk.{}.attn_output.weight",
     "model.layers.{}.self_attn.o_proj.weight", Cut::kColumnsByHead, Dim::kHidden, Dim::kQuery,
     Need::kAlways},
    {Role::kQueryBias, "layers.{}.query_bias", "blk.{}.attn_q.bias",
     "model.layers.{}.self_attn.q_proj.bias", Cut::kRowsByHead, Dim::kQuery, Dim::kOne,
     Need::kQkvBias},
    {Role::kKeyBias, "layers.{}.key_bias", "blk.{}.attn_k.bias",
     "model.layers.{}.self_attn.k_proj.bias", Cut::kRowsByKvHead, Dim::kKv, Dim::kOne,
     Need::kQkvBias},
    {Role::kValueBias, "layers.{}.value_bias", "blk.{}.attn_v.bias",
     "model.layers.{}.self_attn.v_proj.bias", Cut::kRowsByKvHead, Dim::kKv, Dim::kOne,
     Need::kQkvBias},
    {Role::kOutBias, "layers.{}.out_bias", "blk.{}.attn_output.bias",
     "model.layers.{}.self_attn.o_proj.bias", Cut::kNone, Dim::kHidden, Dim::kOne, Need::kOutBias},
    {Role::kFfnNorm, "layers.{}.ffn_norm", "blk.{}.ffn_norm.weight",
     "model.layers.{}.post_attention_layernorm.weight", Cut::kNone, Dim::kHidden, Dim::kOne,
     Need::kAlways},
    {Role::kGate, "layers.{}.gate", "blk.{}.ffn_gate.weight",
     "model.layers.{}.mlp.gate_proj.weight", Cut::kRowsByFfn, Dim::kFfn, Dim::kHidden,
     Need::kAlways},
    {Role::kUp, "layers.{}.up", "blk.{}.ffn_up.weight", "model.layers.{}.mlp.up_proj.weight",
     Cut::kRowsByFfn, Dim::kFfn, Dim::kHidden, Need::kAlways},
    {Role::kDown, "layers.{}.down", "blk.{}.ffn_down.weight",
     "model.layers.{}.mlp.down_proj.weight", Cut::kColumnsByFfn, Dim::kHidden, Dim::kFfn,
     Need::kAlways},
    {Role::kGateBias, "layers.{}.gate_bias", "blk.{}.ffn_gate.bias",
     "model.layers.{}.mlp.gate_proj.bias", Cut::kRowsByFfn, Dim::kFfn, Dim::kOne, Need::kMlpBias},
    {Role::kUpBias, "layers.{}.up_bias", "blk.{}.ffn_up.bias", "model.layers.{}.mlp.up_proj.bias",
     Cut::kRowsByFfn, Dim::kFfn, Dim::kOne, Need::kMlpBias},
    {Role::kDownBias, "layers.{}.down_bias", "blk.{}.ffn_down.bias",
     "model.layers.{}.mlp.down_proj.bias", Cut::kNone, Dim::kHidden, Dim::kOne, Need::kMlpBias},
    {Role::kEmbedding, "embedding", "token_embd.weight", "model.embed_tokens.weight",
     Cut::kRowsByVocab, Dim::kVocab, Dim::kHidden, Need::kAlways},
    {Role::kFinalNorm, "final_norm", "output_norm.weight", "model.norm.weight", Cut::kNone,
     Dim::kHidden, Dim::kOne, Need::kAlways},
    {Role::kVocabulary, "vocabulary", "output.weight", "lm_head.weight", Cut::kRowsByVocab,
     Dim::kVocab, Dim::kHidden, Need::kUntied},
};

}  // namespace

const Arch kLlamaArch = {"llama", kTensors};
// Mistral (arXiv 2310.06825): the same tensors; its window is a number of the spec.
const Arch kMistralArch = {"mistral", kTensors};

}  // namespace quire

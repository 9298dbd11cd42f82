// What a model is, read once from its checkpoint and immutable afterwards. Dimension letters used
// everywhere: T tokens in the step, B rows, H query heads, G KV heads, D head_dim, E hidden, F ffn,
// V vocabulary, S block_size, L layers.
#pragma once

#include <string>
#include <vector>

#include "common/ids.h"

namespace quire {

// What a feed-forward layer's gate goes through: x * sigmoid(x) (SwiGLU), or the tanh form of
// x * Phi(x) (GeGLU); arXiv 2002.05202, 1606.08415.
enum class Gate { kSilu, kGeluTanh };

enum class RopeScaling { kNone, kLinear, kLlama3, kYarn };

// Rotary position embedding (RoFormer, arXiv 2104.09864). `interleaved` pairs dimensions (2i,
// 2i+1), as GGUF llama checkpoints store Q and K; otherwise (i, i + dims/2), as Hugging Face stores
// them.
struct RopeSpec {
  int dims = 0;  // rotated leading dimensions of each head, <= head_dim
  bool interleaved = false;
  double theta = 10000.0;
  RopeScaling scaling = RopeScaling::kNone;
  double factor = 1.0;
  double original_max_positions = 0.0;
  double low_freq_factor = 1.0;     // llama3
  double high_freq_factor = 4.0;    // llama3
  double beta_fast = 32.0;          // yarn (arXiv 2309.00071)
  double beta_slow = 1.0;           // yarn
  double attention_factor = 0.0;    // yarn; 0 = 0.1 ln(factor) + 1
  std::vector<float> freq_factors;  // GGUF rope_freqs: inverse frequency is divided by it; or empty
};

struct ModelSpec {
  std::string architecture;  // the worker's arch table has a row of this name ("llama")
  std::string name;          // for people: general.name, or the folder's name
  int num_layers = 0;        // L
  int hidden = 0;            // E
  int num_heads = 0;         // H
  int num_kv_heads = 0;      // G, divides H
  int head_dim = 0;          // D
  int ffn = 0;               // F
  int vocab = 0;             // V, rows of the embedding
  int max_positions = 0;     // the trained context
  float norm_eps = 1e-5f;
  Gate gate = Gate::kSilu;
  int window = 0;  // sliding attention: a token sees the last so many, itself included; 0 = all
  float attention_soft_cap = 0.0f;  // a score s becomes cap * tanh(s / cap); 0 = stays s
  RopeSpec rope;
  bool tied_embeddings = false;
  bool qkv_bias = false;
  bool out_bias = false;
  bool mlp_bias = false;
  TokenId bos = -1;
  std::vector<TokenId> eos;  // any of them ends a sequence

  int group_heads() const { return num_heads / num_kv_heads; }  // query heads per KV head
};

}  // namespace quire

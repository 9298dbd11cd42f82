#include "tests/worker/tiny_model.h"

#include <unistd.h>

#include <atomic>
#include <cmath>
#include <cstring>
#include <fstream>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "common/check.h"
#include "kernels/formats/table.h"
#include "nlohmann/json.hpp"
#include "worker/model/arch/arch.h"

namespace quire::test {
namespace {

// splitmix64; the same numbers everywhere.
class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(seed) {}
  std::uint64_t next() {
    std::uint64_t z = (state_ += 0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
  }
  double uniform() { return static_cast<double>(next() >> 11) * 0x1p-53; }
  // Sum of twelve uniforms: near enough to a normal of deviation 1.
  double normal() {
    double sum = -6.0;
    for (int i = 0; i < 12; ++i) sum += uniform();
    return sum;
  }

 private:
  std::uint64_t state_;
};

// As a Q4_K_M file has them: values, down and the vocabulary finer than the rest.
Format superblock_storage_of(Role role) {
  switch (role) {
    case Role::kValue:
    case Role::kDown:
    case Role::kEmbedding:
    case Role::kVocabulary:
      return Format::kQ6_K;
    case Role::kOut:
      return Format::kQ5_K;
    default:
      return Format::kQ4_K;
  }
}

Format storage_of(Role role, bool matrix, TinyOptions::Storage storage, int layer) {
  if (!matrix || storage == TinyOptions::Storage::kF32) return Format::kF32;
  if (storage == TinyOptions::Storage::kBf16) return Format::kBf16;
  if (storage == TinyOptions::Storage::kSuperblocks) return superblock_storage_of(role);
  const bool f16 = storage == TinyOptions::Storage::kMixedLayers && layer % 2 == 1;
  if (f16 && (role == Role::kOut || role == Role::kDown)) return Format::kF16;
  switch (role) {
    case Role::kValue:
      return Format::kF16;
    case Role::kOut:
    case Role::kEmbedding:
    case Role::kVocabulary:
      return Format::kQ8_0;
    default:
      return Format::kQ4_1;
  }
}

// Rows of queries and keys from rotate-half order (pairs i, i + D/2) to interleaved (2i, 2i + 1).
void interleave_rows(TinyTensor& tensor, int head_dim) {
  const std::size_t columns =
      tensor.shape.size() > 1 ? static_cast<std::size_t>(tensor.shape[1]) : 1;
  const auto rows = static_cast<int>(tensor.shape[0]);
  const std::vector<float> from = tensor.values;
  for (int row = 0; row < rows; ++row) {
    const int in_head = row % head_dim;
    const int half = head_dim / 2;
    const int to = row - in_head + (in_head < half ? 2 * in_head : 2 * (in_head - half) + 1);
    std::copy_n(from.begin() + static_cast<std::ptrdiff_t>(static_cast<std::size_t>(row) * columns),
                columns,
                tensor.values.begin() +
                    static_cast<std::ptrdiff_t>(static_cast<std::size_t>(to) * columns));
  }
}

std::vector<TinyTensor> make_tensors(const TinyOptions& options, bool gguf) {
  ModelSpec spec = tiny_spec(options.storage);
  spec.tied_embeddings = options.tied;
  spec.qkv_bias = spec.out_bias = spec.mlp_bias = options.biases;
  Random random(options.seed);
  std::vector<TinyTensor> tensors;
  for (const TensorRow& row : kLlamaArch.tensors) {
    if (!is_needed(row, spec)) continue;
    for (int layer = 0; layer < (is_per_layer(row) ? spec.num_layers : 1); ++layer) {
      TinyTensor tensor;
      tensor.name = tensor_name(row, gguf, layer);
      tensor.format = storage_of(row.role, is_matrix(row), options.storage, layer);
      tensor.shape = {dim_size(row.rows, spec)};
      if (is_matrix(row)) tensor.shape.push_back(dim_size(row.columns, spec));
      const int columns = dim_size(row.columns, spec);
      const bool norm = !is_matrix(row) && row.need == Need::kAlways;
      const double scale = is_matrix(row) ? 2.0 / std::sqrt(columns) : 0.1;
      const auto count = static_cast<std::size_t>(tensor.shape[0] * columns);
      for (std::size_t i = 0; i < count; ++i) {
        tensor.values.push_back(static_cast<float>((norm ? 1.0 : 0.0) + scale * random.normal()));
      }
      const bool rotated = row.role == Role::kQuery || row.role == Role::kKey ||
                           row.role == Role::kQueryBias || row.role == Role::kKeyBias;
      if (gguf && rotated) interleave_rows(tensor, spec.head_dim);
      tensors.push_back(std::move(tensor));
    }
  }
  if (options.edit) options.edit(tensors);
  return tensors;
}

std::string encoded(const TinyTensor& tensor) {
  const auto columns = static_cast<int>(tensor.shape.back());
  const std::size_t bytes = row_bytes(tensor.format, columns);
  const std::size_t rows = tensor.values.size() / static_cast<std::size_t>(columns);
  std::string out(rows * bytes, '\0');
  for (std::size_t r = 0; r < rows; ++r) {
    formats::encode_row(tensor.format, tensor.values.data() + r * static_cast<std::size_t>(columns),
                        columns, reinterpret_cast<std::byte*>(out.data() + r * bytes));
  }
  return out;
}

template <typename T>
void put(std::string& out, T value) {
  out.append(reinterpret_cast<const char*>(&value), sizeof value);
}
void put_text(std::string& out, const std::string& text) {
  put<std::uint64_t>(out, text.size());
  out += text;
}
void put_int(std::string& out, const std::string& key, int value) {
  put_text(out, key);
  put<std::uint32_t>(out, 4);
  put<std::uint32_t>(out, static_cast<std::uint32_t>(value));
}
void put_real(std::string& out, const std::string& key, float value) {
  put_text(out, key);
  put<std::uint32_t>(out, 6);
  put<float>(out, value);
}

std::uint32_t gguf_type(Format format) {
  switch (format) {
    case Format::kF32:
      return 0;
    case Format::kF16:
      return 1;
    case Format::kQ4_0:
      return 2;
    case Format::kQ4_1:
      return 3;
    case Format::kQ8_0:
      return 8;
    case Format::kQ4_K:
      return 12;
    case Format::kQ5_K:
      return 13;
    case Format::kQ6_K:
      return 14;
    case Format::kBf16:
      return 30;
    default:
      return 0;
  }
}

void write_file(const std::filesystem::path& file, const std::string& bytes) {
  std::ofstream out(file, std::ios::binary);
  out.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  QUIRE_CHECK(out.good());
}

void pad(std::string& out, std::size_t alignment) {
  while (out.size() % alignment != 0) out.push_back('\0');
}

std::string gguf_metadata(const ModelSpec& spec, int window) {
  std::string out;
  put_text(out, "general.architecture");
  put<std::uint32_t>(out, 8);
  put_text(out, "llama");
  put_int(out, "llama.block_count", spec.num_layers);
  put_int(out, "llama.embedding_length", spec.hidden);
  put_int(out, "llama.feed_forward_length", spec.ffn);
  put_int(out, "llama.context_length", spec.max_positions);
  put_int(out, "llama.attention.head_count", spec.num_heads);
  put_int(out, "llama.attention.head_count_kv", spec.num_kv_heads);
  put_real(out, "llama.attention.layer_norm_rms_epsilon", spec.norm_eps);
  put_real(out, "llama.rope.freq_base", static_cast<float>(spec.rope.theta));
  put_int(out, "llama.attention.sliding_window", window);
  return out;
}

}  // namespace

ModelSpec tiny_spec(TinyOptions::Storage storage) {
  ModelSpec spec;
  spec.architecture = "llama";
  spec.num_layers = 2;
  spec.num_heads = 9;
  spec.num_kv_heads = 3;
  spec.head_dim = 32;
  spec.hidden = 288;
  spec.ffn = 416;  // 13 leaves of 32
  spec.vocab = 2500;
  spec.max_positions = 512;
  spec.norm_eps = 1e-5f;
  spec.rope.dims = 32;
  spec.rope.theta = 10000.0;
  if (storage == TinyOptions::Storage::kSuperblocks) {
    spec.num_heads = 8;  // three ranks own 3, 3 and 2 of them: 96, 96 and 64 columns of 256
    spec.num_kv_heads = 4;
    spec.hidden = 256;
    spec.ffn = 512;
  }
  return spec;
}

void write_tiny_gguf(const std::filesystem::path& file, const TinyOptions& options) {
  const std::vector<TinyTensor> tensors = make_tensors(options, true);
  std::string header = "GGUF";
  put<std::uint32_t>(header, 3);
  put<std::uint64_t>(header, tensors.size());
  put<std::uint64_t>(header, 10);  // keys of gguf_metadata
  header += gguf_metadata(tiny_spec(options.storage), options.window);
  std::string data;
  for (const TinyTensor& tensor : tensors) {
    pad(data, 32);
    put_text(header, tensor.name);
    put<std::uint32_t>(header, static_cast<std::uint32_t>(tensor.shape.size()));
    for (std::size_t d = tensor.shape.size(); d-- > 0;) {
      put<std::uint64_t>(header, static_cast<std::uint64_t>(tensor.shape[d]));
    }
    put<std::uint32_t>(header, gguf_type(tensor.format));
    put<std::uint64_t>(header, data.size());
    data += encoded(tensor);
  }
  pad(header, 32);
  pad(data, 32);
  write_file(file, header + data);
}

void write_tiny_hf(const std::filesystem::path& folder, const TinyOptions& options) {
  std::filesystem::create_directories(folder);
  const ModelSpec spec = tiny_spec(options.storage);
  const char* architecture = options.window > 0 ? "MistralForCausalLM" : "LlamaForCausalLM";
  const nlohmann::json config = {{"architectures", {architecture}},
                                 {"sliding_window", options.window},
                                 {"hidden_size", spec.hidden},
                                 {"intermediate_size", spec.ffn},
                                 {"num_hidden_layers", spec.num_layers},
                                 {"num_attention_heads", spec.num_heads},
                                 {"num_key_value_heads", spec.num_kv_heads},
                                 {"head_dim", spec.head_dim},
                                 {"vocab_size", spec.vocab},
                                 {"max_position_embeddings", spec.max_positions},
                                 {"rms_norm_eps", spec.norm_eps},
                                 {"rope_theta", spec.rope.theta},
                                 {"hidden_act", "silu"},
                                 {"attention_bias", options.biases},
                                 {"mlp_bias", options.biases},
                                 {"tie_word_embeddings", options.tied}};
  write_file(folder / "config.json", config.dump());
  nlohmann::json header = nlohmann::json::object();
  std::string data;
  for (const TinyTensor& tensor : make_tensors(options, false)) {
    const std::string bytes = encoded(tensor);
    header[tensor.name] = {{"dtype", tensor.format == Format::kBf16 ? "BF16" : "F32"},
                           {"shape", tensor.shape},
                           {"data_offsets", {data.size(), data.size() + bytes.size()}}};
    data += bytes;
  }
  std::string text = header.dump();
  while (text.size() % 8 != 0) text.push_back(' ');
  std::string file;
  put<std::uint64_t>(file, text.size());
  write_file(folder / "model.safetensors", file + text + data);
}

ScratchFolder::ScratchFolder() {
  static std::atomic<int> counter{0};
  path_ = std::filesystem::temp_directory_path() /
          absl::StrCat("quire-worker-test-", ::getpid(), "-", counter++);
  std::filesystem::create_directories(path_);
}

ScratchFolder::~ScratchFolder() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

std::vector<TokenId> random_ids(std::uint64_t seed, int length) {
  Random random(seed);
  std::vector<TokenId> ids;
  for (int i = 0; i < length; ++i) {
    ids.push_back(
        static_cast<TokenId>(random.next() % static_cast<std::uint64_t>(tiny_spec().vocab)));
  }
  return ids;
}

}  // namespace quire::test

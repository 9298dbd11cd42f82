#include "tests/worker/hf_checkpoint.h"

#include <cstring>
#include <fstream>
#include <string>
#include <vector>

#include "common/status.h"
#include "kernels/formats/table.h"
#include "nlohmann/json.hpp"
#include "worker/loader/mapped_model.h"
#include "worker/model/arch/arch.h"

namespace quire::test {
namespace {

// One tensor on its way: where it is in the GGUF, and what it is called in the folder.
struct Source {
  const TensorInfo* tensor = nullptr;
  std::string name;
  bool rotated = false;  // rows in pairs (2i, 2i + 1) instead of halves (i, i + D/2)
};

std::int64_t rows_of(const TensorInfo& tensor) {
  return tensor.shape.size() > 1 ? tensor.shape[0] : 1;
}

absl::StatusOr<std::vector<Source>> sources_of(const ModelFile& file) {
  std::vector<Source> sources;
  for (const TensorRow& row : kLlamaArch.tensors) {
    if (!is_needed(row, file.spec)) continue;
    for (int layer = 0; layer < (is_per_layer(row) ? file.spec.num_layers : 1); ++layer) {
      QUIRE_ASSIGN_OR_RETURN(const TensorInfo* tensor, find_tensor(file, row, layer));
      sources.push_back({tensor, tensor_name(row, /*gguf=*/false, layer),
                         row.role == Role::kQuery || row.role == Role::kKey});
    }
  }
  return sources;
}

nlohmann::json config_of(const ModelSpec& spec) {
  return {{"architectures", {"LlamaForCausalLM"}},
          {"torch_dtype", "bfloat16"},
          {"hidden_act", "silu"},
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
          {"tie_word_embeddings", spec.tied_embeddings}};
}

// The safetensors header: its length, then where each tensor lies, in order and without holes.
std::string header_of(const std::vector<Source>& sources) {
  nlohmann::json header = nlohmann::json::object();
  std::int64_t end = 0;
  for (const Source& source : sources) {
    const std::int64_t begin = end;
    end += rows_of(*source.tensor) * source.tensor->shape.back() * 2;
    header[source.name] = {
        {"dtype", "BF16"}, {"shape", source.tensor->shape}, {"data_offsets", {begin, end}}};
  }
  std::string text = header.dump();
  while (text.size() % 8 != 0) text.push_back(' ');
  const std::uint64_t size = text.size();
  return std::string(reinterpret_cast<const char*>(&size), sizeof size) + text;
}

// Row `n` of the folder's tensor is this row of the GGUF's.
int source_row(const Source& source, int n, int head_dim) {
  if (!source.rotated) return n;
  const int in_head = n % head_dim;
  const int half = head_dim / 2;
  return n - in_head + (in_head < half ? 2 * in_head : 2 * (in_head - half) + 1);
}

void write_tensor(const Source& source, const MappedModel& bytes, int head_dim,
                  std::ofstream& out) {
  const auto columns = static_cast<int>(source.tensor->shape.back());
  std::vector<float> values(static_cast<std::size_t>(columns));
  std::vector<std::byte> encoded(row_bytes(Format::kBf16, columns));
  const auto num_rows = static_cast<int>(rows_of(*source.tensor));
  for (int n = 0; n < num_rows; ++n) {
    if (source.tensor->shape.size() == 1) {
      values = bytes.vector(*source.tensor, {0, columns});
    } else {
      const int row = source_row(source, n, head_dim);
      formats::decode_row(source.tensor->format, bytes.rows(*source.tensor, {row, row + 1}).data,
                          columns, values.data());
    }
    formats::encode_row(Format::kBf16, values.data(), columns, encoded.data());
    out.write(reinterpret_cast<const char*>(encoded.data()),
              static_cast<std::streamsize>(encoded.size()));
  }
}

}  // namespace

absl::Status write_bf16_hf(const std::filesystem::path& gguf, const std::filesystem::path& folder) {
  QUIRE_ASSIGN_OR_RETURN(const ModelFile file, open_model(gguf));
  QUIRE_ASSIGN_OR_RETURN(const std::unique_ptr<MappedModel> bytes, MappedModel::open(file));
  QUIRE_ASSIGN_OR_RETURN(const std::vector<Source> sources, sources_of(file));
  std::filesystem::create_directories(folder);
  std::ofstream(folder / "config.json") << config_of(file.spec).dump();
  std::ofstream out(folder / "model.safetensors", std::ios::binary);
  out << header_of(sources);
  for (const Source& source : sources) write_tensor(source, *bytes, file.spec.head_dim, out);
  out.flush();
  if (!out.good()) return absl::DataLossError("cannot write " + folder.string());
  return absl::OkStatus();
}

}  // namespace quire::test

// Every architecture there is, and what can be asked of its rows without reading a tensor's bytes.
#include <algorithm>
#include <array>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "common/check.h"
#include "common/status.h"
#include "worker/model/arch/arch.h"

namespace quire {
namespace {

const Arch* const kArchs[] = {&kLlamaArch, &kMistralArch};

std::vector<std::int64_t> expected_shape(const TensorRow& row, const ModelSpec& spec) {
  if (!is_matrix(row)) return {dim_size(row.rows, spec)};
  return {dim_size(row.rows, spec), dim_size(row.columns, spec)};
}

std::string shape_text(const std::vector<std::int64_t>& shape) {
  return absl::StrCat("[", absl::StrJoin(shape, ", "), "]");
}

std::string file_of(const ModelFile& file, const TensorInfo& tensor) {
  const auto index = static_cast<std::size_t>(tensor.file);
  return index < file.files.size() ? file.files[index] : file.path;
}

// Calls visit(row, layer, tensor) for every tensor that the spec needs.
template <typename Visit>
absl::Status walk(const ModelFile& file, const Arch& arch, Visit visit) {
  for (const TensorRow& row : arch.tensors) {
    if (!is_needed(row, file.spec)) continue;
    const int layers = is_per_layer(row) ? file.spec.num_layers : 1;
    for (int layer = 0; layer < layers; ++layer) {
      QUIRE_ASSIGN_OR_RETURN(const TensorInfo* tensor, find_tensor(file, row, layer));
      visit(row, *tensor);
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<const Arch*> find_arch(const std::string& name) {
  for (const Arch* arch : kArchs) {
    if (name == arch->name) return arch;
  }
  const std::string known =
      absl::StrJoin(kArchs, ", ", [](std::string* out, const Arch* a) { out->append(a->name); });
  return absl::InvalidArgumentError(
      absl::StrCat("The architecture \"", name, "\" is not supported; these are: ", known, "."));
}

int dim_size(Dim dim, const ModelSpec& spec) {
  switch (dim) {
    case Dim::kOne:
      return 1;
    case Dim::kHidden:
      return spec.hidden;
    case Dim::kQuery:
      return spec.num_heads * spec.head_dim;
    case Dim::kKv:
      return spec.num_kv_heads * spec.head_dim;
    case Dim::kFfn:
      return spec.ffn;
    case Dim::kVocab:
      return spec.vocab;
  }
  return 0;
}

bool is_per_layer(const TensorRow& row) {
  return row.role <= Role::kDownBias;
}

bool is_matrix(const TensorRow& row) {
  return row.columns != Dim::kOne;
}

bool is_needed(const TensorRow& row, const ModelSpec& spec) {
  switch (row.need) {
    case Need::kAlways:
      return true;
    case Need::kQkvBias:
      return spec.qkv_bias;
    case Need::kOutBias:
      return spec.out_bias;
    case Need::kMlpBias:
      return spec.mlp_bias;
    case Need::kUntied:
      return !spec.tied_embeddings;
  }
  return false;
}

bool cuts_columns(Cut cut) {
  return cut == Cut::kColumnsByHead || cut == Cut::kColumnsByFfn;
}

Range owned(const TensorRow& row, const ModelSpec& spec, const RankShard& shard) {
  const auto scaled = [&](Range r) {
    return Range{r.begin * spec.head_dim, r.end * spec.head_dim};
  };
  switch (row.cut) {
    case Cut::kNone:
      return {0, dim_size(row.rows, spec)};
    case Cut::kRowsByHead:
    case Cut::kColumnsByHead:
      return scaled(shard.heads);
    case Cut::kRowsByKvHead:
      return scaled(shard.kv_heads);
    case Cut::kRowsByFfn:
    case Cut::kColumnsByFfn:
      return shard.ffn;
    case Cut::kRowsByVocab:
      return shard.vocab;
  }
  return {};
}

std::string tensor_name(const TensorRow& row, bool gguf, int layer) {
  return absl::StrReplaceAll(gguf ? row.gguf : row.hf, {{"{}", absl::StrCat(layer)}});
}

const TensorRow& row_of(const Arch& arch, Role role) {
  for (const TensorRow& row : arch.tensors) {
    if (row.role == role) return row;
  }
  QUIRE_CHECK(false && "an architecture lacks a role");
  return arch.tensors[0];
}

absl::StatusOr<const TensorInfo*> find_tensor(const ModelFile& file, const TensorRow& row,
                                              int layer) {
  const std::string name = tensor_name(row, file.gguf, layer);
  const std::vector<std::int64_t> expected = expected_shape(row, file.spec);
  const TensorInfo* tensor = file.find(name);
  if (tensor == nullptr) {
    return absl::DataLossError(
        absl::StrCat(file.path, ": the tensor ", name, " of shape ", shape_text(expected),
                     " is missing; the file is incomplete or of another architecture than ",
                     file.spec.architecture, "."));
  }
  if (tensor->shape != expected) {
    return absl::InvalidArgumentError(absl::StrCat(
        file_of(file, *tensor), ": the tensor ", name, " has shape ", shape_text(tensor->shape),
        ", but the model's configuration asks for ", shape_text(expected), "."));
  }
  if (!is_matrix(row) && (traits(tensor->format).block != 1 || has_row_scales(tensor->format))) {
    return absl::InvalidArgumentError(absl::StrCat(file_of(file, *tensor), ": the vector ", name,
                                                   " is stored as ", traits(tensor->format).name,
                                                   "; f32, f16 and bf16 are supported."));
  }
  return tensor;
}

absl::Status verify_tensors(const ModelFile& file, const Arch& arch) {
  return walk(file, arch, [](const TensorRow&, const TensorInfo&) {});
}

absl::StatusOr<int> row_parallel_block(const ModelFile& file, const Arch& arch) {
  int block = 1;
  QUIRE_RETURN_IF_ERROR(walk(file, arch, [&](const TensorRow& row, const TensorInfo& tensor) {
    if (cuts_columns(row.cut)) block = std::max(block, traits(tensor.format).cut);
  }));
  return block;
}

absl::StatusOr<Format> dominant_format(const ModelFile& file, const Arch& arch) {
  std::array<std::uint64_t, std::size(kFormatTraits)> bytes{};
  QUIRE_RETURN_IF_ERROR(walk(file, arch, [&](const TensorRow& row, const TensorInfo& tensor) {
    if (is_per_layer(row) && is_matrix(row)) {
      bytes[static_cast<std::size_t>(tensor.format)] += tensor.bytes;
    }
  }));
  return static_cast<Format>(std::max_element(bytes.begin(), bytes.end()) - bytes.begin());
}

absl::StatusOr<std::uint64_t> owned_bytes(const ModelFile& file, const Arch& arch,
                                          const RankShard& shard) {
  std::uint64_t total = 0;
  QUIRE_RETURN_IF_ERROR(walk(file, arch, [&](const TensorRow& row, const TensorInfo& tensor) {
    const int whole =
        cuts_columns(row.cut) ? dim_size(row.columns, file.spec) : dim_size(row.rows, file.spec);
    const int mine = owned(row, file.spec, shard).size();
    total += tensor.bytes / static_cast<std::uint64_t>(whole) * static_cast<std::uint64_t>(mine);
  }));
  return total;
}

}  // namespace quire

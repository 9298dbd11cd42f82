// The weight map is data: one row per canonical tensor of an architecture, with the names it has in
// GGUF and Hugging Face checkpoints, how tensor parallelism cuts it, and its shape in terms of the
// ModelSpec. Loader, sharder and verifier walk this one table.
//
// To add an architecture: write arch/<name>.cpp with its rows, add a line to arch/table.cpp.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/model_file/model_file.h"
#include "common/model_spec.h"
#include "common/shard.h"

namespace quire {

// What a tensor is for; per layer up to kDownBias, once per model after it.
enum class Role {
  kAttentionNorm,
  kQuery,
  kKey,
  kValue,
  kOut,
  kQueryBias,
  kKeyBias,
  kValueBias,
  kOutBias,
  kFfnNorm,
  kGate,
  kUp,
  kDown,
  kGateBias,
  kUpBias,
  kDownBias,
  kEmbedding,
  kFinalNorm,
  kVocabulary,
};

// How ranks divide a tensor. Column-parallel matrices (and their biases) are cut by output rows,
// row-parallel ones by input columns; kNone is kept whole on every rank.
enum class Cut {
  kNone,
  kRowsByHead,
  kRowsByKvHead,
  kRowsByFfn,
  kRowsByVocab,
  kColumnsByHead,
  kColumnsByFfn
};

// A dimension in terms of the spec: 1, E, H * D, G * D, F, V.
enum class Dim { kOne, kHidden, kQuery, kKv, kFfn, kVocab };

// When a checkpoint must have the tensor.
enum class Need { kAlways, kQkvBias, kOutBias, kMlpBias, kUntied };

struct TensorRow {
  Role role;
  const char* name;  // ours, for messages; {} is the layer in all three names
  const char* gguf;
  const char* hf;
  Cut cut;
  Dim rows;     // outputs of a matrix; the length of a vector
  Dim columns;  // inputs of a matrix; kOne for a vector
  Need need;
};

struct Arch {
  const char* name;  // as ModelSpec::architecture
  absl::Span<const TensorRow> tensors;
};

// InvalidArgument lists the architectures there are.
absl::StatusOr<const Arch*> find_arch(const std::string& name);

extern const Arch kLlamaArch;    // arch/llama.cpp
extern const Arch kMistralArch;  // the same

int dim_size(Dim dim, const ModelSpec& spec);
bool is_per_layer(const TensorRow& row);
bool is_needed(const TensorRow& row, const ModelSpec& spec);
bool is_matrix(const TensorRow& row);
// Rows (or columns, for a row-parallel cut) of the tensor that the rank of `shard` owns.
Range owned(const TensorRow& row, const ModelSpec& spec, const RankShard& shard);
bool cuts_columns(Cut cut);

// The file's name of a row's tensor in `layer` (ignored for tensors of the whole model).
std::string tensor_name(const TensorRow& row, bool gguf, int layer);
// The row of `role`; the architecture has it (checked by tests for every architecture).
const TensorRow& row_of(const Arch& arch, Role role);

// The tensor that holds `row` in `layer`. DataLoss (missing) / InvalidArgument (wrong) name file,
// tensor, expected and found shape.
absl::StatusOr<const TensorInfo*> find_tensor(const ModelFile& file, const TensorRow& row,
                                              int layer);
// Fills the list of a folder whose weights are made up, in file->dummy's formats. InvalidArgument
// where a row is not made of whole blocks.
absl::Status add_dummy_tensors(const Arch& arch, ModelFile* file);
// Every tensor that the spec needs is there with the right shape.
absl::Status verify_tensors(const ModelFile& file, const Arch& arch);
// The largest quantization block among row-parallel matrices: what make_shard_map wants.
absl::StatusOr<int> row_parallel_block(const ModelFile& file, const Arch& arch);
// The format that holds most of the layers' matrix bytes: it chooses the KV type.
absl::StatusOr<Format> dominant_format(const ModelFile& file, const Arch& arch);
// Bytes of the checkpoint that the rank of `shard` owns (and reads).
absl::StatusOr<std::uint64_t> owned_bytes(const ModelFile& file, const Arch& arch,
                                          const RankShard& shard);

}  // namespace quire

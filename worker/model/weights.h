// This rank's weights: packed matrices and fp32 vectors in device memory, loaded by a walk over the
// architecture's tensor table. Only the bytes this rank owns are read (or made), and the
// checkpoint's pages are let go as soon as they are packed.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "common/model_file/model_file.h"
#include "common/shard.h"
#include "worker/loader/progress.h"
#include "worker/model/arch/arch.h"
#include "worker/model/linear.h"

namespace quire {

struct LayerWeights {
  DeviceBuffer attention_norm;  // [E]
  ColumnLinear qkv;             // [(Hl + 2 Gl) * D][E]: queries, keys, values
  RowLinear out;                // [E][Hl * D]
  DeviceBuffer ffn_norm;        // [E]
  ColumnLinear gate_up;         // [2 Fl][E]: gate first
  RowLinear down;               // [E][Fl]
};

struct ModelWeights {
  LocalWeight embedding;  // [Vl][E]; no data where this rank owns no ids
  LocalWeight own_vocabulary;
  bool tied = false;
  DeviceBuffer final_norm;  // [E]
  std::vector<LayerWeights> layers;
  std::uint64_t bytes = 0;  // of packed matrices and vectors

  // [Vl][E], the linear to logits: the embedding itself where they are tied.
  const Weight& vocabulary() const { return tied ? embedding.weight : own_vocabulary.weight; }
};

// `file` has passed verify_tensors(). At most `num_threads` threads make what is not read as it
// lies. Errors name file and tensor.
absl::StatusOr<ModelWeights> load_weights(const ModelFile& file, const Arch& arch,
                                          const ShardMap& shards, int rank, Device& device,
                                          int num_threads, const ProgressFn& progress);

}  // namespace quire

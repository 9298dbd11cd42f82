// From a checkpoint's slices to packed weights.
#include "worker/model/weights.h"

#include <algorithm>
#include <memory>

#include "absl/strings/str_cat.h"
#include "worker/loader/local_tensors.h"

namespace quire {
namespace {

class WeightLoader {
 public:
  WeightLoader(const ModelFile& file, const Arch& arch, const RankShard& shard,
               LocalTensors& tensors, Device& device, const ProgressFn& progress)
      : file_(file),
        arch_(arch),
        shard_(shard),
        tensors_(tensors),
        device_(device),
        progress_(progress) {}

  absl::Status start() {
    QUIRE_ASSIGN_OR_RETURN(total_, owned_bytes(file_, arch_, shard_));
    const std::int64_t free = device_.free_bytes();
    if (free > 0 && total_ > static_cast<std::uint64_t>(free)) {
      return absl::ResourceExhaustedError(
          absl::StrCat(file_.path, ": this rank's part of the weights has ", total_ >> 20,
                       " MiB, but its device has ", free >> 20,
                       " MiB free; use more ranks, or another device."));
    }
    progress_(0, total_);
    return absl::OkStatus();
  }

  void finish() { advance(total_ - done_); }

  // The rank's part of a vector (whole norms and output biases, slices of column biases).
  absl::StatusOr<DeviceBuffer> vector(std::initializer_list<Role> roles, int layer) {
    std::vector<float> values;
    std::string name;
    for (const Role role : roles) {
      const TensorRow& row = row_of(arch_, role);
      QUIRE_ASSIGN_OR_RETURN(const TensorInfo* tensor, find_tensor(file_, row, layer));
      const std::vector<float> part = tensors_.vector(*tensor, owned(row, file_.spec, shard_));
      values.insert(values.end(), part.begin(), part.end());
      advance(part.size() * row_bytes(tensor->format, 1));
      name = tensor->name;
    }
    return DeviceBuffer::of_floats(device_, values, name);
  }

  // Matrices over the same input, stacked into one where neighbours share a format.
  absl::StatusOr<ColumnLinear> column(std::initializer_list<Role> roles, int layer) {
    ColumnLinear linear;
    MatrixSource source;
    std::string name;
    for (const Role role : roles) {
      const TensorRow& row = row_of(arch_, role);
      QUIRE_ASSIGN_OR_RETURN(const TensorInfo* tensor, find_tensor(file_, row, layer));
      const Range rows = owned(row, file_.spec, shard_);
      if (rows.empty()) continue;
      if (!source.parts.empty() && source.format != tensor->format) {
        QUIRE_ASSIGN_OR_RETURN(LocalWeight weight, pack(source, name));
        linear.add(std::move(weight));
        source.parts.clear();
      }
      source.format = tensor->format;
      source.columns = static_cast<int>(tensor->shape[1]);
      source.sum = SumPlan::whole(source.columns);
      QUIRE_ASSIGN_OR_RETURN(MatrixPart part, tensors_.rows(*tensor, rows));
      source.parts.push_back(part);
      name = tensor->name;
    }
    if (source.parts.empty()) return linear;
    QUIRE_ASSIGN_OR_RETURN(LocalWeight weight, pack(source, name));
    linear.add(std::move(weight));
    return linear;
  }

  absl::StatusOr<RowLinear> row(Role role, int layer, SumPlan plan) {
    RowLinear linear;
    const TensorRow& table_row = row_of(arch_, role);
    QUIRE_ASSIGN_OR_RETURN(const TensorInfo* tensor, find_tensor(file_, table_row, layer));
    const Range columns = owned(table_row, file_.spec, shard_);
    if (columns.empty()) return linear;
    MatrixSource source;
    source.format = tensor->format;
    source.columns = columns.size();
    source.sum = std::move(plan);
    source.first_column = columns.begin % traits(tensor->format).block;
    QUIRE_ASSIGN_OR_RETURN(MatrixPart part, tensors_.columns(*tensor, columns));
    source.parts = {part};
    QUIRE_ASSIGN_OR_RETURN(LocalWeight weight, pack(source, tensor->name));
    linear.set(std::move(weight));
    return linear;
  }

  // Rows of the vocabulary; nothing where this rank owns none.
  absl::StatusOr<LocalWeight> vocabulary(Role role) {
    const TensorRow& table_row = row_of(arch_, role);
    QUIRE_ASSIGN_OR_RETURN(const TensorInfo* tensor, find_tensor(file_, table_row, 0));
    const Range rows = owned(table_row, file_.spec, shard_);
    if (rows.empty()) return LocalWeight{};
    MatrixSource source;
    source.format = tensor->format;
    source.columns = static_cast<int>(tensor->shape[1]);
    source.sum = SumPlan::whole(source.columns);
    QUIRE_ASSIGN_OR_RETURN(MatrixPart part, tensors_.rows(*tensor, rows));
    source.parts = {part};
    return pack(source, tensor->name);
  }

 private:
  absl::StatusOr<LocalWeight> pack(const MatrixSource& source, const std::string& name) {
    absl::StatusOr<Weight> weight = device_.ops().pack(source);
    if (!weight.ok()) {
      return absl::Status(weight.status().code(), absl::StrCat(file_.path, ": the tensor ", name,
                                                               ": ", weight.status().message()));
    }
    for (const MatrixPart& part : source.parts) {
      tensors_.drop(part);
      advance(static_cast<std::size_t>(part.rows) *
              span_bytes(source.format, source.first_column, source.first_column + source.columns));
    }
    void* memory = weight->data;
    return LocalWeight{*std::move(weight), DeviceBuffer(device_, memory)};
  }

  void advance(std::size_t bytes) {
    done_ = std::min(total_, done_ + bytes);
    progress_(done_, total_);
  }

  const ModelFile& file_;
  const Arch& arch_;
  const RankShard& shard_;
  LocalTensors& tensors_;
  Device& device_;
  const ProgressFn& progress_;
  std::uint64_t done_ = 0, total_ = 0;
};

absl::StatusOr<LayerWeights> load_layer(WeightLoader& load, const ModelSpec& spec,
                                        const ShardMap& shards, const RankShard& shard, int l) {
  LayerWeights layer;
  QUIRE_ASSIGN_OR_RETURN(layer.attention_norm, load.vector({Role::kAttentionNorm}, l));
  QUIRE_ASSIGN_OR_RETURN(layer.qkv, load.column({Role::kQuery, Role::kKey, Role::kValue}, l));
  QUIRE_ASSIGN_OR_RETURN(layer.out,
                         load.row(Role::kOut, l, make_sum_plan(shards.attention, shard.heads)));
  QUIRE_ASSIGN_OR_RETURN(layer.ffn_norm, load.vector({Role::kFfnNorm}, l));
  QUIRE_ASSIGN_OR_RETURN(layer.gate_up, load.column({Role::kGate, Role::kUp}, l));
  QUIRE_ASSIGN_OR_RETURN(layer.down,
                         load.row(Role::kDown, l, make_sum_plan(shards.ffn, shard.ffn_leaves)));
  if (spec.qkv_bias) {
    QUIRE_ASSIGN_OR_RETURN(DeviceBuffer bias,
                           load.vector({Role::kQueryBias, Role::kKeyBias, Role::kValueBias}, l));
    layer.qkv.set_bias(std::move(bias));
  }
  if (spec.out_bias) {
    QUIRE_ASSIGN_OR_RETURN(DeviceBuffer bias, load.vector({Role::kOutBias}, l));
    layer.out.set_bias(std::move(bias));
  }
  if (spec.mlp_bias) {
    QUIRE_ASSIGN_OR_RETURN(DeviceBuffer bias, load.vector({Role::kGateBias, Role::kUpBias}, l));
    layer.gate_up.set_bias(std::move(bias));
    QUIRE_ASSIGN_OR_RETURN(DeviceBuffer down, load.vector({Role::kDownBias}, l));
    layer.down.set_bias(std::move(down));
  }
  return layer;
}

std::uint64_t total_bytes(const ModelWeights& weights, const ModelSpec& spec) {
  const auto vectors = static_cast<std::uint64_t>(2 * spec.num_layers + 1) *
                       static_cast<std::uint64_t>(spec.hidden) * sizeof(float);
  std::uint64_t total =
      vectors + weights.embedding.weight.bytes + weights.own_vocabulary.weight.bytes;
  for (const LayerWeights& layer : weights.layers) {
    total += layer.qkv.bytes() + layer.out.bytes() + layer.gate_up.bytes() + layer.down.bytes();
  }
  return total;
}

}  // namespace

absl::StatusOr<ModelWeights> load_weights(const ModelFile& file, const Arch& arch,
                                          const ShardMap& shards, int rank, Device& device,
                                          int num_threads, const ProgressFn& progress) {
  QUIRE_ASSIGN_OR_RETURN(std::unique_ptr<LocalTensors> tensors,
                         LocalTensors::open(file, num_threads));
  const RankShard& shard = shards.ranks[static_cast<std::size_t>(rank)];
  WeightLoader load(file, arch, shard, *tensors, device, progress);
  QUIRE_RETURN_IF_ERROR(load.start());
  ModelWeights weights;
  weights.tied = file.spec.tied_embeddings;
  QUIRE_ASSIGN_OR_RETURN(weights.embedding, load.vocabulary(Role::kEmbedding));
  for (int l = 0; l < file.spec.num_layers; ++l) {
    QUIRE_ASSIGN_OR_RETURN(LayerWeights layer, load_layer(load, file.spec, shards, shard, l));
    weights.layers.push_back(std::move(layer));
  }
  QUIRE_ASSIGN_OR_RETURN(weights.final_norm, load.vector({Role::kFinalNorm}, 0));
  if (!weights.tied) {
    QUIRE_ASSIGN_OR_RETURN(weights.own_vocabulary, load.vocabulary(Role::kVocabulary));
  }
  load.finish();
  weights.bytes = total_bytes(weights, file.spec);
  return weights;
}

}  // namespace quire

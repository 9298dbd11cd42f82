// The order of a transformer's layers; design.md section 5, step 7.
#include "worker/model/decoder.h"

#include <algorithm>
#include <cmath>

#include "common/check.h"
#include "common/status.h"
#include "worker/model/rope.h"

namespace quire {
namespace {

std::vector<Range> attention_leaves(const ShardMap& shards) {
  std::vector<Range> owned;
  for (const RankShard& shard : shards.ranks) owned.push_back(shard.heads);
  return owned;
}

std::vector<Range> ffn_leaves(const ShardMap& shards) {
  std::vector<Range> owned;
  for (const RankShard& shard : shards.ranks) owned.push_back(shard.ffn_leaves);
  return owned;
}

int widest_vocab(const ShardMap& shards) {
  int width = 0;
  for (const RankShard& shard : shards.ranks) width = std::max(width, shard.vocab.size());
  return width;
}

std::size_t product(int a, int b) {
  return static_cast<std::size_t>(a) * static_cast<std::size_t>(b);
}

int logit_rows(const ShardMap& shards, const DecoderLimits& limits) {
  const std::size_t row_bytes = product(widest_vocab(shards), sizeof(float));
  const auto fit = static_cast<int>(limits.logit_bytes / std::max<std::size_t>(row_bytes, 1));
  return std::max(1, std::min(fit, limits.max_samples));
}

}  // namespace

std::size_t exchange_bytes(const ModelSpec& spec, const ShardMap& shards,
                           const DecoderLimits& limits) {
  const int outputs =
      std::max({make_meet_plan(shards.attention, attention_leaves(shards)).max_outputs,
                make_meet_plan(shards.ffn, ffn_leaves(shards)).max_outputs, 1});
  const std::size_t meet =
      product(limits.max_tokens, spec.hidden) * static_cast<std::size_t>(outputs) * sizeof(float);
  const std::size_t gather =
      product(logit_rows(shards, limits), widest_vocab(shards)) * sizeof(float);
  const std::size_t ids = static_cast<std::size_t>(limits.max_samples) * sizeof(TokenId);
  return std::max({meet, gather, ids});
}

Decoder::Decoder(const ModelSpec& spec, const ShardMap& shards, const ModelWeights& weights,
                 Device& device, Comm& comm, const DecoderLimits& limits)
    : spec_(spec),
      shards_(shards),
      weights_(weights),
      device_(device),
      ops_(device.ops()),
      comm_(comm),
      limits_(limits),
      shard_(shards.ranks[static_cast<std::size_t>(comm.rank())]),
      attention_plan_(make_meet_plan(shards.attention, attention_leaves(shards))),
      ffn_plan_(make_meet_plan(shards.ffn, ffn_leaves(shards))),
      max_logit_rows_(logit_rows(shards, limits)) {
  attention_.num_heads = shard_.heads.size();
  attention_.num_kv_heads = shard_.kv_heads.size();
  attention_.head_dim = spec.head_dim;
  attention_.first_head = shard_.heads.begin;
  attention_.first_kv_head = shard_.kv_heads.begin;
  attention_.group_heads = spec.group_heads();
  attention_.scale = 1.0f / std::sqrt(static_cast<float>(spec.head_dim));
  attention_.window = spec.window;
  attention_.soft_cap = spec.attention_soft_cap;
  for (const RankShard& rank : shards.ranks) {
    vocab_columns_.push_back(rank.vocab.size());
    vocab_ends_.push_back(rank.vocab.end);
  }
}

absl::StatusOr<std::unique_ptr<Decoder>> Decoder::create(const ModelSpec& spec,
                                                         const ShardMap& shards,
                                                         const ModelWeights& weights,
                                                         Device& device, Comm& comm,
                                                         const DecoderLimits& limits) {
  auto decoder = std::unique_ptr<Decoder>(new Decoder(spec, shards, weights, device, comm, limits));
  QUIRE_RETURN_IF_ERROR(decoder->allocate_buffers());
  return decoder;
}

absl::Status Decoder::allocate(ActivationLayout layout, int columns, const char* what,
                               ByLayout& buffers) {
  DeviceBuffer& buffer = buffers[static_cast<std::size_t>(layout)];
  if (buffer.data() != nullptr) return absl::OkStatus();
  QUIRE_ASSIGN_OR_RETURN(
      buffer, DeviceBuffer::allocate(
                  device_, ops_.activation_bytes(layout, limits_.max_tokens, columns), what));
  return absl::OkStatus();
}

absl::Status Decoder::allocate_buffers() {
  const auto floats = [&](int columns) {
    return product(limits_.max_tokens, columns) * sizeof(float);
  };
  QUIRE_ASSIGN_OR_RETURN(
      cos_sin_, DeviceBuffer::of_floats(device_, rope_table(spec_.rope, limits_.max_positions),
                                        "the rotary table"));
  QUIRE_ASSIGN_OR_RETURN(residual_,
                         DeviceBuffer::allocate(device_, floats(spec_.hidden), "the residual"));
  QUIRE_ASSIGN_OR_RETURN(
      qkv_, DeviceBuffer::allocate(device_, floats(qkv_columns()), "queries, keys and values"));
  const auto sampled = [&](int columns) {
    return product(std::min(limits_.max_samples, limits_.max_tokens), columns) * sizeof(float);
  };
  QUIRE_ASSIGN_OR_RETURN(
      sampled_residual_,
      DeviceBuffer::allocate(device_, sampled(spec_.hidden), "the residual of sampled tokens"));
  QUIRE_ASSIGN_OR_RETURN(sampled_qkv_, DeviceBuffer::allocate(device_, sampled(qkv_columns()),
                                                              "the queries of sampled tokens"));
  QUIRE_ASSIGN_OR_RETURN(gate_up_, DeviceBuffer::allocate(device_, floats(2 * shard_.ffn.size()),
                                                          "gate and up activations"));
  for (const LayerWeights& layer : weights_.layers) {
    for (const ColumnLinear* reader : {&layer.qkv, &layer.gate_up}) {
      for (const ActivationLayout layout : reader->layouts()) {
        QUIRE_RETURN_IF_ERROR(allocate(layout, spec_.hidden, "normalized activations", normed_));
      }
    }
    QUIRE_RETURN_IF_ERROR(allocate(layer.out.layout(), attention_.num_heads * spec_.head_dim,
                                   "attention outputs", attended_));
    QUIRE_RETURN_IF_ERROR(
        allocate(layer.down.layout(), shard_.ffn.size(), "gated activations", gated_));
  }
  const std::size_t final_bytes =
      ops_.activation_bytes(weights_.vocabulary().input, max_logit_rows_, spec_.hidden);
  QUIRE_ASSIGN_OR_RETURN(final_, DeviceBuffer::allocate(device_, final_bytes, "final activations"));
  return absl::OkStatus();
}

Activation Decoder::at(const ByLayout& buffers, ActivationLayout layout, int rows, int columns) {
  return {buffers[static_cast<std::size_t>(layout)].data(), layout, rows, columns};
}

Inputs Decoder::normed(int rows) const {
  Inputs inputs;
  for (std::size_t i = 0; i < normed_.size(); ++i) {
    inputs.set(at(normed_, static_cast<ActivationLayout>(i), rows, spec_.hidden));
  }
  return inputs;
}

void Decoder::embed(const Batch& batch) {
  float* part = comm_.begin_select(batch.num_tokens, spec_.hidden);
  if (!shard_.vocab.empty()) {
    ops_.embed(weights_.embedding.weight, shard_.vocab.begin, batch.tokens, batch.num_tokens, part);
  }
  comm_.select(vocab_ends_, batch.tokens, batch.num_tokens, spec_.hidden, residual_.floats());
}

void Decoder::norm_into(const float* norm, absl::Span<const ActivationLayout> layouts, int rows) {
  const Inputs inputs = normed(rows);
  for (const ActivationLayout layout : layouts) {
    ops_.rms_norm(residual_now_, nullptr, rows, spec_.hidden, norm, spec_.norm_eps,
                  inputs.at(layout));
  }
}

void Decoder::meet(const RowLinear& linear, const Activation& in, const MeetPlan& plan, int rows,
                   const float* norm, const ColumnLinear* reader) {
  MeetArgs args;
  args.plan = &plan;
  args.rows = rows;
  args.columns = spec_.hidden;
  args.residual = residual_now_;
  args.eps = spec_.norm_eps;
  const bool has_reader = reader != nullptr && !reader->layouts().empty();
  if (has_reader) {
    args.norm_weight = norm;
    args.out = normed(rows).at(reader->layouts()[0]);
  }
  linear.forward(ops_, comm_, in, args);
  if (has_reader) {
    norm_into(norm, absl::MakeConstSpan(reader->layouts()).subspan(1), rows);
  }
}

void Decoder::store_kv(const LayerWeights& layer, const Batch& batch, const KvLayer& kv) {
  layer.qkv.forward(ops_, normed(batch.num_tokens), qkv_now_);
  ops_.rope_store(qkv_now_, attention_, spec_.rope, cos_sin_.floats(), batch, kv);
}

Batch Decoder::narrow(const Batch& batch) {
  const SampledTokens& sampled = batch.sampled;
  const auto take = [&](float* from, int columns, const DeviceBuffer& to) {
    ops_.take_rows(from, sampled.tokens, sampled.num_tokens, columns, to.floats());
    return to.floats();
  };
  residual_now_ = take(residual_now_, spec_.hidden, sampled_residual_);
  qkv_now_ = take(qkv_now_, qkv_columns(), sampled_qkv_);
  sample_tokens_ = sampled.sample_tokens;
  return only_sampled(batch);
}

void Decoder::attention_block(const LayerWeights& layer, const Batch& batch, const KvLayer& kv) {
  const int rows = batch.num_tokens;
  const Activation attended =
      at(attended_, layer.out.layout(), rows, attention_.num_heads * spec_.head_dim);
  ops_.attention(qkv_now_, attention_, batch, kv, attended);
  meet(layer.out, attended, attention_plan_, rows, layer.ffn_norm.floats(), &layer.gate_up);
}

void Decoder::ffn_block(const LayerWeights& layer, const LayerWeights* next, const Batch& batch) {
  const int rows = batch.num_tokens;
  const Activation gated = at(gated_, layer.down.layout(), rows, shard_.ffn.size());
  if (!shard_.ffn.empty()) {
    layer.gate_up.forward(ops_, normed(rows), gate_up_.floats());
    ops_.gated(spec_.gate, gate_up_.floats(), rows, shard_.ffn.size(), gated);
  }
  meet(layer.down, gated, ffn_plan_, rows,
       next != nullptr ? next->attention_norm.floats() : nullptr,
       next != nullptr ? &next->qkv : nullptr);
}

void Decoder::forward(const Batch& batch, absl::Span<const KvLayer> kv) {
  QUIRE_CHECK_LE(batch.num_tokens, limits_.max_tokens);
  QUIRE_CHECK_EQ(kv.size(), weights_.layers.size());
  residual_now_ = residual_.floats();
  qkv_now_ = qkv_.floats();
  sample_tokens_ = batch.sample_tokens;
  embed(batch);
  const LayerWeights& first = weights_.layers.front();
  norm_into(first.attention_norm.floats(), first.qkv.layouts(), batch.num_tokens);
  Batch now = batch;
  for (std::size_t l = 0; l < weights_.layers.size(); ++l) {
    const bool last = l + 1 == weights_.layers.size();
    store_kv(weights_.layers[l], now, kv[l]);
    if (last && batch.sampled.tokens != nullptr) {
      if (batch.sampled.num_tokens == 0) return;
      now = narrow(batch);
    }
    attention_block(weights_.layers[l], now, kv[l]);
    ffn_block(weights_.layers[l], last ? nullptr : &weights_.layers[l + 1], now);
  }
}

Gathered Decoder::logits(const Batch& batch, int first, int count) {
  QUIRE_CHECK_LE(count, max_logit_rows_);
  QUIRE_CHECK_LE(first + count, batch.num_samples);
  float* part = comm_.begin_gather(count, vocab_columns_);
  if (!shard_.vocab.empty()) {
    const Weight& vocabulary = weights_.vocabulary();
    const Activation hidden{final_.data(), vocabulary.input, count, spec_.hidden};
    ops_.rms_norm(residual_now_, sample_tokens_ + first, count, spec_.hidden,
                  weights_.final_norm.floats(), spec_.norm_eps, hidden);
    ops_.linear(vocabulary, hidden, nullptr, part, static_cast<std::size_t>(shard_.vocab.size()),
                0);
  }
  return comm_.gather(count, vocab_columns_);
}

}  // namespace quire

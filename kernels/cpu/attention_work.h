// How an attention op is divided among threads: work items (sequence, tile of query tokens, KV
// head or all of them, and for single tokens split of the context), dealt by a counter. Which
// thread computes an item changes nothing; whoever finishes the last item of a query tile merges
// its splits in order and converts its rows. Many decoding rows are divided among the threads
// instead, which then may be in different ops.
#pragma once

#include <atomic>
#include <memory>
#include <vector>

#include "common/shard.h"
#include "kernels/batch.h"
#include "kernels/cpu/vector_ops.h"

namespace quire::cpu {

// Buffers that all attention ops of a device share: they run one after the other, or use what
// belongs to their thread's rows alone. Grown when an op is enqueued, used when it runs.
class AttentionScratch {
 public:
  explicit AttentionScratch(int num_threads) : per_thread_(static_cast<std::size_t>(num_threads)) {}

  void reserve(const AttentionSpec& spec, const Batch& batch, bool rows_need_conversion);

  float* of_thread(int thread) {
    const auto begin =
        reinterpret_cast<std::uintptr_t>(per_thread_[static_cast<std::size_t>(thread)].data());
    return reinterpret_cast<float*>((begin + 63) / 64 * 64);
  }
  float* rows() { return rows_.data(); }          // [T][Hl * D]
  float* partials() { return partials_.data(); }  // [B][splits][Hl][partial_stride]
  // Finished items of the query tile that begins at token t; zero between ops.
  std::atomic<int>& done(int t) { return done_[static_cast<std::size_t>(t)]; }

 private:
  std::vector<std::vector<float>> per_thread_;
  std::vector<float> rows_;
  std::vector<float> partials_;
  std::vector<std::atomic<int>> done_;
};

class AttentionWork {
 public:
  AttentionWork(const VectorOps& ops, const float* qkv, const AttentionSpec& spec,
                const Batch& batch, const KvLayer& kv, const Activation& out,
                AttentionScratch& scratch);

  void run(int thread, int num_threads);
  // Instead of run(), where divides_rows(): tokens of a thread, all of their sequences. It stored
  // K and V of them itself.
  void run_rows(Range tokens, int thread);
  // Not with long contexts, nor with prompts: the threads that do not have them would wait.
  static bool divides_rows(const Batch& batch, int num_threads);

 private:
  // One sequence of the batch and how its work is cut.
  struct Row {
    int index = 0;
    int begin = 0;  // its tokens
    int end = 0;
    int tiles = 0;
    int tile_tokens = 0;  // of each but the last
    int first_split = 0;  // where it is cut
    int splits = 1;       // each an item, or 1: one item takes all of the context
    int head_items = 1;   // KV heads one by one, or 1: one item takes all of them
    int items_per_tile() const { return splits * head_items; }
  };
  Row row_at(int index, int num_threads) const;
  void run_item(const Row& row, int item, int thread);
  // One KV head of an item; next_g is the one after it, to be read ahead.
  void run_head(AttendJob job, int token, int g, int next_g);
  void finish_tile(const Row& row, int first_token, int num_tokens);
  float* partial_of(int row, int split) const;
  float* rows() const;  // where results go before conversion
  std::size_t row_stride() const;

  const VectorOps& ops_;
  const float* qkv_;
  const AttentionSpec spec_;
  const Batch batch_;
  const KvLayer kv_;
  const RowTarget out_;
  AttentionScratch& scratch_;
  const bool convert_;  // rows are computed in scratch and converted to out
  std::shared_ptr<std::atomic<int>> next_ = std::make_shared<std::atomic<int>>(0);
};

// K and V of local head 0; the other heads follow at kv_head_bytes.
KvHead kv_head(const KvLayer& kv);
std::size_t kv_head_bytes(DType dtype, int head_dim, int block_size);
std::size_t kv_block_bytes(DType dtype, int num_kv_heads, int head_dim, int block_size);
// The first position that a token sees; `window` as in AttentionSpec.
int first_seen(int window, int position);
// The first row whose tokens all come from `token` on.
int first_row_from(const Batch& batch, int token);

}  // namespace quire::cpu

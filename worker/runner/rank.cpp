// Assembly of one rank, and the facts it presents about itself.
#include "worker/runner/rank.h"

#include <algorithm>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/hash.h"
#include "common/status.h"
#include "worker/model/arch/arch.h"

namespace quire {
namespace {

// Part of the numerics id: raised when the rule by which leaves are cut or merged changes.
constexpr int kLeafRule = 1;

// While weights are loaded its group computes nothing: the host's cores divided among its ranks.
int loader_threads(const RankPlace& place) {
  const auto cores = static_cast<int>(std::thread::hardware_concurrency());
  return std::max(1, cores / std::max(1, place.num_on_host()));
}

}  // namespace

absl::StatusOr<std::unique_ptr<Rank>> Rank::load(ModelFile file, std::unique_ptr<Device> device,
                                                 const RankPlace& place,
                                                 const ProgressFn& progress) {
  auto rank = std::unique_ptr<Rank>(new Rank());
  rank->file_ = std::move(file);
  rank->place_ = place;
  rank->device_ = std::move(device);
  const ModelFile& model = rank->file_;
  QUIRE_ASSIGN_OR_RETURN(const Arch* arch, find_arch(model.spec.architecture));
  if (model.dummy) QUIRE_RETURN_IF_ERROR(add_dummy_tensors(*arch, &rank->file_));
  QUIRE_RETURN_IF_ERROR(verify_tensors(model, *arch));
  QUIRE_ASSIGN_OR_RETURN(const int block, row_parallel_block(model, *arch));
  QUIRE_ASSIGN_OR_RETURN(rank->shards_, make_shard_map(model.spec, place.world, block));
  QUIRE_ASSIGN_OR_RETURN(const Format format, dominant_format(model, *arch));
  rank->kv_dtype_ = rank->device_->ops().kv_dtype(format);
  QUIRE_ASSIGN_OR_RETURN(rank->weights_,
                         load_weights(model, *arch, rank->shards_, place.rank, *rank->device_,
                                      loader_threads(place), progress));
  return rank;
}

std::string Rank::collective_kind() const {
  return place_.world > 1 ? device_->collective_kind() : "";
}

absl::StatusOr<std::unique_ptr<Comm>> Rank::open_comm(const CommOptions& options,
                                                      const std::string& collective_id) {
  if (device_->collective_kind().empty()) return open_host_comm(options, *device_);
  std::unique_ptr<Collective> collective;
  if (options.world > 1) {
    QUIRE_ASSIGN_OR_RETURN(collective,
                           device_->open_collective(
                               {options.rank, options.world, collective_id, options.deadline_ms}));
  }
  return open_device_comm(options, *device_, std::move(collective));
}

absl::Status Rank::start(const StepLimits& limits, const std::string& comm_name,
                         const std::string& collective_id, int deadline_ms) {
  runner_.reset();  // before the communicator that its steps use
  comm_.reset();
  CommOptions options;
  options.rank = place_.rank;
  options.world = place_.world;
  options.name = comm_name;
  options.part_bytes = exchange_bytes(file_.spec, shards_, decoder_limits(limits, *device_));
  options.deadline_ms = deadline_ms;
  options.first_local_rank = place_.first_local_rank;
  options.num_local_ranks = place_.num_local_ranks;
  options.num_on_host = place_.num_on_host();
  QUIRE_ASSIGN_OR_RETURN(comm_, open_comm(options, collective_id));
  const RunnerParts parts{&file_.spec,   &shards_,    &weights_,
                          device_.get(), comm_.get(), store_.get()};
  QUIRE_ASSIGN_OR_RETURN(runner_, Runner::create(parts, kv_shape(limits.block_size), limits));
  return absl::OkStatus();
}

KvShape Rank::kv_shape(int block_size) const {
  const RankShard& shard = shards_.ranks[static_cast<std::size_t>(place_.rank)];
  return {kv_dtype_, file_.spec.num_layers, shard.kv_heads.size(), file_.spec.head_dim, block_size};
}

std::size_t Rank::kv_block_bytes(int block_size) const {
  return kv_bytes_per_block(kv_shape(block_size), device_->ops());
}

bool Rank::kv_replicated() const {
  const Range mine = shards_.ranks[static_cast<std::size_t>(place_.rank)].kv_heads;
  for (std::size_t r = 0; r < shards_.ranks.size(); ++r) {
    const Range theirs = shards_.ranks[r].kv_heads;
    const bool overlap = mine.begin < theirs.end && theirs.begin < mine.end;
    if (r != static_cast<std::size_t>(place_.rank) && overlap) return true;
  }
  return false;
}

std::string Rank::numerics_id() const {
  return absl::StrFormat("%s kv=%s leaves=%d model=%016x", device_->numerics_id(),
                         name_of(kv_dtype_), kLeafRule, file_.hash);
}

std::string Rank::layout_digest(int block_size) const {
  std::string text =
      absl::StrCat("block_size ", block_size, " kv ", name_of(kv_dtype_), " world ", shards_.world);
  for (const RankShard& shard : shards_.ranks) {
    for (const Range range :
         {shard.heads, shard.kv_heads, shard.ffn_leaves, shard.ffn, shard.vocab}) {
      absl::StrAppend(&text, " ", range.begin, "-", range.end);
    }
  }
  for (const Range leaf : shards_.ffn.leaves) absl::StrAppend(&text, " ", leaf.begin);
  return absl::StrFormat("%016x", hash64(0, text));
}

}  // namespace quire

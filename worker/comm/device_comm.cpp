// The Comm of devices whose memory the host cannot reach: exchanges over a Collective, arithmetic
// by Ops. One rank alone has no collective, exchanges nothing, and needs device memory all the
// same.
//
// Parts lie as [world][stride] in one of two halves, this rank's at its own place, so that
// gathering moves nothing twice. Exchanges take the halves in turn: what gather() returned is
// written over by the exchange after the next one. Where the collective reaches peers' memory,
// parts are not moved: ranks meet, then read them where they are (one shot). A large sum of more
// than two ranks goes in two shots: each rank sums its share of the rows, then takes the other
// rows' sums from their ranks. Every exchange but a broadcast is a barrier, and nobody reads a
// broadcast in place: so a half that is written again has been read by all.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "common/status.h"
#include "worker/comm/comm.h"
#include "worker/device_buffer.h"

namespace quire {
namespace {

// A rank's part, from which on more than two ranks sum in two shots: what others have measured over
// NVLink (their limits for one shot lie between 256 KB and 512 KB).
constexpr std::size_t kTwoShotBytes = std::size_t{256} << 10;

std::size_t align64(std::size_t bytes) {
  return (bytes + 63) / 64 * 64;
}

class DeviceComm final : public Comm {
 public:
  DeviceComm(const CommOptions& options, Device& device, std::unique_ptr<Collective> collective)
      : options_(options), device_(device), collective_(std::move(collective)) {}

  absl::Status allocate() {
    const std::string what = "a buffer of the ranks' exchanges";
    const std::size_t part = align64(options_.part_bytes);
    const std::size_t bytes = part * static_cast<std::size_t>(options_.world);
    for (int half = 0; half < 2; ++half) {
      if (collective_ == nullptr) {
        QUIRE_ASSIGN_OR_RETURN(own_[half], DeviceBuffer::allocate(device_, bytes, what));
        halves_[half] = static_cast<std::byte*>(own_[half].data());
      } else {
        QUIRE_ASSIGN_OR_RETURN(void* const memory, collective_->allocate(bytes, what));
        halves_[half] = static_cast<std::byte*>(memory);
      }
    }
    if (options_.world > 2) {
      QUIRE_ASSIGN_OR_RETURN(void* const memory, collective_->allocate(part, what));
      sums_ = static_cast<float*>(memory);
    }
    in_place_ = options_.world > 1 && collective_->peer(halves_[0], 0) != nullptr;
    return absl::OkStatus();
  }

  int rank() const override { return options_.rank; }
  int world() const override { return options_.world; }
  std::string description() const override {
    if (collective_ == nullptr) return "solo";
    return absl::StrCat(collective_->description(), in_place_ ? ", read in place" : "", ", ",
                        options_.world, " ranks");
  }

  float* begin_meet(const MeetPlan& plan, int rows, int columns) override {
    return begin(static_cast<std::size_t>(plan.max_outputs) * floats(rows, columns));
  }

  void meet(const MeetArgs& args) override {
    share();
    if (in_place_ && options_.world > 2 && stride_ >= kTwoShotBytes && args.rows >= world()) {
      combine_in_two_shots(args);
    } else {
      combine(args, {0, args.rows}, args.norm_weight);
    }
  }

  float* begin_select(int rows, int columns) override { return begin(floats(rows, columns)); }

  void select(absl::Span<const TokenId> ends, const TokenId* tokens, int rows, int columns,
              float* out) override {
    share();
    std::vector<const float*> parts;
    for (int r = 0; r < options_.world; ++r) parts.push_back(reachable_part(r));
    device_.ops().select(parts, ends, tokens, rows, columns, out);
  }

  float* begin_gather(int rows, absl::Span<const int> columns_by_rank) override {
    const int widest = *std::max_element(columns_by_rank.begin(), columns_by_rank.end());
    return begin(floats(rows, widest));
  }

  // Gathered in any case: samplers read the pieces several times.
  Gathered gather(int, absl::Span<const int> columns_by_rank) override {
    if (collective_ != nullptr) collective_->all_gather(part(rank()), halves_[half_], stride_);
    Gathered gathered;
    for (int r = 0; r < options_.world; ++r) {
      gathered.pieces.push_back(part(r));
      gathered.strides.push_back(
          static_cast<std::size_t>(columns_by_rank[static_cast<std::size_t>(r)]));
    }
    return gathered;
  }

  void broadcast(void* data, std::size_t bytes, int root) override {
    if (collective_ == nullptr) return;
    collective_->broadcast(data, bytes, root);
  }

  int phase() const override { return half_; }

  void abort() override {
    if (collective_ != nullptr) collective_->abort();
  }

 private:
  static std::size_t floats(int rows, int columns) {
    return static_cast<std::size_t>(rows) * static_cast<std::size_t>(columns);
  }

  // This rank's place in the next half.
  float* begin(std::size_t num_floats) {
    stride_ = align64(num_floats * sizeof(float));
    QUIRE_CHECK_LE(stride_, align64(options_.part_bytes));
    half_ = 1 - half_;
    return part(rank());
  }
  float* part(int rank_of_part) {
    return reinterpret_cast<float*>(halves_[half_] +
                                    static_cast<std::size_t>(rank_of_part) * stride_);
  }
  // Everybody's part, from here on where reachable_part() says.
  void share() {
    if (in_place_) {
      collective_->meet();
    } else if (collective_ != nullptr) {
      collective_->all_gather(part(rank()), halves_[half_], stride_);
    }
  }
  const float* reachable_part(int rank_of_part) {
    float* const here = part(rank_of_part);
    if (!in_place_ || rank_of_part == rank()) return here;
    return static_cast<const float*>(collective_->peer(here, rank_of_part));
  }

  // Rows `range` of the sum onto the residual, and their norm where `norm_weight` is set.
  void combine(const MeetArgs& args, Range range, const float* norm_weight) {
    const std::size_t first = floats(range.begin, args.columns);
    std::vector<const float*> partials;
    partials.reserve(args.plan->sources.size());
    for (const MeetPlan::Source& source : args.plan->sources) {
      partials.push_back(reachable_part(source.rank) +
                         static_cast<std::size_t>(source.output) * floats(args.rows, args.columns) +
                         first);
    }
    CombineArgs job;
    job.program = args.plan->program;
    job.partials = partials;
    job.rows = range.size();
    job.columns = args.columns;
    job.bias = args.bias;
    job.residual = args.residual + first;
    job.norm_weight = norm_weight;
    job.eps = args.eps;
    job.out = args.out;
    device_.ops().combine(job);
  }

  Range share_of_rows(int rank_of_share, int rows) const {
    const auto bound = [&](int r) {
      return static_cast<int>(std::int64_t{rows} * r / options_.world);
    };
    return {bound(rank_of_share), bound(rank_of_share + 1)};
  }

  void combine_in_two_shots(const MeetArgs& args) {
    const auto place = [&](Range rows) { return args.residual + floats(rows.begin, args.columns); };
    const auto bytes = [&](Range rows) {
      return floats(rows.size(), args.columns) * sizeof(float);
    };
    const Range mine = share_of_rows(rank(), args.rows);
    combine(args, mine, nullptr);
    device_.copy(sums_, place(mine), bytes(mine));
    collective_->meet();
    for (int r = 0; r < options_.world; ++r) {
      const Range theirs = share_of_rows(r, args.rows);
      if (r != rank()) device_.copy(place(theirs), collective_->peer(sums_, r), bytes(theirs));
    }
    if (args.norm_weight == nullptr) return;
    device_.ops().rms_norm(args.residual, nullptr, args.rows, args.columns, args.norm_weight,
                           args.eps, args.out);
  }

  const CommOptions options_;
  Device& device_;
  const std::unique_ptr<Collective> collective_;  // null: one rank alone
  DeviceBuffer own_[2];                           // without a collective
  std::byte* halves_[2] = {};                     // [world][stride_] in an exchange
  float* sums_ = nullptr;                         // [rows of this rank][E], of two shots
  bool in_place_ = false;                         // peers' parts are read where they are
  int half_ = 0;                                  // of the exchange begun last
  std::size_t stride_ = 0;                        // bytes per rank in it
};

}  // namespace

absl::StatusOr<std::unique_ptr<Comm>> open_device_comm(const CommOptions& options, Device& device,
                                                       std::unique_ptr<Collective> collective) {
  QUIRE_CHECK_EQ(options.world > 1, collective != nullptr);
  auto comm = std::make_unique<DeviceComm>(options, device, std::move(collective));
  QUIRE_RETURN_IF_ERROR(comm->allocate());
  return comm;
}

}  // namespace quire

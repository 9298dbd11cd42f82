// The Comm of devices whose memory the host cannot reach: exchanges over a Collective, arithmetic
// by Ops. One rank alone has no collective, exchanges nothing, and needs device memory all the
// same.
//
// Parts lie as [world][stride] in one of two halves, this rank's at its own place, so that
// gathering moves nothing twice. Exchanges take the halves in turn: what gather() returned is
// written over by the exchange after the next one. Where the collective reaches peers' memory,
// parts are not moved: ranks meet, then read them where they are (one shot), or each rank sums its
// share of the rows and takes the other rows' sums from their ranks (two shots). Which way pays is
// measured at start where exchanges may be large (sum_table.h). Every exchange but a broadcast is a
// barrier, and broadcasts use no half: so a half that is written again has been read by all.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "common/check.h"
#include "common/clock.h"
#include "common/status.h"
#include "worker/comm/comm.h"
#include "worker/comm/sum_table.h"
#include "worker/device_buffer.h"

namespace quire {
namespace {

// Where exchanges stay below this there is little to choose.
constexpr std::size_t kMeasuredBytes = std::size_t{1} << 20;
constexpr int kMeasuredColumns = 4096;
constexpr int kWarmups = 2, kMeasuredSums = 8;

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
    table_ = usual_sum_table(options_.world);
    if (in_place_ && options_.measure && part >= kMeasuredBytes) return measure();
    return absl::OkStatus();
  }

  int rank() const override { return options_.rank; }
  int world() const override { return options_.world; }
  std::string description() const override {
    if (collective_ == nullptr) return "solo";
    return absl::StrCat(
        collective_->description(),
        in_place_ ? absl::StrCat(", read in place (", table_.description(), ")") : "", ", ",
        options_.world, " ranks");
  }

  float* begin_meet(const MeetPlan& plan, int rows, int columns) override {
    return begin(static_cast<std::size_t>(plan.max_outputs) * floats(rows, columns));
  }

  void meet(const MeetArgs& args) override { meet(args, table_.way_for(stride_)); }

  float* begin_select(int rows, int columns) override { return begin(floats(rows, columns)); }

  void select(absl::Span<const TokenId> ends, const TokenId* tokens, int rows, int columns,
              float* out) override {
    share(in_place_);
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
  void meet(const MeetArgs& args, SumWay way) {
    share(in_place_ && way != SumWay::kGathered);
    if (shared_in_place_ && way == SumWay::kTwoShot && sums_ != nullptr && args.rows >= world()) {
      combine_in_two_shots(args);
    } else {
      combine(args, {0, args.rows}, args.norm_weight);
    }
  }
  // Everybody's part, from here on where reachable_part() says.
  void share(bool in_place) {
    shared_in_place_ = in_place;
    if (in_place) {
      collective_->meet();
    } else if (collective_ != nullptr) {
      collective_->all_gather(part(rank()), halves_[half_], stride_);
    }
  }
  const float* reachable_part(int rank_of_part) {
    float* const here = part(rank_of_part);
    if (!shared_in_place_ || rank_of_part == rank()) return here;
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

  // All ranks do all of it; what rank 0 found is used by all.
  absl::Status measure() {
    const std::size_t part = align64(options_.part_bytes);
    QUIRE_ASSIGN_OR_RETURN(const DeviceBuffer residual,
                           DeviceBuffer::allocate(device_, part, "measuring the ranks' sums"));
    SumTable found = table_;
    for (int i = 0; i < SumTable::kSizes; ++i) {
      const int rows = static_cast<int>(SumTable::bytes_of(i) / (kMeasuredColumns * sizeof(float)));
      if (SumTable::bytes_of(i) > part) {
        if (i > 0)
          found.ways[static_cast<std::size_t>(i)] = found.ways[static_cast<std::size_t>(i - 1)];
        continue;
      }
      absl::Duration best = absl::InfiniteDuration();
      for (int w = 0; w < kSumWays; ++w) {
        const auto way = static_cast<SumWay>(w);
        if (way == SumWay::kTwoShot && (sums_ == nullptr || rows < world())) continue;
        QUIRE_ASSIGN_OR_RETURN(const absl::Duration spent, time(way, rows, residual.floats()));
        if (spent >= best) continue;
        best = spent;
        found.ways[static_cast<std::size_t>(i)] = way;
      }
    }
    return agree_on(found, residual.data());
  }
  absl::StatusOr<absl::Duration> time(SumWay way, int rows, float* residual) {
    LeafCut cut;  // a leaf of each rank
    cut.tree = ReductionTree::over_leaves(world());
    std::vector<Range> owned;
    for (int r = 0; r < world(); ++r) {
      cut.leaves.push_back({r, r + 1});
      owned.push_back({r, r + 1});
    }
    const MeetPlan plan = make_meet_plan(cut, owned);
    MeetArgs args;
    args.plan = &plan;
    args.rows = rows;
    args.columns = kMeasuredColumns;
    args.residual = residual;
    absl::Time begun;
    for (int i = 0; i < kWarmups + kMeasuredSums; ++i) {
      if (i == kWarmups) {
        QUIRE_RETURN_IF_ERROR(device_.wait());
        begun = steady_now();
      }
      begin_meet(plan, rows, kMeasuredColumns);
      meet(args, way);
    }
    QUIRE_RETURN_IF_ERROR(device_.wait());
    return steady_now() - begun;
  }
  absl::Status agree_on(SumTable found, void* memory) {
    device_.copy(memory, &found, sizeof found);
    collective_->broadcast(memory, sizeof found, 0);
    device_.copy(&table_, memory, sizeof table_);
    return device_.wait();
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
  bool in_place_ = false;                         // peers' parts can be read where they are
  bool shared_in_place_ = false;                  // and are, in the exchange begun last
  SumTable table_;
  int half_ = 0;            // of the exchange begun last
  std::size_t stride_ = 0;  // bytes per rank in it
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

// The Comm of devices whose memory the host cannot reach: exchanges over a Collective, arithmetic
// by Ops. One rank alone has no collective, exchanges nothing, and needs device memory all the
// same.
//
// Parts lie as [world][stride] in one of two halves, this rank's at its own place, so that
// gathering moves nothing twice. Exchanges take the halves in turn: what gather() returned is
// written over by the exchange after the next one.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "common/status.h"
#include "worker/comm/comm.h"
#include "worker/device_buffer.h"

namespace quire {
namespace {

std::size_t align64(std::size_t bytes) {
  return (bytes + 63) / 64 * 64;
}

class DeviceComm final : public Comm {
 public:
  DeviceComm(const CommOptions& options, Device& device, std::unique_ptr<Collective> collective)
      : options_(options), device_(device), collective_(std::move(collective)) {}

  absl::Status allocate() {
    const std::size_t bytes =
        align64(options_.part_bytes) * static_cast<std::size_t>(options_.world);
    for (int half = 0; half < 2; ++half) {
      const std::string what = "a buffer of the ranks' exchanges";
      if (collective_ == nullptr) {
        QUIRE_ASSIGN_OR_RETURN(own_[half], DeviceBuffer::allocate(device_, bytes, what));
        halves_[half] = static_cast<std::byte*>(own_[half].data());
      } else {
        QUIRE_ASSIGN_OR_RETURN(void* const memory, collective_->allocate(bytes, what));
        halves_[half] = static_cast<std::byte*>(memory);
      }
    }
    return absl::OkStatus();
  }

  int rank() const override { return options_.rank; }
  int world() const override { return options_.world; }
  std::string description() const override {
    if (collective_ == nullptr) return "solo";
    return absl::StrCat(collective_->description(), ", ", options_.world, " ranks");
  }

  float* begin_meet(const MeetPlan& plan, int rows, int columns) override {
    return begin(static_cast<std::size_t>(plan.max_outputs) * floats(rows, columns));
  }

  void meet(const MeetArgs& args) override {
    exchange();
    std::vector<const float*> partials;
    partials.reserve(args.plan->sources.size());
    for (const MeetPlan::Source& source : args.plan->sources) {
      partials.push_back(part(source.rank) +
                         static_cast<std::size_t>(source.output) * floats(args.rows, args.columns));
    }
    CombineArgs combine;
    combine.program = args.plan->program;
    combine.partials = partials;
    combine.rows = args.rows;
    combine.columns = args.columns;
    combine.bias = args.bias;
    combine.residual = args.residual;
    combine.norm_weight = args.norm_weight;
    combine.eps = args.eps;
    combine.out = args.out;
    device_.ops().combine(combine);
  }

  float* begin_select(int rows, int columns) override { return begin(floats(rows, columns)); }

  void select(const std::int32_t* owners, int rows, int columns, float* out) override {
    exchange();
    std::vector<const float*> parts;
    for (int r = 0; r < options_.world; ++r) parts.push_back(part(r));
    device_.ops().select(parts, owners, rows, columns, out);
  }

  float* begin_gather(int rows, absl::Span<const int> columns_by_rank) override {
    const int widest = *std::max_element(columns_by_rank.begin(), columns_by_rank.end());
    return begin(floats(rows, widest));
  }

  Gathered gather(int, absl::Span<const int> columns_by_rank) override {
    exchange();
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
    begin((bytes + sizeof(float) - 1) / sizeof(float));
    float* const sent = part(0);  // the same place on every rank
    if (rank() == root) device_.copy(sent, data, bytes);
    collective_->broadcast(sent, bytes, root);
    if (rank() != root) device_.copy(data, sent, bytes);
  }

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
  void exchange() {
    if (collective_ != nullptr) collective_->all_gather(part(rank()), halves_[half_], stride_);
  }

  const CommOptions options_;
  Device& device_;
  const std::unique_ptr<Collective> collective_;  // null: one rank alone
  DeviceBuffer own_[2];                           // without a collective
  std::byte* halves_[2] = {};                     // [world][stride_] in an exchange
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

// The CPU's Comm: exchanges over a Transport, arithmetic by Ops. Exchange numbers are given when a
// call is enqueued; all ranks enqueue the same calls in the same order, so the numbers agree.
#include <cstring>

#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "worker/comm/comm.h"
#include "worker/comm/transport.h"

namespace quire {
namespace {

std::size_t align64(std::size_t bytes) {
  return (bytes + 63) / 64 * 64;
}

class HostComm final : public Comm {
 public:
  HostComm(const CommOptions& options, Device& device, std::unique_ptr<Transport> transport)
      : options_(options), device_(device), transport_(std::move(transport)) {}

  int rank() const override { return options_.rank; }
  int world() const override { return options_.world; }
  std::string description() const override {
    if (options_.world == 1) return transport_->name();
    return absl::StrCat(transport_->name(), ", ", options_.num_local_ranks, " of ", options_.world,
                        " ranks on this host");
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

  void select(absl::Span<const TokenId> ends, const TokenId* tokens, int rows, int columns,
              float* out) override {
    exchange();
    std::vector<const float*> parts;
    for (int r = 0; r < options_.world; ++r) parts.push_back(part(r));
    device_.ops().select(parts, ends, tokens, rows, columns, out);
  }

  float* begin_gather(int rows, absl::Span<const int> columns_by_rank) override {
    return begin(floats(rows, widest(columns_by_rank)));
  }

  Gathered gather(int rows, absl::Span<const int> columns_by_rank) override {
    (void)rows;
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
    if (options_.world == 1) return;
    float* mine = begin((bytes + 3) / 4);
    if (rank() == root) {
      device_.host_task([mine, data, bytes] {
        std::memcpy(mine, data, bytes);
        return absl::OkStatus();
      });
    }
    exchange();
    if (rank() != root) {
      const float* theirs = part(root);
      device_.host_task([theirs, data, bytes] {
        std::memcpy(data, theirs, bytes);
        return absl::OkStatus();
      });
    }
  }

  int phase() const override { return 0; }  // host devices keep nothing

  void abort() override { transport_->abort(); }

 private:
  static std::size_t floats(int rows, int columns) {
    return static_cast<std::size_t>(rows) * static_cast<std::size_t>(columns);
  }
  static int widest(absl::Span<const int> columns) {
    int width = 0;
    for (int c : columns) width = std::max(width, c);
    return width;
  }

  float* begin(std::size_t num_floats) {
    stride_ = align64(num_floats * sizeof(float));
    QUIRE_CHECK_LE(stride_, align64(options_.part_bytes));
    ++exchange_;
    return reinterpret_cast<float*>(transport_->part(exchange_, rank(), stride_));
  }
  const float* part(int rank_of_part) {
    return reinterpret_cast<const float*>(transport_->part(exchange_, rank_of_part, stride_));
  }
  void exchange() {
    if (options_.world == 1) return;
    device_.host_task([transport = transport_.get(), k = exchange_, stride = stride_] {
      return transport->exchange(k, stride);
    });
  }

  CommOptions options_;
  Device& device_;
  std::unique_ptr<Transport> transport_;
  std::uint64_t exchange_ = 0;  // the one begun last
  std::size_t stride_ = 0;      // bytes per rank in it
};

}  // namespace

absl::StatusOr<std::unique_ptr<Comm>> open_host_comm(const CommOptions& options, Device& device) {
  if (options.world == 1) {
    return std::make_unique<HostComm>(options, device, make_solo_transport(options.part_bytes));
  }
  auto transport = open_shm_transport(options);
  if (!transport.ok()) return transport.status();
  return std::make_unique<HostComm>(options, device, *std::move(transport));
}

}  // namespace quire

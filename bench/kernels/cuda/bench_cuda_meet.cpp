// What ranks pay for meeting: the sum of their partial results with residual and norm (twice per
// layer of a model), as worker/comm does it, and a gather of the same bytes; microseconds per call
// of one enqueued row of calls. Ranks beyond the visible GPUs share them: then times tell that it
// works, and nothing of a machine with a GPU for each rank.
//   bench_cuda_meet [--ranks 2] [--own-hosts yes|no] [--tiny]
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "bench/kernels/cuda/measure.h"
#include "bench/kernels/cuda/meet_ranks.h"
#include "worker/comm/comm.h"
#include "worker/device_buffer.h"

namespace quire::bench {
namespace {

struct Sizes {
  std::vector<int> rows;
  int columns;
  int calls;
};

int fail(const RankPlaceHere& place, const absl::Status& status) {
  std::fprintf(stderr, "rank %d: %s\n", place.rank, status.ToString().c_str());
  return 1;
}

// One leaf for each rank: each brings one partial sum.
MeetPlan plan_of(int world) {
  MeetPlan plan;
  for (int r = 0; r < world; ++r) {
    plan.sources.push_back({r, 0});
    plan.program.push_back(r);
    if (r > 0) plan.program.push_back(-1);
  }
  plan.max_outputs = 1;
  return plan;
}

// Microseconds per call; the first calls are not counted.
template <typename Call>
absl::StatusOr<double> time_calls(Device& device, int calls, const Call& call) {
  for (int i = 0; i < 3; ++i) call();
  if (absl::Status status = device.wait(); !status.ok()) return status;
  const auto start = std::chrono::steady_clock::now();
  for (int i = 0; i < calls; ++i) call();
  if (absl::Status status = device.wait(); !status.ok()) return status;
  const std::chrono::duration<double, std::micro> elapsed =
      std::chrono::steady_clock::now() - start;
  return elapsed.count() / calls;
}

absl::Status bench_rows(const RankPlaceHere& place, Device& device, Comm& comm, const Sizes& sizes,
                        int rows) {
  const MeetPlan plan = plan_of(place.world);
  const std::size_t floats =
      static_cast<std::size_t>(rows) * static_cast<std::size_t>(sizes.columns);
  auto residual = DeviceBuffer::allocate(device, floats * 4, "the residual");
  auto norm = DeviceBuffer::allocate(device, static_cast<std::size_t>(sizes.columns) * 4, "a norm");
  auto out = DeviceBuffer::allocate(device, floats * 4, "the output");
  if (!residual.ok() || !norm.ok() || !out.ok()) return absl::ResourceExhaustedError("no memory");
  MeetArgs args;
  args.plan = &plan;
  args.rows = rows;
  args.columns = sizes.columns;
  args.residual = static_cast<float*>(residual->data());
  args.norm_weight = static_cast<const float*>(norm->data());
  args.out = {out->data(), ActivationLayout::kBf16, rows, sizes.columns};
  const auto meet = time_calls(device, sizes.calls, [&] {
    comm.begin_meet(plan, rows, sizes.columns);
    comm.meet(args);
  });
  if (!meet.ok()) return meet.status();
  const std::vector<int> columns(static_cast<std::size_t>(place.world), sizes.columns);
  const auto gather = time_calls(device, sizes.calls, [&] {
    comm.begin_gather(rows, columns);
    comm.gather(rows, columns);
  });
  if (!gather.ok()) return gather.status();
  if (place.rank != 0) return absl::OkStatus();
  Line("cuda_meet")
      .add("ranks", place.world)
      .add("over", comm.description())
      .add("rows", rows)
      .add("columns", sizes.columns)
      .add("part_kb", static_cast<double>(floats) * 4 / 1024)
      .add("meet_us", *meet)
      .add("gather_us", *gather);
  return absl::OkStatus();
}

int bench_rank(const RankPlaceHere& place, const Sizes& sizes) {
  DeviceOptions options;
  options.kind = "cuda";
  options.local_rank = place.rank;
  options.num_local_ranks = place.world;
  auto device = cuda::open_cuda(options, place.nccl);
  if (!device.ok()) return fail(place, device.status());
  std::unique_ptr<Collective> collective;
  if (place.world > 1) {
    const auto id = place.rank == 0 ? (*device)->make_collective_id() : std::string();
    if (!id.ok()) return fail(place, id.status());
    auto opened = (*device)->open_collective({place.rank, place.world, place.share(*id), 60000});
    if (!opened.ok()) return fail(place, opened.status());
    collective = *std::move(opened);
  }
  CommOptions comm_options;
  comm_options.rank = place.rank;
  comm_options.world = comm_options.num_local_ranks = place.world;
  comm_options.part_bytes =
      static_cast<std::size_t>(sizes.rows.back()) * static_cast<std::size_t>(sizes.columns) * 4;
  auto comm = open_device_comm(comm_options, **device, std::move(collective));
  if (!comm.ok()) return fail(place, comm.status());
  for (const int rows : sizes.rows) {
    const absl::Status status = bench_rows(place, **device, **comm, sizes, rows);
    if (!status.ok()) return fail(place, status);
  }
  return 0;
}

}  // namespace
}  // namespace quire::bench

int main(int argc, char** argv) {
  int ranks = 2;
  bool own_hosts = false;
  quire::bench::Sizes sizes{{1, 8, 64, 256, 1024}, 4096, 200};
  for (int i = 1; i < argc; ++i) {
    if (std::strcmp(argv[i], "--tiny") == 0) {
      sizes = {{1, 3}, 64, 2};
    } else if (std::strcmp(argv[i], "--ranks") == 0 && i + 1 < argc) {
      ranks = std::atoi(argv[++i]);
    } else if (std::strcmp(argv[i], "--own-hosts") == 0 && i + 1 < argc) {
      own_hosts = std::strcmp(argv[++i], "yes") == 0;
    } else {
      std::fprintf(stderr, "usage: bench_cuda_meet [--ranks N] [--own-hosts yes|no] [--tiny]\n");
      return 64;
    }
  }
  if (ranks < 1 || ranks > 64) {
    std::fprintf(stderr, "bench_cuda_meet: --ranks must be in [1, 64]\n");
    return 64;
  }
  return quire::bench::run_ranks(
      ranks, own_hosts, [&](const auto& place) { return quire::bench::bench_rank(place, sizes); });
}

// Matrix products on the GPU, Llama-3-8B's shapes: few tokens as a share of memory bandwidth (bf16
// weights, and some stored formats), many in TFLOP/s beside the library's own product of the same
// shape and beside the library's best (8192 cubed): the measured peak.
//   bench_cuda_linear [--tiny] [--only few|many]
#include <cstdio>
#include <memory>
#include <string>

#include "bench/kernels/cuda/library_peer.h"
#include "bench/kernels/cuda/measure.h"
#include "common/format.h"
#include "kernels/cuda/linear/linear.h"

namespace quire::bench {
namespace {

struct Shape {
  const char* name;
  int rows, columns;  // N, K
};

double operations(const Shape& shape, int tokens) {
  return 2.0 * tokens * shape.rows * shape.columns;
}

// Weights, enough of them to miss the L2 in turn, an input and room for either kind of output.
struct Problem {
  Problem(const Shape& shape, int tokens, Format stored = Format::kBf16)
      : format(stored),
        weight_bytes(cuda::packed_bytes(stored, shape.rows, shape.columns)),
        in(static_cast<std::size_t>(tokens) * static_cast<std::size_t>(shape.columns) * 2),
        out(static_cast<std::size_t>(tokens) * static_cast<std::size_t>(shape.rows) * 4) {
    for (int i = 0; i < copies_to_miss_l2(weight_bytes); ++i) {
      weights.push_back(std::make_unique<DeviceMemory>(weight_bytes));
      weights.back()->randomize_bf16(static_cast<std::uint32_t>(i) + 5);
    }
    in.randomize_bf16(3);
  }
  const void* weight(int i) const {
    return weights[static_cast<std::size_t>(i) % weights.size()]->as<void>();
  }
  const Format format;
  const std::size_t weight_bytes;
  std::vector<std::unique_ptr<DeviceMemory>> weights;
  DeviceMemory in, out;
};

struct Ours {
  Times times;
  std::string kernel;
};

Ours measure_ours(const Problem& problem, cuda::Linear& linear, const Shape& shape, int tokens,
                  const Effort& effort) {
  cuda::PackedMatrix matrix{problem.format, ActivationLayout::kBf16, shape.rows,
                            shape.columns,  {{0, shape.columns}},    nullptr};
  const Activation in{problem.in.as<void>(), ActivationLayout::kBf16, tokens, shape.columns};
  const Times times = measure(
      [&](cudaStream_t stream, int i) {
        matrix.data = problem.weight(i);
        return linear.run(stream, matrix, in, nullptr, problem.out.as<float>(),
                          static_cast<std::size_t>(shape.rows), 0);
      },
      effort);
  return {times, linear.describe(matrix, tokens)};
}

Times measure_peer(const Problem& problem, LibraryPeer& peer, const Effort& effort) {
  return measure(
      [&](cudaStream_t stream, int i) {
        return peer.run(stream, problem.weight(i), problem.in.as<void>(), problem.out.as<void>());
      },
      effort);
}

class Bench {
 public:
  explicit Bench(bool tiny)
      : effort_(tiny ? tiny_effort() : Effort{}),
        linear_(cuda::make_linear(false)),
        fixed_(cuda::make_linear(true)),
        peer_(make_library_peer()),
        ceilings_(measure_ceilings(tiny ? std::size_t{1} << 16 : std::size_t{2} << 30, effort_)) {}

  void few(const Shape& shape, int tokens, Format format = Format::kBf16) {
    const Problem problem(shape, tokens, format);
    const Ours ours = measure_ours(problem, *linear_, shape, tokens, effort_);
    const auto bytes = static_cast<double>(problem.weight_bytes);
    const double rate = bytes / ours.times.median_us / 1e3;
    Line line("cuda_linear_few");
    line.add("matrix", shape.name)
        .add("weights", traits(format).name)
        .add("tokens", tokens)
        .add("weight_mb", bytes / 1e6)
        .add(ours.times)
        .add("gb_s", rate)
        .add("hbm_share", rate / ceilings_.read_gb_s)
        .add("kernel", ours.kernel);
    if (format == Format::kBf16 && peer_ != nullptr &&
        peer_->prepare(tokens, shape.rows, shape.columns)) {
      line.add("library_us", measure_peer(problem, *peer_, effort_).median_us);
    }
  }

  // The highest rate the library reaches on this GPU in this run.
  void find_peak(const Shape& cube) {
    if (peer_ == nullptr || !peer_->prepare(cube.rows, cube.rows, cube.columns)) return;
    const Problem problem(cube, cube.rows);
    const Times times = measure_peer(problem, *peer_, effort_);
    peak_ = operations(cube, cube.rows) / times.median_us / 1e6;
    Line("cuda_peak").add("matrix", cube.name).add(times).add("tflop_s", peak_);
  }

  void many(const Shape& shape, int tokens) {
    const Problem problem(shape, tokens);
    const Ours ours = measure_ours(problem, *linear_, shape, tokens, effort_);
    const Ours fixed = measure_ours(problem, *fixed_, shape, tokens, effort_);
    Line line("cuda_linear_many");
    line.add("matrix", shape.name)
        .add("tokens", tokens)
        .add(ours.times)
        .add("tflop_s", rate(shape, tokens, ours.times))
        .add("kernel", ours.kernel)
        .add("deterministic_tflop_s", rate(shape, tokens, fixed.times));
    if (peak_ > 0) line.add("peak_share", rate(shape, tokens, ours.times) / peak_);
    if (peer_ != nullptr && peer_->prepare(tokens, shape.rows, shape.columns)) {
      line.add("library_tflop_s", rate(shape, tokens, measure_peer(problem, *peer_, effort_)));
    }
  }

 private:
  static double rate(const Shape& shape, int tokens, const Times& times) {
    return operations(shape, tokens) / times.median_us / 1e6;
  }

  const Effort effort_;
  const std::unique_ptr<cuda::Linear> linear_, fixed_;
  const std::unique_ptr<LibraryPeer> peer_;
  const Ceilings ceilings_;
  double peak_ = 0;
};

int run(bool tiny, const std::string& only) {
  Bench bench(tiny);
  if (tiny) {
    bench.few({"tiny", 48, 64}, 2);
    bench.few({"tiny", 48, 64}, 2, Format::kQ4_1);
    bench.find_peak({"tiny cube", 64, 64});
    bench.many({"tiny", 48, 64}, 20);
    return 0;
  }
  const Shape shapes[] = {{"qkv", 6144, 4096},
                          {"o", 4096, 4096},
                          {"gate_up", 28672, 4096},
                          {"down", 4096, 14336},
                          {"vocabulary", 128256, 4096}};
  if (only != "many") {
    for (const Shape& shape : shapes) {
      for (const int tokens : {1, 2, 4, 8, 16}) bench.few(shape, tokens);
    }
    for (const Format format : {Format::kQ8_0, Format::kQ4_1, Format::kF8E4M3, Format::kQ4_K}) {
      for (const int tokens : {1, 8}) bench.few(shapes[2], tokens, format);
    }
  }
  if (only == "few") return 0;
  bench.find_peak({"8192 cubed", 8192, 8192});
  for (const Shape& shape : shapes) {
    if (shape.rows > 100000) continue;  // the vocabulary meets few tokens only
    for (const int tokens : {32, 64, 256, 512, 2048, 8192}) bench.many(shape, tokens);
  }
  return 0;
}

}  // namespace
}  // namespace quire::bench

int main(int argc, char** argv) {
  return quire::bench::run_with_options(argc, argv, "bench_cuda_linear [--tiny] [--only few|many]",
                                        quire::bench::run);
}

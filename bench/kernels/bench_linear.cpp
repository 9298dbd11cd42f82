// Matrix products beside the machine's own limits: for every linear shape of three models, format
// and number of tokens M, the time, the rate at which packed weights are read and the rate of
// operations (a multiply-add is two), each as a share of what this machine reads and computes at
// most. "of limit" is the share of the nearer of the two. "layers" is all matrices of a model in
// their order of use, q4_1 with a q8_0 vocabulary.
//
// Machines are shared, so ceilings and products are sampled in turn and the best sample of each is
// taken, of ceilings also those of a few lines above. q4_k is packed as q4_1 and q6_k as q8_0:
// their rows are theirs.
//
//   bench_linear                               everything, a few minutes
//   bench_linear --shapes=smollm2              one model; a part of its name is enough
//   --formats=q4_1,bf16 --tokens=1,64 --threads=2 --isa=avx2 --samples=5 --only=layers
//   --cpu-time      one thread's CPU time instead of the wall's, for a busy machine
//   --json          a line of JSON a case, for roofline.py
#include <algorithm>
#include <array>
#include <cstdio>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "bench/kernels/ceiling.h"
#include "bench/kernels/linear_cases.h"
#include "bench/kernels/linear_options.h"
#include "bench/kernels/team.h"
#include "kernels/cpu/isa.h"
#include "kernels/cpu/linear.h"

namespace quire::bench {
namespace {

struct Options : LinearOptions {
  std::string only;  // a part of a shape's name
  bool json = false;
};

constexpr std::size_t kMemoryBytes = std::size_t{128} << 20;  // read, and of copies of a matrix
constexpr double kSampleSeconds = 0.01;

// The best of the last samples of a ceiling.
class Ceiling {
 public:
  double best_with(double sample) {
    samples_[next_++ % samples_.size()] = sample;
    return *std::max_element(samples_.begin(), samples_.end());
  }

 private:
  std::array<double, 20> samples_ = {};
  std::size_t next_ = 0;
};

struct Case {
  std::string model, shape;
  const char* format;
  int rows, columns;  // 0: many matrices
  int tokens;
};

struct Seen {
  double seconds, bytes, ops;
  double read, compute;  // the ceilings a second; compute 0: not known
};

class Bench {
 public:
  explicit Bench(const Options& options) : options_(options), team_(options.threads) {
    const auto memory = memory_.allocate(kMemoryBytes, "reading");
    read_ = static_cast<std::byte*>(memory.value());
    std::fill_n(read_, kMemoryBytes, std::byte{1});
  }

  void shape(const LinearModel& model, const LinearShape& shape, Format format) {
    HostMemory memory;
    std::vector<Weight> copies;
    for (std::size_t bytes = 0; bytes < kMemoryBytes; bytes += copies.back().bytes) {
      copies.push_back(random_matrix(shape, format, options_.isa, memory));
    }
    for (const int tokens : options_.tokens) {
      measure({model.name, shape.name, traits(format).name, shape.rows, shape.columns, tokens},
              copies, 1);
    }
  }

  void layers(const LinearModel& model) {
    HostMemory memory;
    std::vector<Weight> weights;
    for (int layer = 0; layer < model.layers; ++layer) {
      for (const LinearShape& shape : model.layer) {
        weights.push_back(random_matrix(shape, Format::kQ4_1, options_.isa, memory));
      }
    }
    weights.push_back(random_matrix(model.vocabulary, Format::kQ8_0, options_.isa, memory));
    for (const int tokens : options_.tokens) {
      measure({model.name, "layers", "q4_1", 0, 0, tokens}, weights, weights.size());
    }
  }

  void header() const {
    if (options_.json) return;
    std::printf("%d threads, %s\n", options_.threads, cpu::name_of(options_.isa));
    std::printf("%-36s %-5s %4s %10s %7s %6s %8s %6s %9s\n", "shape (N x K)", "fmt", "M", "us",
                "GB/s", "of mem", "GOP/s", "of ops", "of limit");
  }

 private:
  double seconds(const std::function<void(int, Team&)>& work) {
    const double start = clock_seconds(options_.cpu_time);
    team_.run(work);
    return clock_seconds(options_.cpu_time) - start;
  }

  // Operations a second of the instruction the layout is multiplied with; 0: not known.
  double sample_operations(ActivationLayout layout) {
    if (options_.isa == cpu::Isa::kAvx2) return 0;
    constexpr long kRounds = 150000;
    void (*run)(long) = layout == ActivationLayout::kQ8     ? run_dpbusd
                        : layout == ActivationLayout::kBf16 ? run_dpbf16
                                                            : run_fma;
    const double ops = layout == ActivationLayout::kQ8     ? kOpsPerDpbusd
                       : layout == ActivationLayout::kBf16 ? kOpsPerDpbf16
                                                           : kOpsPerFma;
    return ops * kInstructionsPerRound * kRounds * team_.size() /
           seconds([run](int, Team&) { run(kRounds); });
  }
  double sample_memory() {
    const std::size_t part = kMemoryBytes / static_cast<std::size_t>(team_.size()) / 64 * 64;
    return static_cast<double>(kMemoryBytes) / seconds([&](int thread, Team&) {
             read_memory(read_ + part * static_cast<std::size_t>(thread), part);
           });
  }

  // `count` products, weight after weight, beginning with weight `first`.
  double sample_products(const std::vector<Weight>& weights, const std::vector<Activation>& inputs,
                         std::size_t first, std::size_t count) {
    return seconds([&](int thread, Team& team) {
      for (std::size_t i = first; i < first + count; ++i) {
        cpu::LinearArgs args;
        args.weight = &weights[i % weights.size()];
        args.next = &weights[(i + 1) % weights.size()];
        args.in = inputs[i % inputs.size()];
        args.out = out_.data();
        args.out_stride = static_cast<std::size_t>(args.weight->rows);
        cpu::linear(options_.isa, args, thread, team.size());
        team.meet();
      }
    });
  }

  // Times products of `unit` weights, of which there are weights.size() / unit.
  void measure(const Case& what, const std::vector<Weight>& weights, std::size_t unit) {
    HostMemory memory;
    std::vector<Activation> inputs;
    double bytes = 0, ops = 0;
    for (std::size_t i = 0; i < unit; ++i) {
      const Weight& w = weights[i];
      inputs.push_back(random_input(w, what.tokens, memory));
      bytes += static_cast<double>(w.bytes);
      ops += 2.0 * w.rows * w.columns * what.tokens;
      out_.resize(std::max(
          out_.size(), static_cast<std::size_t>(w.rows) * static_cast<std::size_t>(what.tokens)));
    }
    std::size_t at = 0, units = 1;
    double best = sample_products(weights, inputs, at, unit);  // and once for the pages
    double read = 0, compute = 0;
    for (int i = 0; i < options_.samples; ++i) {
      read = read_ceiling_.best_with(sample_memory());
      compute =
          operations_ceiling_[weights[0].input].best_with(sample_operations(weights[0].input));
      at += units * unit;
      units = std::clamp<std::size_t>(static_cast<std::size_t>(kSampleSeconds / best), 1, 10000);
      best = std::min(
          best, sample_products(weights, inputs, at, units * unit) / static_cast<double>(units));
    }
    print(what, {best, bytes, ops, read, compute});
  }

  void print(const Case& what, const Seen& seen) const {
    if (options_.json) {
      std::printf(
          R"({"model": "%s", "shape": "%s", "format": "%s", "rows": %d, "columns": %d, "tokens": %d, )"
          R"("threads": %d, "isa": "%s", "seconds": %.9g, "bytes": %.0f, "ops": %.0f, )"
          R"("read_per_s": %.6g, "ops_per_s": %.6g})"
          "\n",
          what.model.c_str(), what.shape.c_str(), what.format, what.rows, what.columns, what.tokens,
          options_.threads, cpu::name_of(options_.isa), seen.seconds, seen.bytes, seen.ops,
          seen.read, seen.compute);
    } else {
      const std::string size =
          what.rows > 0 ? absl::StrCat(" ", what.rows, "x", what.columns) : std::string();
      const std::string name = absl::StrCat(what.model, " ", what.shape, size);
      const double in_bytes = seen.bytes / seen.seconds, in_ops = seen.ops / seen.seconds;
      const double of_memory = 100 * in_bytes / seen.read;
      const double of_ops = seen.compute > 0 ? 100 * in_ops / seen.compute : 0;
      std::printf("%-36s %-5s %4d %10.1f %7.2f %5.1f%% %8.1f %5.1f%% %8.1f%%\n", name.c_str(),
                  what.format, what.tokens, seen.seconds * 1e6, in_bytes / 1e9, of_memory,
                  in_ops / 1e9, of_ops, std::max(of_memory, of_ops));
    }
    std::fflush(stdout);
  }

  const Options& options_;
  Team team_;
  HostMemory memory_;
  std::byte* read_ = nullptr;
  std::vector<float> out_;
  Ceiling read_ceiling_;
  std::map<ActivationLayout, Ceiling> operations_ceiling_;
};

bool contains(const std::string& name, const std::string& part) {
  return name.find(part) != std::string::npos;
}

void run(const Options& options) {
  Bench bench(options);
  bench.header();
  for (const LinearModel& model : linear_models()) {
    if (!contains(model.name, options.shapes)) continue;
    std::vector<LinearShape> shapes = model.layer;
    shapes.push_back(model.vocabulary);
    for (const LinearShape& shape : shapes) {
      if (!contains(shape.name, options.only)) continue;
      for (const Format format : options.formats) bench.shape(model, shape, format);
    }
    if (contains("layers", options.only)) bench.layers(model);
  }
}

int run_all(int argc, char** argv) {
  Options options;
  options.formats = {Format::kBf16, Format::kQ8_0, Format::kQ4_0, Format::kQ4_1};
  options.tokens = {1, 2, 4, 8, 16, 64, 512};
  const auto own = [&](const std::string& name, const std::string& value) {
    if (name == "--only") options.only = value;
    if (name == "--json") options.json = true;
    return name == "--only" || (name == "--json" && value.empty());
  };
  const auto common = parse_linear_options(argc, argv, options, own);
  if (!common.ok()) {
    std::fprintf(stderr, "bench_linear: %s\n", std::string(common.status().message()).c_str());
    return 64;
  }
  static_cast<LinearOptions&>(options) = *common;
  run(options);
  return 0;
}

}  // namespace
}  // namespace quire::bench

int main(int argc, char** argv) {
  return quire::bench::run_all(argc, argv);
}

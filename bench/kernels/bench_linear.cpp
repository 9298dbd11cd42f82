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
#include <time.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "bench/kernels/ceiling.h"
#include "bench/kernels/linear_cases.h"
#include "bench/kernels/team.h"
#include "kernels/cpu/isa.h"
#include "kernels/cpu/linear.h"

namespace quire::bench {
namespace {

struct Options {
  std::string shapes;  // of a model's name
  std::string only;    // of a shape's name
  std::vector<std::string> formats = {"bf16", "q8_0", "q4_0", "q4_1"};
  std::vector<int> tokens = {1, 2, 4, 8, 16, 64, 512};
  std::string isa = "auto";
  int threads = static_cast<int>(std::thread::hardware_concurrency());
  int samples = 5;
  bool cpu_time = false;
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

class Bench {
 public:
  Bench(const Options& options, cpu::Isa isa)
      : options_(options), isa_(isa), team_(options.threads) {
    const auto memory = memory_.allocate(kMemoryBytes, "reading");
    read_ = static_cast<std::byte*>(memory.value());
    std::fill_n(read_, kMemoryBytes, std::byte{1});
  }

  void shape(const LinearModel& model, const LinearShape& shape, Format format) {
    HostMemory memory;
    std::vector<Weight> copies;
    for (std::size_t bytes = 0; bytes < kMemoryBytes; bytes += copies.back().bytes) {
      copies.push_back(random_matrix(shape, format, isa_, memory));
    }
    for (const int tokens : options_.tokens) {
      measure(absl::StrCat(model.name, " ", shape.name, " ", shape.rows, "x", shape.columns),
              traits(format).name, copies, tokens, 1);
    }
  }

  void layers(const LinearModel& model) {
    HostMemory memory;
    std::vector<Weight> weights;
    for (int layer = 0; layer < model.layers; ++layer) {
      for (const LinearShape& shape : model.layer) {
        weights.push_back(random_matrix(shape, Format::kQ4_1, isa_, memory));
      }
    }
    weights.push_back(random_matrix(model.vocabulary, Format::kQ8_0, isa_, memory));
    for (const int tokens : options_.tokens) {
      measure(absl::StrCat(model.name, " layers"), "q4_1", weights, tokens, weights.size());
    }
  }

  static void header() {
    std::printf("%-36s %-5s %4s %10s %7s %6s %8s %6s %9s\n", "shape (N x K)", "fmt", "M", "us",
                "GB/s", "of mem", "GOP/s", "of ops", "of limit");
  }

 private:
  double now() const {
    timespec t{};
    clock_gettime(options_.cpu_time ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &t);
    return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
  }
  double seconds(const std::function<void(int, Team&)>& work) {
    const double start = now();
    team_.run(work);
    return now() - start;
  }

  // Operations a second of the instruction the layout is multiplied with; 0: not known.
  double sample_operations(ActivationLayout layout) {
    if (isa_ == cpu::Isa::kAvx2) return 0;
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
        cpu::linear(isa_, args, thread, team.size());
        team.meet();
      }
    });
  }

  // Times products of `unit` weights, of which there are weights.size() / unit.
  void measure(const std::string& name, const char* format, const std::vector<Weight>& weights,
               int tokens, std::size_t unit) {
    HostMemory memory;
    std::vector<Activation> inputs;
    double bytes = 0, ops = 0;
    for (std::size_t i = 0; i < unit; ++i) {
      const Weight& w = weights[i];
      inputs.push_back(random_input(w, tokens, memory));
      bytes += static_cast<double>(w.bytes);
      ops += 2.0 * w.rows * w.columns * tokens;
      out_.resize(std::max(out_.size(),
                           static_cast<std::size_t>(w.rows) * static_cast<std::size_t>(tokens)));
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
    const double limit = std::max(bytes / read, compute > 0 ? ops / compute : 0);
    std::printf("%-36s %-5s %4d %10.1f %7.2f %5.1f%% %8.1f %5.1f%% %8.1f%%\n", name.c_str(), format,
                tokens, best * 1e6, bytes / best / 1e9, 100 * bytes / best / read, ops / best / 1e9,
                compute > 0 ? 100 * ops / best / compute : 0, 100 * limit / best);
    std::fflush(stdout);
  }

  const Options& options_;
  const cpu::Isa isa_;
  Team team_;
  HostMemory memory_;
  std::byte* read_ = nullptr;
  std::vector<float> out_;
  Ceiling read_ceiling_;
  std::map<ActivationLayout, Ceiling> operations_ceiling_;
};

bool parse(const std::string& argument, Options& options) {
  const std::pair<std::string, std::string> flag =
      absl::StrSplit(argument, absl::MaxSplits('=', 1));
  const auto& [name, value] = flag;
  if (name == "--threads") return absl::SimpleAtoi(value, &options.threads);
  if (name == "--samples") return absl::SimpleAtoi(value, &options.samples);
  if (name == "--tokens") {
    options.tokens.clear();
    for (const absl::string_view number : absl::StrSplit(value, ',')) {
      options.tokens.emplace_back();
      if (!absl::SimpleAtoi(number, &options.tokens.back())) return false;
    }
    return true;
  }
  if (name == "--shapes") options.shapes = value;
  if (name == "--only") options.only = value;
  if (name == "--formats") options.formats = absl::StrSplit(value, ',');
  if (name == "--isa") options.isa = value;
  if (name == "--cpu-time") options.cpu_time = true;
  return name == "--shapes" || name == "--only" || name == "--formats" || name == "--isa" ||
         name == "--cpu-time";
}

std::optional<Format> format_named(const std::string& name) {
  for (const Format format :
       {Format::kF32, Format::kF16, Format::kBf16, Format::kQ8_0, Format::kQ4_0, Format::kQ4_1}) {
    if (name == traits(format).name) return format;
  }
  return std::nullopt;
}

bool contains(const std::string& name, const std::string& part) {
  return name.find(part) != std::string::npos;
}

void run(const Options& options, cpu::Isa isa) {
  Bench bench(options, isa);
  Bench::header();
  for (const LinearModel& model : linear_models()) {
    if (!contains(model.name, options.shapes)) continue;
    std::vector<LinearShape> shapes = model.layer;
    shapes.push_back(model.vocabulary);
    for (const LinearShape& shape : shapes) {
      if (!contains(shape.name, options.only)) continue;
      for (const std::string& name : options.formats) {
        bench.shape(model, shape, *format_named(name));
      }
    }
    if (contains("layers", options.only)) bench.layers(model);
  }
}

int run_all(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; ++i) {
    if (parse(argv[i], options)) continue;
    std::fprintf(stderr, "%s is not understood; see the head of bench/kernels/bench_linear.cpp.\n",
                 argv[i]);
    return 1;
  }
  for (const std::string& format : options.formats) {
    if (format_named(format).has_value()) continue;
    std::fprintf(stderr,
                 "format %s is not one that is multiplied; use f32 f16 bf16 q8_0 q4_0 q4_1.\n",
                 format.c_str());
    return 1;
  }
  const auto isa = cpu::choose_isa(options.isa);
  if (!isa.ok() || options.threads < 1 || (options.cpu_time && options.threads > 1)) {
    std::fprintf(stderr,
                 "use --isa=auto|avx512|avx512-vnni|avx2 --threads=N (1 with --cpu-time). %s\n",
                 std::string(isa.status().message()).c_str());
    return 1;
  }
  std::printf("%d threads, %s\n", options.threads, cpu::name_of(*isa));
  run(options, *isa);
  return 0;
}

}  // namespace
}  // namespace quire::bench

int main(int argc, char** argv) {
  return quire::bench::run_all(argc, argv);
}

// Matrix products of the shapes of SmolLM2-135M beside the machine's own limits, two threads.
//   ceiling/...            instructions and memory reads
//   linear/<format>/<N>x<K>/<T>        one matrix, again and again (in cache where it fits)
//   model/<T>              all weights of one step: 30 layers of q4_1, then the q8_0 vocabulary
//   layers/<T>             the same without the vocabulary (prefill)
// Counters: G = 10^9 operations (multiply-add = 2), B = bytes of packed weights. Other programs on
// the machine halve the figures: repeat, take medians, and compare with the ceiling of the same
// run (--benchmark_repetitions=5 --benchmark_report_aggregates_only).
#include <benchmark/benchmark.h>

#include <algorithm>
#include <cstdlib>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "bench/kernels/ceiling.h"
#include "bench/kernels/team.h"
#include "kernels/cpu/activation.h"
#include "kernels/cpu/isa.h"
#include "kernels/cpu/linear.h"

namespace quire::bench {
namespace {

using benchmark::Counter;

struct Freed {
  void operator()(void* p) const { std::free(p); }
};
using Memory = std::unique_ptr<void, Freed>;

Memory aligned_memory(std::size_t bytes) {
  const std::size_t size = (bytes + 4095) / 4096 * 4096;
  Memory memory(std::aligned_alloc(4096, size));
  std::fill_n(static_cast<std::byte*>(memory.get()), size, std::byte{0});
  return memory;
}

// Any bits will do for integers; exponents are kept small so that no float is odd.
void fill_random(std::byte* data, std::size_t bytes) {
  std::minstd_rand random(7);
  for (std::size_t i = 0; i < bytes; ++i) data[i] = static_cast<std::byte>(random() >> 8 & 0x3f);
}

struct Matrix {
  Weight weight;
  Memory memory;
};

Matrix make_matrix(cpu::Isa isa, Format format, int rows, int columns) {
  std::vector<std::byte> stored(row_bytes(format, columns) * static_cast<std::size_t>(rows));
  fill_random(stored.data(), stored.size());
  MatrixSource source;
  source.format = format;
  source.columns = columns;
  source.parts = {{stored.data(), row_bytes(format, columns), rows}};
  source.sum = SumPlan::whole(columns);
  const auto shape = cpu::packed_shape(source, isa, false);
  Matrix matrix;
  matrix.memory = aligned_memory(shape->bytes);
  matrix.weight.input = shape->input;
  matrix.weight.bytes = shape->bytes;
  matrix.weight.data = matrix.memory.get();
  cpu::pack(source, isa, matrix.weight);
  return matrix;
}

struct Input {
  Activation activation;
  Memory memory;
};

Input make_input(ActivationLayout layout, int tokens, int columns) {
  const std::size_t bytes =
      cpu::activation_stride(layout, columns) * static_cast<std::size_t>(tokens);
  Input input;
  input.memory = aligned_memory(bytes);
  fill_random(static_cast<std::byte*>(input.memory.get()), bytes);
  input.activation = {input.memory.get(), layout, tokens, columns};
  return input;
}

double operations(const Weight& weight, int tokens) {
  return 2.0 * weight.rows * weight.columns * tokens;
}

Counter rate(double per_iteration) {
  return {per_iteration, Counter::kIsIterationInvariantRate, Counter::OneK::kIs1000};
}

void bench_matrix(benchmark::State& state, Team& team, cpu::Isa isa, Format format, int rows,
                  int columns, int tokens) {
  const Matrix matrix = make_matrix(isa, format, rows, columns);
  const Input input = make_input(matrix.weight.input, tokens, columns);
  std::vector<float> out(static_cast<std::size_t>(rows) * static_cast<std::size_t>(tokens));
  cpu::LinearArgs args;
  args.weight = &matrix.weight;
  args.in = input.activation;
  args.out = out.data();
  args.out_stride = static_cast<std::size_t>(rows);
  for (auto _ : state) {
    team.run([&](int thread, Team& t) { cpu::linear(isa, args, thread, t.size()); });
  }
  state.counters["ops"] = rate(operations(matrix.weight, tokens));
  state.counters["bytes"] = rate(static_cast<double>(matrix.weight.bytes));
}

// The matrices of a step in their order of use; made once, 97 MB.
class Model {
 public:
  explicit Model(cpu::Isa isa) {
    for (int layer = 0; layer < kLayers; ++layer) {
      for (const auto& [rows, columns] :
           {std::pair{960, 576}, {576, 576}, {3072, 576}, {576, 1536}}) {
        matrices_.push_back(make_matrix(isa, Format::kQ4_1, rows, columns));
      }
    }
    matrices_.push_back(make_matrix(isa, Format::kQ8_0, kVocabulary, 576));
  }
  static constexpr int kLayers = 30;
  static constexpr int kVocabulary = 49152;
  const std::vector<Matrix>& matrices() const { return matrices_; }

 private:
  std::vector<Matrix> matrices_;
};

void bench_model(benchmark::State& state, Team& team, cpu::Isa isa, int tokens, bool vocabulary) {
  static const Model model(isa);
  const std::size_t count = model.matrices().size() - (vocabulary ? 0 : 1);
  const Input narrow = make_input(ActivationLayout::kQ8, tokens, 576);
  const Input wide = make_input(ActivationLayout::kQ8, tokens, 1536);
  std::vector<float> out(static_cast<std::size_t>(vocabulary ? Model::kVocabulary : 3072) *
                         static_cast<std::size_t>(tokens));
  double ops = 0, bytes = 0;
  for (std::size_t i = 0; i < count; ++i) {
    ops += operations(model.matrices()[i].weight, tokens);
    bytes += static_cast<double>(model.matrices()[i].weight.bytes);
  }
  for (auto _ : state) {
    team.run([&](int thread, Team& t) {
      for (std::size_t i = 0; i < count; ++i) {
        cpu::LinearArgs args;
        args.weight = &model.matrices()[i].weight;
        args.in = args.weight->columns == 576 ? narrow.activation : wide.activation;
        args.out = out.data();
        args.out_stride = static_cast<std::size_t>(args.weight->rows);
        cpu::linear(isa, args, thread, t.size());
        t.meet();
      }
    });
  }
  state.counters["ops"] = rate(ops);
  state.counters["bytes"] = rate(bytes);
}

void bench_instruction(benchmark::State& state, Team& team, void (*run)(long), double ops) {
  constexpr long kRounds = 200000;
  for (auto _ : state) {
    team.run([&](int, Team&) { run(kRounds); });
  }
  state.counters["ops"] = rate(ops * kInstructionsPerRound * kRounds * team.size());
}

void bench_memory(benchmark::State& state, Team& team, std::size_t bytes) {
  const Memory memory = aligned_memory(bytes + 8192);
  const auto* data = static_cast<const std::byte*>(memory.get());
  const std::size_t part = bytes / static_cast<std::size_t>(team.size());
  for (auto _ : state) {
    team.run([&](int thread, Team&) {
      read_memory(data + part * static_cast<std::size_t>(thread), part);
    });
  }
  state.counters["bytes"] = rate(static_cast<double>(bytes));
}

// Registers with wall time. "min" is of the time column: the repetition least disturbed by others.
void add(const std::string& name, std::function<void(benchmark::State&)> body) {
  benchmark::RegisterBenchmark(name.c_str(),
                               [body = std::move(body)](benchmark::State& state) { body(state); })
      ->UseRealTime()
      ->Unit(benchmark::kMicrosecond)
      ->ComputeStatistics("min", [](const std::vector<double>& v) {
        return *std::min_element(v.begin(), v.end());
      });
}

void add_ceilings(Team& team) {
  const auto instruction = [&team](const char* name, void (*run)(long), double ops) {
    add(name, [&team, run, ops](auto& state) { bench_instruction(state, team, run, ops); });
  };
  instruction("ceiling/fma", run_fma, kOpsPerFma);
  instruction("ceiling/dpbf16", run_dpbf16, kOpsPerDpbf16);
  instruction("ceiling/dpbusd", run_dpbusd, kOpsPerDpbusd);
  for (const std::size_t megabytes : {12, 96, 512}) {
    add("ceiling/read_MB/" + std::to_string(megabytes),
        [&team, megabytes](auto& state) { bench_memory(state, team, megabytes << 20); });
  }
}

void add_matrices(Team& team, cpu::Isa isa) {
  constexpr int kShapes[][2] = {{960, 576}, {576, 576}, {3072, 576}, {576, 1536}, {49152, 576}};
  for (const Format format :
       {Format::kF32, Format::kF16, Format::kBf16, Format::kQ8_0, Format::kQ4_0, Format::kQ4_1}) {
    for (const auto& [rows, columns] : kShapes) {
      for (const int tokens : {1, 4, 24, 64, 512}) {
        if (rows > 10000 && (tokens > 64 || format != Format::kQ8_0)) continue;
        add(absl::StrCat("linear/", traits(format).name, "/", rows, "x", columns, "/", tokens),
            [=, &team, n = rows, k = columns](auto& state) {
              bench_matrix(state, team, isa, format, n, k, tokens);
            });
      }
    }
  }
}

void add_models(Team& team, cpu::Isa isa) {
  for (const int tokens : {1, 2, 4, 8, 16, 24, 32, 64}) {
    add(absl::StrCat("model/", tokens),
        [=, &team](auto& state) { bench_model(state, team, isa, tokens, true); });
  }
  add("layers/512", [=, &team](auto& state) { bench_model(state, team, isa, 512, false); });
}

int run_all(int argc, char** argv) {
  std::string isa_name = "auto";
  int num_threads = 2;
  benchmark::Initialize(&argc, argv);
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    if (argument.rfind("--isa=", 0) == 0) isa_name = argument.substr(6);
    if (argument.rfind("--threads=", 0) == 0) num_threads = std::atoi(argument.c_str() + 10);
  }
  const auto isa = cpu::choose_isa(isa_name);
  if (!isa.ok() || num_threads < 1) {
    std::fprintf(stderr, "use --isa=auto|avx512|avx2 --threads=N. %s\n",
                 std::string(isa.status().message()).c_str());
    return 1;
  }
  Team team(num_threads);
  if (cpu::choose_isa("avx512").ok()) add_ceilings(team);
  add_models(team, *isa);
  add_matrices(team, *isa);
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}

}  // namespace
}  // namespace quire::bench

int main(int argc, char** argv) {
  return quire::bench::run_all(argc, argv);
}

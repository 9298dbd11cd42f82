// What the coordinator adds to one step of decoding: plan + serialize + parse and check the result
// + apply, with two steps in flight, by the number of running and of waiting sequences. Single
// thread, no network; the worker's side (making the result) is not in the time.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <deque>
#include <string>
#include <utility>
#include <vector>

#include "common/check.h"
#include "common/hash.h"
#include "common/wire.h"
#include "coordinator/schedule/scheduler.h"
#include "fleet.pb.h"

namespace quire::bench {
namespace {

constexpr int kVocab = 128256;
constexpr int kPromptTokens = 64;  // and up to 15 more, so that blocks roll over one in sixteen
constexpr int kSteps = 2000;       // measured: contexts grow from about 70 to about 2,100 tokens
constexpr int kOutputTokens = 1 << 20;  // nobody ends while it is measured

TokenId made_up_token(std::uint64_t a, std::uint64_t b) {
  std::uint64_t x = (a * 0x9e3779b97f4a7c15u) ^ (b + 0x632be59bd9b4e019u);
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return static_cast<TokenId>((x ^ (x >> 31)) % kVocab);
}

SchedulerConfig config(int num_running) {
  SchedulerConfig config;
  config.max_num_seqs = num_running;
  config.max_num_batched_tokens = std::max(8192, 2 * num_running);
  config.max_model_len = 2 * kOutputTokens;
  config.vocab = kVocab;
  return config;
}

// Where the time of one step went, in seconds.
struct Parts {
  double plan = 0, encode = 0, parse = 0, decode = 0, apply = 0;
  // What the limits are about; parsing is the network library's, in threads of its own.
  double coordinator() const { return plan + encode + decode + apply; }
};

// The p-th part of all steps, in microseconds.
template <typename Value>
double percentile_us(const std::vector<Parts>& steps, double p, const Value& value) {
  std::vector<double> values;
  for (const Parts& step : steps) values.push_back(value(step));
  const auto at = values.begin() + static_cast<std::ptrdiff_t>(p * (values.size() - 1.0));
  std::nth_element(values.begin(), at, values.end());
  return *at * 1e6;
}

class Clock {
 public:
  // Seconds since the last call.
  double lap() {
    const auto now = std::chrono::steady_clock::now();
    return std::chrono::duration<double>(now - std::exchange(last_, now)).count();
  }

 private:
  std::chrono::steady_clock::time_point last_ = std::chrono::steady_clock::now();
};

class Load {
 public:
  Load(int num_running, int num_waiting) : scheduler_(config(num_running)) {
    // Room for everyone until the end of the measurement, so that nobody is preempted.
    const int tokens_each = kPromptTokens + kSteps + 64 + 2 * num_running;
    const int num_blocks = std::max(num_running * (tokens_each / 16 + 2), 3 * kOutputTokens / 16);
    scheduler_.start_group(1, num_blocks, 1);
    for (int i = 0; i < num_running + num_waiting; ++i) add(i);
    while (scheduler_.num_running() < num_running || prefilling_) step();
    rows_ = 0;
    QUIRE_CHECK_EQ(scheduler_.num_waiting(), num_waiting);
  }

  // One plan, and the result of the plan before it.
  Parts step() {
    Clock clock;
    Parts spent;
    StepPlan plan = scheduler_.plan();
    spent.plan = clock.lap();
    std::string bytes = wire::encode(plan);
    spent.encode = clock.lap();
    benchmark::DoNotOptimize(bytes.data());
    plan_bytes_ = bytes.size();
    prefilling_ = false;
    for (const PlanRow& row : plan.rows) prefilling_ |= !row.samples || row.num_tokens > 1;
    answers_.push_back(answer(plan));
    if (answers_.size() < 2) return spent;
    const std::string result_bytes = std::move(answers_.front());
    answers_.pop_front();
    clock.lap();
    v1::StepResult message;
    QUIRE_CHECK(message.ParseFromString(result_bytes));
    spent.parse = clock.lap();
    absl::StatusOr<StepResult> result = wire::decode(message);
    QUIRE_CHECK(result.ok());
    spent.decode = clock.lap();
    const auto gains = scheduler_.apply(*std::move(result));
    spent.apply = clock.lap();
    QUIRE_CHECK(gains.ok());
    rows_ += static_cast<double>(plan.rows.size());
    return spent;
  }

  double rows() const { return rows_; }
  std::size_t plan_bytes() const { return plan_bytes_; }

 private:
  void add(int i) {
    std::vector<TokenId> prompt(static_cast<std::size_t>(kPromptTokens + i % 16));
    for (std::size_t t = 0; t < prompt.size(); ++t) {
      prompt[t] = made_up_token(static_cast<std::uint64_t>(i), t);
    }
    SamplingParams params;
    params.max_tokens = kOutputTokens;
    params.ignore_eos = true;
    NewRequest wish;
    wish.id = static_cast<RequestId>(i + 1);
    wish.prompt = std::move(prompt);
    wish.params = std::move(params);
    QUIRE_CHECK(scheduler_.add(std::move(wish)).ok());
  }

  // What the sampling rank sends.
  std::string answer(const StepPlan& plan) {
    StepResult result{.epoch = plan.epoch, .step = plan.step, .rows = {}, .busy_us = 6000};
    for (std::size_t row = 0; row < plan.rows.size(); ++row) {
      if (!plan.rows[row].samples) continue;
      const TokenId token = made_up_token(plan.step, row);
      result.rows.push_back({.row = static_cast<int>(row), .token = token, .logprobs = {}});
    }
    wire::encode(result, &reply_);
    return reply_.SerializeAsString();
  }

  Scheduler scheduler_;
  std::deque<std::string> answers_;
  v1::StepResult reply_;  // kept, so that making answers leaves the heap as it is
  bool prefilling_ = true;
  double rows_ = 0;
  std::size_t plan_bytes_ = 0;
};

void bench_step(benchmark::State& state) {
  Load load(static_cast<int>(state.range(0)), static_cast<int>(state.range(1)));
  std::vector<Parts> steps;
  steps.reserve(kSteps);
  for (auto _ : state) {
    steps.push_back(load.step());
    state.SetIterationTime(steps.back().coordinator());
  }
  QUIRE_CHECK_EQ(load.rows(), static_cast<double>(state.iterations() * state.range(0)));
  // Medians: these machines are shared, and whoever else runs is in the mean.
  const auto whole = [](const Parts& step) { return step.coordinator(); };
  state.counters["p50_us"] = percentile_us(steps, 0.5, whole);
  state.counters["p99_us"] = percentile_us(steps, 0.99, whole);
  state.counters["plan_us"] = percentile_us(steps, 0.5, [](const Parts& p) { return p.plan; });
  state.counters["encode_us"] = percentile_us(steps, 0.5, [](const Parts& p) { return p.encode; });
  state.counters["parse_us"] = percentile_us(steps, 0.5, [](const Parts& p) { return p.parse; });
  state.counters["decode_us"] = percentile_us(steps, 0.5, [](const Parts& p) { return p.decode; });
  state.counters["apply_us"] = percentile_us(steps, 0.5, [](const Parts& p) { return p.apply; });
  state.counters["plan_bytes"] = static_cast<double>(load.plan_bytes());
}

BENCHMARK(bench_step)
    ->Name("step")
    ->ArgNames({"running", "waiting"})
    ->ArgsProduct({{1, 32, 256, 1024, 4096}, {0, 1000, 100000}})
    ->Iterations(kSteps)
    ->UseManualTime()
    ->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace quire::bench

BENCHMARK_MAIN();

#include "bench/serve/send.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <thread>

#include "common/check.h"

namespace quire::bench {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::chrono::milliseconds kAskAgain(250);

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

}  // namespace

Run send_all(const Endpoint& endpoint, const std::vector<Call>& calls,
             const std::vector<double>& due_s, int max_concurrency) {
  QUIRE_CHECK(due_s.size() == calls.size());
  Run run;
  run.outcomes.resize(calls.size());
  std::atomic<std::size_t> next{0};
  const Clock::time_point start = Clock::now();
  const auto work = [&] {
    for (std::size_t i; (i = next++) < calls.size();) {
      std::this_thread::sleep_until(start + std::chrono::duration_cast<Clock::duration>(
                                                std::chrono::duration<double>(due_s[i])));
      Outcome& outcome = run.outcomes[i];
      outcome.input_tokens = static_cast<int>(calls[i].prompt.size());
      outcome.queued_s = std::max(0.0, seconds_since(start) - due_s[i]);
      absl::StatusOr<Timing> timing = complete(endpoint, calls[i]);
      if (timing.ok()) {
        outcome.timing = *std::move(timing);
      } else {
        outcome.error = std::string(timing.status().message());
        if (outcome.error.empty()) outcome.error = "failed";
      }
    }
  };
  const std::size_t width =
      max_concurrency > 0 ? std::min<std::size_t>(calls.size(), max_concurrency) : calls.size();
  std::vector<std::thread> threads;
  for (std::size_t i = 0; i < width; ++i) threads.emplace_back(work);
  for (std::thread& thread : threads) thread.join();
  run.duration_s = seconds_since(start);
  return run;
}

absl::StatusOr<std::string> wait_for_model(const Endpoint& endpoint, double within_s) {
  const Clock::time_point start = Clock::now();
  while (true) {
    absl::StatusOr<std::string> model = first_model(endpoint);
    if (model.ok() || seconds_since(start) >= within_s) return model;
    std::this_thread::sleep_for(kAskAgain);
  }
}

}  // namespace quire::bench

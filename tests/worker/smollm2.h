// SmolLM2-135M-Instruct beside its fp32 reference (reference/smollm2): led along the golden
// continuations, and scored over whole texts. Shared by the tests that run always and those that
// take long.
#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <limits>
#include <string>
#include <vector>

#include "nlohmann/json.hpp"
#include "tests/test_data.h"
#include "tests/worker/accuracy.h"
#include "tests/worker/harness.h"
#include "tests/worker/scorer.h"

namespace quire::test {

// The best 20 before every golden token, by item and position: what KL20 is taken against.
using BestRows = std::vector<std::vector<BestTokens>>;

// A run along the golden continuations.
struct ForcedRun {
  std::vector<nlohmann::json> items;
  std::vector<Output> outputs;  // of the runner: prompt in whole, then token by token
  BestRows best;                // the scorer's, as are the next two
  std::vector<double> golden;   // logprobs of the golden tokens
  std::vector<double> kl20;     // against the rows that were given, if any were
};

class SmolLm2 : public testing::Test {
 protected:
  void SetUp() override;
  static GroupOptions options(const char* dtype, int world);
  // For a Scorer: every position of a step is a row of its own.
  static GroupOptions scoring_options(const char* dtype);

  // Runs the first `most` items whose prompt is at most `longest`.
  absl::StatusOr<ForcedRun> lead(const std::string& model, const char* dtype, std::size_t longest,
                                 std::size_t most, const char* kv_dtype = "auto") const;
  // Scores the same texts: fills in what a ForcedRun has of the scorer.
  absl::Status look_closer(const std::string& model, const char* dtype, ForcedRun& run,
                           const BestRows& reference = {}, const char* device = "cpu") const;
  // The golden tokens' row of the tolerances.
  static void expect_golden(const ForcedRun& run, const ArithmeticClass& limits);
  static void expect_kl20(const ForcedRun& run, const ArithmeticClass& limits);

  // Mean NLL of the first `most` windows of ppl.json minus the reference's, by window.
  absl::StatusOr<std::vector<double>> nll_deviations(const std::string& model, const char* dtype,
                                                     std::size_t most) const;
  // |d logprob| of every prompt token of the items that have prompt_logprobs, of prompts at most
  // `longest`.
  absl::StatusOr<std::vector<double>> prompt_deviations(const std::string& model, const char* dtype,
                                                        std::size_t longest) const;

  std::filesystem::path golden_path_, ppl_path_;
  nlohmann::json items_, windows_;
};

inline constexpr std::size_t kAll = std::numeric_limits<std::size_t>::max();

}  // namespace quire::test

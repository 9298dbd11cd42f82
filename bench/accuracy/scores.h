// What one engine gave the reference texts: the logprob of every golden token, where it would have
// picked another one, and the mean NLL of every window of real text. Ours come from the engine's
// own logits, a peer's from a file that bench/peers/accuracy.py wrote.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "tests/worker/accuracy.h"
#include "tests/worker/harness.h"

namespace quire::bench {

// reference/smollm2: 24 greedy continuations with their logprobs, 40 windows with their NLL.
struct Reference {
  struct Item {
    std::vector<TokenId> ids;  // prompt, then the golden tokens
    std::size_t prompt = 0;    // of them
    std::vector<double> logprobs;
  };
  struct Window {
    std::vector<TokenId> ids;
    double nll = 0.0;
  };
  std::vector<Item> items;
  std::vector<Window> windows;
};
absl::StatusOr<Reference> read_reference(const std::filesystem::path& folder,
                                         std::size_t max_windows);

using BestRows = std::vector<test::BestTokens>;  // of every golden position, in order

struct Scores {
  std::string name;
  std::vector<double> golden;   // logprob of each golden token
  std::vector<bool> is_argmax;  // whether it is the best
  std::vector<double> nll;      // mean of each window
  std::vector<double> kl20;     // against the rows that were given; empty without
  BestRows best;                // the 20 best; empty of peers
};

// One way to compute.
struct Configuration {
  std::string name;
  std::filesystem::path model;
  std::string dtype = "auto";
  std::string kv_dtype = "auto";
  std::string isa = "auto";
  int threads = 2;
};

// InvalidArgument or NotFound where the device refuses the configuration.
absl::StatusOr<Scores> score(const Configuration& with, const Reference& reference,
                             const BestRows& exact);

// {"name", "golden": [...], "argmax": [0 or 1, ...], "nll": [...]}
absl::StatusOr<Scores> read_scores(const std::filesystem::path& file, const Reference& reference);

}  // namespace quire::bench

// Loads to replay: recorded arrivals and lengths (Azure 2023, Mooncake with its prefix hashes,
// vidur's lengths), or made up. Prompts are made when they are asked for: a trace is small.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/ids.h"

namespace quire::bench {

inline constexpr int kReplayVocab = 128256;  // Llama-3's

// A number for two: the same on every machine.
std::uint64_t mix(std::uint64_t a, std::uint64_t b);

struct Call {
  double at_s = 0;  // of arrival
  int prompt_tokens = 1;
  int output_tokens = 1;
  std::uint32_t first_hash = 0;  // into Trace::hashes
  std::uint32_t num_hashes = 0;  // 0: a prompt that nobody shares
};

struct Trace {
  std::string name;
  std::vector<Call> calls;  // in order of arrival
  std::vector<std::uint32_t> hashes;
  int hash_tokens = 512;  // that one of them stands for
  int watched = -1;       // a call whose coming the others feel (intruder)

  std::vector<TokenId> prompt(std::size_t index) const;
  // Of all prompt tokens, those that a cache without end would hold when they arrive.
  double ideal_hit_ratio() const;
  // The same for a cache of so many tokens that drops what was used longest ago, requests one after
  // the other: what a good cache of the real size reaches.
  double lru_hit_ratio(double capacity_tokens) const;
  // Waste if only the last block of every sequence is partly filled, over each call's life: of `n`
  // choices each that share their prompt's full blocks.
  double last_block_floor(int block_size, int n) const;
  double prompt_tokens() const;
  double output_tokens() const;
};

struct TraceOptions {
  // azure-conv, azure-code, mooncake, mooncake-synthetic, vidur; a path of such a file; or
  // sharegpt, uniform:IN:OUT, intruder:TOKENS.
  std::string name = "azure-conv";
  int requests = 0;  // 0: all; 10,000 where there is no end
  double scale = 1;  // of the recorded rate
  double rate = 0;   // requests a second, Poisson, instead of recorded arrivals; 0: all at once
                     // where none are recorded
  int max_tokens = 131072;  // prompt and output: longer prompts are cut
  std::uint64_t seed = 1;
};

// Recorded ones are looked for in QUIRE_TEST_DATA (default: ../shared beside the project).
absl::StatusOr<Trace> load_trace(const TraceOptions& options);

}  // namespace quire::bench

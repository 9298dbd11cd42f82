// The engine of one answer's tests: the real scheduler over real ranks, so that batches, chunks,
// prefix hits, preemptions, guesses and moves to the offload store are those of a server. A Way
// says how requests are served; whatever it says, the answers must be the same to the bit.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "tests/worker/harness.h"

namespace quire::test {

struct Way {
  std::string name;
  int world = 1;
  int threads = 1;      // per rank
  int together = 64;    // requests at once, at most
  int chunk = 0;        // tokens of a prompt per step, at most; 0: prompts whole
  int blocks = 0;       // of the KV cache; 0: all
  int host_blocks = 0;  // of the offload store
  bool prefix_cache = false;
  int rounds = 1;          // the same requests again, all after the end of the round before
  int guesses = 0;         // tokens of speculation, at most
  std::uint64_t seed = 0;  // of random arrivals; 0: all arrive at once
};

// What happened on the way: a test that wants preemptions looks whether there were any.
struct Traffic {
  int num_steps = 0;
  int most_rows = 0;      // of a step
  int longest_piece = 0;  // of a prompt, in one row
  int cut_prompts = 0;    // rows of a prompt that are not its end
  std::uint64_t preemptions = 0, prefix_hits = 0, accepted_guesses = 0, guesses = 0;
  std::uint64_t loaded_blocks = 0;
};

struct Served {
  std::vector<Output> outputs;  // of each request and, with several rounds, of the last one
  Traffic traffic;
};

// The group has way.world ranks of way.threads threads and nothing in its slots; nor has it then.
// Internal where rounds do not agree, or nothing can be planned.
absl::StatusOr<Served> serve(RankGroup& group, const std::vector<Prompt>& requests, const Way& way);

// Ranks for the way, with limits in which it fits.
absl::StatusOr<std::unique_ptr<RankGroup>> open_for(const std::string& model, GroupOptions options,
                                                    const Way& way);

// Empty, or the first difference of tokens or of the bits of logprobs, in words.
std::string difference(const Output& got, const Output& want);

}  // namespace quire::test

// The load of a serving benchmark: prompts as token ids and output lengths, from a seed.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/ids.h"

namespace quire::bench {

struct Call {
  std::vector<TokenId> prompt;
  int max_tokens = 0;
};

struct LoadOptions {
  int requests = 24;
  std::uint64_t seed = 1;
  // Log-normal lengths with these means and sigmas, clipped to [min_length, max]; or fixed ones.
  double input_mean = 161, input_sigma = 1.0;
  double output_mean = 338, output_sigma = 0.8;
  int min_length = 8, input_max = 1024, output_max = 512;
  int fixed_input = 0, fixed_output = 0;  // > 0: every request has exactly this
};

// Prompts are cut at random places from `text`, the tokens of some corpus (used as a ring).
std::vector<Call> make_load(const LoadOptions& options, const std::vector<TokenId>& text);

// The value below which a share `p` of `values` lies; 0 of none.
double percentile(std::vector<double> values, double p);

// Random ids in [3, vocab): for models without a tokenizer, whose answers mean nothing anyway. The
// first three are left out: in most vocabularies they begin and end texts.
std::vector<TokenId> random_tokens(int vocab, std::uint64_t seed);

// All of Debian's licence texts, tokenized by the model's own tokenizer.
absl::StatusOr<std::vector<TokenId>> licence_tokens(const std::string& model_path);

}  // namespace quire::bench

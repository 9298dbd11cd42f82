// The load of a serving benchmark: prompts as token ids and output lengths, and when each is sent,
// all from seeds.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/ids.h"
#include "coordinator/text/text.h"

namespace quire::bench {

struct Call {
  std::vector<TokenId> prompt;
  std::string text;  // the prompt's, where a tokenizer is known and chat needs it
  int max_tokens = 0;
};

// Log-normal lengths with this mean and sigma, clipped to [low, high]; or uniform in
// fixed * (1 -+ range), where fixed > 0.
struct LengthOptions {
  double mean, sigma;
  int low, high;
  int fixed = 0;
  double range = 0;
};

struct LoadOptions {
  int requests = 24;
  std::uint64_t seed = 1;  // of lengths and, without a seed of their own, of the prompts
  LengthOptions input = {161, 1.0, 8, 1024};
  LengthOptions output = {338, 0.8, 8, 512};
  int common_prefix = 0;  // tokens that all prompts begin with, before their own
  // Other prompts for the same lengths: so that a server that keeps prefixes has seen none.
  std::optional<std::uint64_t> prompt_seed;
};

// Prompts are cut at random places from `text`, the tokens of some corpus (used as a ring).
std::vector<Call> make_load(const LoadOptions& options, const std::vector<TokenId>& text);

// Random ids in [3, vocab): for models without a tokenizer, whose answers mean nothing anyway. The
// first three are left out: in most vocabularies they begin and end texts. With a tokenizer none of
// its special tokens is among them.
std::vector<TokenId> random_tokens(int vocab, std::uint64_t seed, const Tokenizer* tokenizer);

absl::StatusOr<Text> open_tokenizer(const std::string& model_path);
// A text file, or all plain files of a folder in order of their names, as tokens.
absl::StatusOr<std::vector<TokenId>> tokens_of(const std::string& path, const Tokenizer& tokenizer);
// All of Debian's licence texts, tokenized by the model's own tokenizer.
absl::StatusOr<std::vector<TokenId>> licence_tokens(const std::string& model_path);
inline constexpr char kLicences[] = "/usr/share/common-licenses";

// When each request is due, in seconds after the first could be. Gaps are exponential with
// `burstiness` 1 (a Poisson process), else gamma of that shape: below 1 in bursts, above 1 evenly.
// They are stretched so that all `requests` take exactly requests / rate, as vLLM does; an infinite
// rate has them all due at 0.
std::vector<double> arrivals(int requests, double rate, double burstiness, std::uint64_t seed);

}  // namespace quire::bench

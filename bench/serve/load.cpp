#include "bench/serve/load.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <random>
#include <sstream>

#include "absl/strings/str_cat.h"
#include "common/model_file/model_file.h"
#include "common/status.h"

namespace quire::bench {
namespace {

// Log-normal with the given mean: mu = ln(mean) - sigma^2 / 2. Draws even if the length is fixed:
// what follows in the sequence is the same then.
int draw_length(std::mt19937_64& random, const LengthOptions& options) {
  const double mu = std::log(options.mean) - options.sigma * options.sigma / 2;
  std::lognormal_distribution<double> distribution(mu, options.sigma);
  const double drawn = distribution(random);
  if (options.fixed <= 0) {
    return std::clamp(static_cast<int>(std::lround(drawn)), options.low, options.high);
  }
  if (options.range <= 0) return options.fixed;
  std::uniform_real_distribution<double> share(1 - options.range, 1 + options.range);
  return std::max(1, static_cast<int>(std::lround(options.fixed * share(random))));
}

void append_from(const std::vector<TokenId>& text, std::size_t start, int length,
                 std::vector<TokenId>* out) {
  for (int t = 0; t < length; ++t) {
    out->push_back(text[(start + static_cast<std::size_t>(t)) % text.size()]);
  }
}

absl::StatusOr<std::string> read_all(const std::string& path) {
  std::error_code error;
  std::vector<std::filesystem::path> paths = {path};
  if (std::filesystem::is_directory(path, error)) {
    paths.clear();
    for (const auto& entry : std::filesystem::directory_iterator(path, error)) {
      if (entry.is_regular_file() && !entry.is_symlink()) paths.push_back(entry.path());
    }
    std::sort(paths.begin(), paths.end());
  }
  std::ostringstream all;
  for (const auto& one : paths) {
    std::ifstream file(one);
    if (!file) return absl::NotFoundError(absl::StrCat("cannot read ", one.string()));
    all << file.rdbuf();
  }
  return all.str();
}

}  // namespace

std::vector<Call> make_load(const LoadOptions& options, const std::vector<TokenId>& text) {
  std::mt19937_64 random(options.seed);
  std::mt19937_64 other(options.prompt_seed.value_or(0));
  const std::size_t common = options.common_prefix > 0 ? other() % text.size() : 0;
  std::vector<Call> calls;
  for (int i = 0; i < options.requests; ++i) {
    const int input = draw_length(random, options.input);
    Call call;
    call.max_tokens = draw_length(random, options.output);
    std::size_t start = random() % text.size();
    if (options.prompt_seed) start = other() % text.size();
    append_from(text, common, options.common_prefix, &call.prompt);
    append_from(text, start, input, &call.prompt);
    calls.push_back(std::move(call));
  }
  return calls;
}

std::vector<TokenId> random_tokens(int vocab, std::uint64_t seed, const Tokenizer* tokenizer) {
  std::mt19937_64 random(seed);
  std::vector<TokenId> tokens(100003);
  for (TokenId& token : tokens) {
    do {
      token = static_cast<TokenId>(3 + random() % static_cast<std::uint64_t>(vocab - 3));
    } while (tokenizer != nullptr && tokenizer->is_special(token));
  }
  return tokens;
}

absl::StatusOr<Text> open_tokenizer(const std::string& model_path) {
  QUIRE_ASSIGN_OR_RETURN(const ModelFile model, open_model(model_path));
  return make_text(model);
}

absl::StatusOr<std::vector<TokenId>> tokens_of(const std::string& path,
                                               const Tokenizer& tokenizer) {
  QUIRE_ASSIGN_OR_RETURN(const std::string all, read_all(path));
  QUIRE_ASSIGN_OR_RETURN(std::vector<TokenId> tokens,
                         tokenizer.encode(all, /*parse_special=*/false, /*add_special=*/false));
  if (tokens.empty()) return absl::InvalidArgumentError(absl::StrCat(path, " holds no text"));
  return tokens;
}

absl::StatusOr<std::vector<TokenId>> licence_tokens(const std::string& model_path) {
  QUIRE_ASSIGN_OR_RETURN(const Text text, open_tokenizer(model_path));
  return tokens_of(kLicences, *text.tokenizer);
}

std::vector<double> arrivals(int requests, double rate, double burstiness, std::uint64_t seed) {
  std::vector<double> times(static_cast<std::size_t>(requests), 0);
  if (std::isinf(rate) || times.empty()) return times;
  std::mt19937_64 random(seed);
  std::gamma_distribution<double> gap(burstiness, 1 / (rate * burstiness));
  double at = 0;
  for (double& time : times) time = at += gap(random);
  const double stretch = requests / rate / std::max(at, 1e-12);
  for (double& time : times) time *= stretch;
  return times;
}

}  // namespace quire::bench

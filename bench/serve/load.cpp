#include "bench/serve/load.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <random>
#include <sstream>

#include "common/model_file/model_file.h"
#include "common/status.h"
#include "coordinator/text/text.h"

namespace quire::bench {
namespace {

// Log-normal with the given mean: mu = ln(mean) - sigma^2 / 2.
int draw_length(std::mt19937_64& random, double mean, double sigma, int low, int high) {
  std::lognormal_distribution<double> distribution(std::log(mean) - sigma * sigma / 2, sigma);
  return std::clamp(static_cast<int>(std::lround(distribution(random))), low, high);
}

}  // namespace

std::vector<Call> make_load(const LoadOptions& options, const std::vector<TokenId>& text) {
  std::mt19937_64 random(options.seed);
  std::vector<Call> calls;
  for (int i = 0; i < options.requests; ++i) {
    const int input = draw_length(random, options.input_mean, options.input_sigma,
                                  options.min_length, options.input_max);
    const int output = draw_length(random, options.output_mean, options.output_sigma,
                                   options.min_length, options.output_max);
    Call call;
    call.max_tokens = options.fixed_output > 0 ? options.fixed_output : output;
    const int length = options.fixed_input > 0 ? options.fixed_input : input;
    const std::size_t start = random() % text.size();
    for (int t = 0; t < length; ++t) {
      call.prompt.push_back(text[(start + static_cast<std::size_t>(t)) % text.size()]);
    }
    calls.push_back(std::move(call));
  }
  return calls;
}

double percentile(std::vector<double> values, double p) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  return values[std::min(values.size() - 1,
                         static_cast<std::size_t>(p * static_cast<double>(values.size())))];
}

std::vector<TokenId> random_tokens(int vocab, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<TokenId> tokens(100003);
  for (TokenId& token : tokens) {
    token = static_cast<TokenId>(3 + random() % static_cast<std::uint64_t>(vocab - 3));
  }
  return tokens;
}

absl::StatusOr<std::vector<TokenId>> licence_tokens(const std::string& model_path) {
  QUIRE_ASSIGN_OR_RETURN(const ModelFile model, open_model(model_path));
  QUIRE_ASSIGN_OR_RETURN(const Text text, make_text(model));
  std::vector<std::filesystem::path> paths;
  for (const auto& entry : std::filesystem::directory_iterator("/usr/share/common-licenses")) {
    if (entry.is_regular_file() && !entry.is_symlink()) paths.push_back(entry.path());
  }
  std::sort(paths.begin(), paths.end());
  std::ostringstream all;
  for (const auto& path : paths) all << std::ifstream(path).rdbuf();
  return text.tokenizer->encode(all.str(), /*parse_special=*/false, /*add_special=*/false);
}

}  // namespace quire::bench

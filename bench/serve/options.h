// The options of `quire bench serve`: names and meanings are those of `vllm bench serve` where it
// has them.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "bench/serve/http_client.h"

namespace quire::bench {

enum class Dataset { kRandom, kText, kLogNormal };

struct ServeOptions {
  bool help = false;
  bool print_load = false;
  Endpoint endpoint;
  std::string path;       // --endpoint; empty: the backend's
  std::string tokenizer;  // a GGUF file, a Hugging Face folder, or smollm2
  int vocab_size = 0;
  double ready_within_s = 0;

  Dataset dataset = Dataset::kRandom;
  std::string dataset_path;
  LoadOptions load;
  int input_len = 1024, output_len = 128;
  double range_ratio = 0;

  int num_warmups = 0;
  double request_rate = 0;  // a second; infinity: all at once
  double burstiness = 1;
  int max_concurrency = 0;  // 0: no limit

  std::vector<std::string> percentile_metrics = {"ttft", "tpot", "itl"};
  std::vector<double> percents = {99};
  Goals goals;

  bool save_result = false, save_detailed = false;
  std::string result_dir, result_filename, label;
  std::vector<std::pair<std::string, std::string>> metadata;
};

// Defaults are in parse_serve's table. InvalidArgument: a sentence for the user.
absl::StatusOr<ServeOptions> parse_serve(const std::vector<std::string>& arguments);
std::string serve_help();

}  // namespace quire::bench

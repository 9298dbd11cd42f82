// Reading and making traces. Lengths of "sharegpt": log-normal with means of 161 in (sigma 1.0) and
// 338 out (sigma 0.8), clipped to [4, 2048] both: the load of bench_serve with the output uncapped.
#include "bench/schedule/trace.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <list>
#include <nlohmann/json.hpp>
#include <random>
#include <unordered_map>
#include <unordered_set>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/status.h"

namespace quire::bench {
namespace {

std::string trace_path(const std::string& name) {
  static constexpr const char* kFiles[][2] = {
      {"azure-conv", "azure2023_conv.csv"},
      {"azure-code", "azure2023_code.csv"},
      {"mooncake", "mooncake_conversation_first3000.jsonl"},
      {"mooncake-synthetic", "mooncake_synthetic_first600.jsonl"},
      {"vidur", "vidur_arxiv_summarization_first4000.csv"},
  };
  const char* root = std::getenv("QUIRE_TEST_DATA");
  const std::filesystem::path folder =
      root != nullptr ? std::filesystem::path(root)
                      : std::filesystem::path(QUIRE_SOURCE_DIR).parent_path() / "shared";
  for (const auto& [known, file] : kFiles) {
    if (name == known) return folder / "data/traces" / file;
  }
  return name;
}

// "2023-11-16 18:15:46.6805900" in seconds of its day.
bool parse_clock(absl::string_view text, double* seconds) {
  const std::vector<absl::string_view> parts = absl::StrSplit(text, ' ');
  const std::vector<absl::string_view> clock = absl::StrSplit(parts.back(), ':');
  double hours = 0, minutes = 0, rest = 0;
  if (clock.size() != 3 || !absl::SimpleAtod(clock[0], &hours) ||
      !absl::SimpleAtod(clock[1], &minutes) || !absl::SimpleAtod(clock[2], &rest)) {
    return false;
  }
  *seconds = hours * 3600 + minutes * 60 + rest;
  return true;
}

// Azure: TIMESTAMP,ContextTokens,GeneratedTokens. Vidur: prefill, decode, ...; no arrivals.
absl::Status read_csv(std::ifstream& file, bool timed, Trace* trace) {
  std::string line;
  std::getline(file, line);  // the header
  for (int number = 2; std::getline(file, line); ++number) {
    const std::vector<absl::string_view> cells =
        absl::StrSplit(absl::StripAsciiWhitespace(line), ',');
    Call call;
    const std::size_t lengths = timed ? 1 : 0;
    if (cells.size() < lengths + 2 || (timed && !parse_clock(cells[0], &call.at_s)) ||
        !absl::SimpleAtoi(cells[lengths], &call.prompt_tokens) ||
        !absl::SimpleAtoi(cells[lengths + 1], &call.output_tokens)) {
      return absl::InvalidArgumentError(
          absl::StrCat(trace->name, " line ", number, " is not a row of a trace: ", line));
    }
    trace->calls.push_back(call);
  }
  return absl::OkStatus();
}

absl::Status read_mooncake(std::ifstream& file, Trace* trace) {
  std::string line;
  for (int number = 1; std::getline(file, line); ++number) {
    const nlohmann::json row = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
    if (!row.is_object() || !row.contains("timestamp") || !row.contains("input_length") ||
        !row.contains("output_length") || !row.contains("hash_ids")) {
      return absl::InvalidArgumentError(
          absl::StrCat(trace->name, " line ", number, " is not a row of a Mooncake trace."));
    }
    Call call;
    call.at_s = row["timestamp"].get<double>() / 1e3;
    call.prompt_tokens = row["input_length"].get<int>();
    call.output_tokens = row["output_length"].get<int>();
    call.first_hash = static_cast<std::uint32_t>(trace->hashes.size());
    for (const auto& id : row["hash_ids"]) trace->hashes.push_back(id.get<std::uint32_t>());
    call.num_hashes = static_cast<std::uint32_t>(trace->hashes.size()) - call.first_hash;
    trace->calls.push_back(call);
  }
  // 512 tokens a hash as published; 16 in the small one that was derived from it.
  const bool fine = std::any_of(trace->calls.begin(), trace->calls.end(), [](const Call& call) {
    return call.num_hashes * 512 > static_cast<std::uint32_t>(call.prompt_tokens) + 511;
  });
  trace->hash_tokens = fine ? 16 : 512;
  return absl::OkStatus();
}

int draw_length(std::mt19937_64& random, double mean, double sigma) {
  std::lognormal_distribution<double> lengths(std::log(mean) - sigma * sigma / 2, sigma);
  return std::clamp(static_cast<int>(std::lround(lengths(random))), 4, 2048);
}

// 32 streams of 512 tokens in and 1,500 out; then, while all decode, one long prompt.
void make_intruder(int tokens, std::mt19937_64& random, Trace* trace) {
  for (int i = 0; i < 32; ++i) {
    const int jitter = static_cast<int>(random() % 64);
    trace->calls.push_back({.at_s = 0, .prompt_tokens = 480 + jitter, .output_tokens = 1500});
  }
  const double at_s = 3.0 + static_cast<double>(random() % 1000) / 1e5;
  trace->calls.push_back({.at_s = at_s, .prompt_tokens = tokens, .output_tokens = 64});
  trace->watched = 32;
}

absl::Status make_up(const TraceOptions& options, Trace* trace) {
  std::mt19937_64 random(options.seed);
  const std::vector<std::string> parts = absl::StrSplit(options.name, ':');
  const int count = options.requests > 0 ? options.requests : 10000;
  int a = 0, b = 0;
  if (parts[0] == "sharegpt" && parts.size() == 1) {
    for (int i = 0; i < count; ++i) {
      const int in = draw_length(random, 161, 1.0);
      trace->calls.push_back(
          {.at_s = 0, .prompt_tokens = in, .output_tokens = draw_length(random, 338, 0.8)});
    }
  } else if (parts[0] == "uniform" && parts.size() == 3 && absl::SimpleAtoi(parts[1], &a) &&
             absl::SimpleAtoi(parts[2], &b) && a > 0 && b > 0) {
    for (int i = 0; i < count; ++i) {
      trace->calls.push_back({.at_s = 0, .prompt_tokens = a, .output_tokens = b});
    }
  } else if (parts[0] == "intruder" && parts.size() == 2 && absl::SimpleAtoi(parts[1], &a) &&
             a > 0) {
    make_intruder(a, random, trace);
  } else {
    return absl::InvalidArgumentError(
        absl::StrCat("There is no trace named '", options.name, "', and no such file."));
  }
  return absl::OkStatus();
}

void set_arrivals(const TraceOptions& options, bool recorded, Trace* trace) {
  std::vector<Call>& calls = trace->calls;
  if (options.rate > 0) {
    std::mt19937_64 random(mix(options.seed, 7));
    std::exponential_distribution<double> gaps(options.rate);
    double at_s = 0;
    for (Call& call : calls) call.at_s = at_s += gaps(random);
  } else if (recorded) {
    const double start = calls.front().at_s;
    for (Call& call : calls) call.at_s = (call.at_s - start) / options.scale;
  }
  std::stable_sort(calls.begin(), calls.end(),
                   [](const Call& a, const Call& b) { return a.at_s < b.at_s; });
}

}  // namespace

std::uint64_t mix(std::uint64_t a, std::uint64_t b) {
  std::uint64_t x = a * 0x9e3779b97f4a7c15u + b + 0x632be59bd9b4e019u;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

absl::StatusOr<Trace> load_trace(const TraceOptions& options) {
  Trace trace;
  trace.name = options.name;
  const std::string path = trace_path(options.name);
  bool recorded = false;
  if (std::ifstream file(path); file && std::filesystem::is_regular_file(path)) {
    const bool mooncake = absl::EndsWith(path, ".jsonl");
    recorded = mooncake || !absl::StrContains(path, "vidur");
    QUIRE_RETURN_IF_ERROR(mooncake ? read_mooncake(file, &trace)
                                   : read_csv(file, recorded, &trace));
  } else {
    QUIRE_RETURN_IF_ERROR(make_up(options, &trace));
  }
  if (options.requests > 0 && trace.calls.size() > static_cast<std::size_t>(options.requests)) {
    trace.calls.resize(static_cast<std::size_t>(options.requests));
  }
  if (trace.calls.empty()) return absl::InvalidArgumentError(absl::StrCat(path, " is empty."));
  for (Call& call : trace.calls) {
    call.output_tokens = std::clamp(call.output_tokens, 1, options.max_tokens / 2);
    call.prompt_tokens = std::clamp(call.prompt_tokens, 1, options.max_tokens - call.output_tokens);
  }
  set_arrivals(options, recorded, &trace);
  return trace;
}

std::vector<TokenId> Trace::prompt(std::size_t index) const {
  const Call& call = calls[index];
  std::vector<TokenId> tokens(static_cast<std::size_t>(call.prompt_tokens));
  const auto span = static_cast<std::size_t>(hash_tokens);
  for (std::size_t t = 0; t < tokens.size(); ++t) {
    // Tokens of a shared block follow from its hash, those of other prompts from the call.
    const bool shared = t / span < call.num_hashes;
    const std::uint64_t drawn = shared ? mix(hashes[call.first_hash + t / span], t % span)
                                       : mix((std::uint64_t{1} << 40) + index, t);
    tokens[t] = static_cast<TokenId>(drawn % kReplayVocab);
  }
  return tokens;
}

double Trace::ideal_hit_ratio() const {
  std::unordered_set<std::uint32_t> seen;
  double hits = 0;
  for (const Call& call : calls) {
    int known = 0;
    const std::uint32_t* ids = hashes.data() + call.first_hash;
    const int count = static_cast<int>(call.num_hashes);
    while (known < count && seen.contains(ids[known])) ++known;
    hits += std::min(known * hash_tokens, call.prompt_tokens);
    for (int i = known; i < count; ++i) seen.insert(ids[i]);
  }
  return hits / prompt_tokens();
}

double Trace::lru_hit_ratio(double capacity_tokens) const {
  std::list<std::uint32_t> order;  // the newest first
  std::unordered_map<std::uint32_t, std::list<std::uint32_t>::iterator> cached;
  const double capacity = capacity_tokens / hash_tokens;
  double hits = 0;
  for (const Call& call : calls) {
    const std::uint32_t* ids = hashes.data() + call.first_hash;
    const int count = static_cast<int>(call.num_hashes);
    int known = 0;
    while (known < count && cached.contains(ids[known])) ++known;
    hits += std::min(known * hash_tokens, call.prompt_tokens);
    // From the end, so that what is left of a prompt is its beginning.
    for (int i = count - 1; i >= 0; --i) {
      const auto found = cached.find(ids[i]);
      if (found != cached.end()) order.erase(found->second);
      order.push_front(ids[i]);
      cached[ids[i]] = order.begin();
    }
    while (static_cast<double>(order.size()) > capacity) {
      cached.erase(order.back());
      order.pop_back();
    }
  }
  return hits / prompt_tokens();
}

double Trace::last_block_floor(int block_size, int n) const {
  double filled = 0, allocated = 0;
  for (const Call& call : calls) {
    const int shared = (n - 1) * (call.prompt_tokens / block_size * block_size);
    for (int t = 0; t < call.output_tokens; ++t) {
      const int length = call.prompt_tokens + t;
      filled += n * length - shared;
      allocated += n * ((length + block_size - 1) / block_size * block_size) - shared;
    }
  }
  return 1 - filled / allocated;
}

double Trace::prompt_tokens() const {
  double sum = 0;
  for (const Call& call : calls) sum += call.prompt_tokens;
  return sum;
}

double Trace::output_tokens() const {
  double sum = 0;
  for (const Call& call : calls) sum += call.output_tokens;
  return sum;
}

}  // namespace quire::bench

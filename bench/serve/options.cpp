#include "bench/serve/options.h"

#include <cmath>
#include <fstream>
#include <limits>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "common/status.h"

namespace quire::bench {
namespace {

using Set = absl::Status (*)(ServeOptions&, const std::string&);

absl::Status bad(const std::string& value, const std::string& allowed) {
  return absl::InvalidArgumentError(absl::StrCat("`", value, "`; it must be ", allowed));
}

absl::Status set_int(const std::string& value, int least, int most, int* out) {
  if (absl::SimpleAtoi(value, out) && *out >= least && *out <= most) return absl::OkStatus();
  return bad(value, absl::StrCat("an integer from ", least, " to ", most));
}

absl::Status set_number(const std::string& value, double least, double most, double* out) {
  if (absl::SimpleAtod(value, out) && *out >= least && *out <= most) return absl::OkStatus();
  return bad(value, absl::StrCat("a number from ", least, " to ", most));
}

constexpr int kMostRequests = 1000000, kMostTokens = 1 << 20;

absl::Status set_port(ServeOptions& o, const std::string& v) {
  int port = 0;
  if (absl::Status status = set_int(v, 1, 65535, &port); !status.ok()) return status;
  o.endpoint.port = absl::StrCat(port);
  return absl::OkStatus();
}

absl::Status set_backend(ServeOptions& o, const std::string& v) {
  if (v != "openai" && v != "vllm" && v != "openai-chat") {
    return bad(v, "openai (or vllm, the same) for completions, or openai-chat");
  }
  o.endpoint.chat = v == "openai-chat";
  return absl::OkStatus();
}

absl::Status set_key_file(ServeOptions& o, const std::string& path) {
  std::ifstream file(path);
  if (std::getline(file, o.endpoint.api_key)) return absl::OkStatus();
  return bad(path, "a file with the key in its first line");
}

absl::Status set_extra_body(ServeOptions& o, const std::string& v) {
  o.endpoint.extra_body = nlohmann::json::parse(v, nullptr, false);
  return o.endpoint.extra_body.is_object() ? absl::OkStatus() : bad(v, "a JSON object");
}

absl::Status set_dataset(ServeOptions& o, const std::string& v) {
  if (v == "random") {
    o.dataset = Dataset::kRandom;
  } else if (v == "text") {
    o.dataset = Dataset::kText;
  } else if (v == "lognormal") {
    o.dataset = Dataset::kLogNormal;
  } else {
    return bad(v, "random, text or lognormal");
  }
  return absl::OkStatus();
}

absl::Status set_seed(ServeOptions& o, const std::string& v) {
  return absl::SimpleAtoi(v, &o.load.seed) ? absl::OkStatus() : bad(v, "an integer from 0");
}

absl::Status set_prompt_seed(ServeOptions& o, const std::string& v) {
  std::uint64_t seed = 0;
  if (!absl::SimpleAtoi(v, &seed)) return bad(v, "an integer from 0");
  o.load.prompt_seed = seed;
  return absl::OkStatus();
}

absl::Status set_rate(ServeOptions& o, const std::string& v) {
  if (absl::SimpleAtod(v, &o.request_rate) && o.request_rate > 0) return absl::OkStatus();
  return bad(v, "requests a second, above 0, or inf to send all at once");
}

absl::Status set_metrics(ServeOptions& o, const std::string& v) {
  o.percentile_metrics = absl::StrSplit(v, ',');
  for (const std::string& name : o.percentile_metrics) {
    if (name != "ttft" && name != "tpot" && name != "itl" && name != "e2el") {
      return bad(v, "a list of ttft, tpot, itl and e2el, with commas");
    }
  }
  return absl::OkStatus();
}

absl::Status set_percents(ServeOptions& o, const std::string& v) {
  o.percents.clear();
  for (const auto& part : absl::StrSplit(v, ',')) {
    double percent = -1;
    if (!absl::SimpleAtod(part, &percent) || !(percent >= 0 && percent <= 100)) {
      return bad(v, "a list of numbers from 0 to 100, with commas");
    }
    o.percents.push_back(percent);
  }
  return absl::OkStatus();
}

absl::Status set_goal(ServeOptions& o, const std::string& v) {
  const std::vector<std::string> parts = absl::StrSplit(v, ':');
  double* goal = parts[0] == "ttft"   ? &o.goals.ttft_ms
                 : parts[0] == "tpot" ? &o.goals.tpot_ms
                 : parts[0] == "e2el" ? &o.goals.e2el_ms
                                      : nullptr;
  double limit = 0;
  if (parts.size() != 2 || goal == nullptr || !absl::SimpleAtod(parts[1], &limit) ||
      !(limit > 0 && std::isfinite(limit))) {
    return bad(v, "NAME:MILLISECONDS with ttft, tpot or e2el, such as ttft:500 tpot:30");
  }
  *goal = limit;
  return absl::OkStatus();
}

absl::Status set_metadata(ServeOptions& o, const std::string& v) {
  const std::size_t equals = v.find('=');
  if (equals == std::string::npos || equals == 0) return bad(v, "KEY=VALUE");
  o.metadata.emplace_back(v.substr(0, equals), v.substr(equals + 1));
  return absl::OkStatus();
}

// One option. `value` is null for a flag; `many` takes every argument up to the next option.
struct Row {
  const char* name;
  const char* value;
  const char* help;
  Set set;
  bool many = false;
};

template <std::string ServeOptions::*kField>
absl::Status text(ServeOptions& o, const std::string& v) {
  o.*kField = v;
  return absl::OkStatus();
}

template <bool ServeOptions::*kField>
absl::Status flag(ServeOptions& o, const std::string&) {
  o.*kField = true;
  return absl::OkStatus();
}

template <int ServeOptions::*kField, int kLeast, int kMost>
absl::Status integer(ServeOptions& o, const std::string& v) {
  return set_int(v, kLeast, kMost, &(o.*kField));
}

const Row kRows[] = {
    {"--backend", "NAME",
     "openai (completions, prompts as token ids; vllm is the same) or openai-chat [openai]",
     set_backend},
    {"--base-url", "URL", "where the server is [http://127.0.0.1:8000]",
     [](ServeOptions& o, const std::string& v) { return set_address(v, &o.endpoint); }},
    {"--host", "HOST", "the same in parts",
     [](ServeOptions& o, const std::string& v) {
       o.endpoint.host = v;
       return v.empty() ? bad(v, "a name or address") : absl::OkStatus();
     }},
    {"--port", "PORT", "", set_port},
    {"--endpoint", "PATH", "of the API [/v1/completions, or /v1/chat/completions for chat]",
     [](ServeOptions& o, const std::string& v) {
       o.path = v;
       return v.rfind('/', 0) == 0 ? absl::OkStatus() : bad(v, "a path that begins with /");
     }},
    {"--model", "NAME", "the served name [the first that /v1/models lists]",
     [](ServeOptions& o, const std::string& v) {
       o.endpoint.model = v;
       return absl::OkStatus();
     }},
    {"--api-key-file", "FILE", "a key to send, in the first line of a file", set_key_file},
    {"--ready-check-timeout-sec", "S", "wait so long for the server to list its models [0]",
     [](ServeOptions& o, const std::string& v) {
       return set_number(v, 0, 86400, &o.ready_within_s);
     }},
    {"--request-timeout-sec", "S", "a request that takes longer has failed [21600]",
     [](ServeOptions& o, const std::string& v) {
       return set_number(v, 0.001, 1e6, &o.endpoint.timeout_s);
     }},
    {"--tokenizer", "MODEL",
     "a GGUF file or Hugging Face folder whose tokenizer makes the prompts, or smollm2",
     text<&ServeOptions::tokenizer>},
    {"--vocab-size", "N", "without a tokenizer: prompts are random ids below N",
     integer<&ServeOptions::vocab_size, 4, 1 << 30>},
    {"--dataset-name", "NAME",
     "random (ids of the given lengths), text (cut from --dataset-path, same lengths) or\n"
     "lognormal (cut from it, means of 161 in (sigma 1.0) and 338 out (sigma 0.8), clipped to\n"
     "[8, 1024] and [8, 512]: much like ShareGPT's) [random]",
     set_dataset},
    {"--dataset-path", "PATH", "a text file or a folder of them [/usr/share/common-licenses]",
     text<&ServeOptions::dataset_path>},
    {"--num-prompts", "N", "requests [1000]",
     [](ServeOptions& o, const std::string& v) {
       return set_int(v, 1, kMostRequests, &o.load.requests);
     }},
    {"--random-input-len", "N", "tokens of a prompt; with lognormal, instead of its lengths [1024]",
     integer<&ServeOptions::input_len, 1, kMostTokens>},
    {"--random-output-len", "N",
     "tokens of an answer; with lognormal, instead of its lengths [128]",
     integer<&ServeOptions::output_len, 1, kMostTokens>},
    {"--random-range-ratio", "R", "lengths are uniform in LEN * (1 - R) to LEN * (1 + R) [0]",
     [](ServeOptions& o, const std::string& v) { return set_number(v, 0, 0.999, &o.range_ratio); }},
    {"--random-prefix-len", "N", "tokens that all prompts begin with, besides their own [0]",
     [](ServeOptions& o, const std::string& v) {
       return set_int(v, 0, kMostTokens, &o.load.common_prefix);
     }},
    {"--seed", "N", "of lengths, prompts and arrivals [0]", set_seed},
    {"--prompt-seed", "N", "other prompts of the same lengths: what a prefix cache has not seen",
     set_prompt_seed},
    {"--ignore-eos", nullptr, "answers have exactly the lengths that were asked for",
     [](ServeOptions& o, const std::string&) {
       o.endpoint.ignore_eos = true;
       return absl::OkStatus();
     }},
    {"--temperature", "T", "0 is greedy [0]",
     [](ServeOptions& o, const std::string& v) {
       return set_number(v, 0, 2, &o.endpoint.temperature);
     }},
    {"--extra-body", "JSON", "fields to add to every request", set_extra_body},
    {"--request-rate", "R", "requests a second, or inf: all at once [inf]", set_rate},
    {"--burstiness", "B", "1: Poisson arrivals; below 1 in bursts, above 1 evenly (gamma) [1]",
     [](ServeOptions& o, const std::string& v) {
       return set_number(v, 0.001, 1e6, &o.burstiness);
     }},
    {"--max-concurrency", "N", "requests under way at once, at most [no limit]",
     integer<&ServeOptions::max_concurrency, 1, 4096>},
    {"--num-warmups", "N", "requests sent first, all at once, that are not counted [0]",
     integer<&ServeOptions::num_warmups, 0, 4096>},
    {"--percentile-metrics", "LIST", "which to print in full [ttft,tpot,itl]", set_metrics},
    {"--metric-percentiles", "LIST", "which percentiles of them [99]", set_percents},
    {"--goodput", "NAME:MS...", "count requests that meet all: ttft:500 tpot:30 e2el:5000",
     set_goal, true},
    {"--save-result", nullptr, "write the result as JSON", flag<&ServeOptions::save_result>},
    {"--save-detailed", nullptr, "with the times of every request",
     flag<&ServeOptions::save_detailed>},
    {"--result-dir", "FOLDER", "where to [.]", text<&ServeOptions::result_dir>},
    {"--result-filename", "NAME", "how to call it [quire-bench-DATE.json]",
     text<&ServeOptions::result_filename>},
    {"--label", "NAME", "for the result", text<&ServeOptions::label>},
    {"--metadata", "KEY=VALUE...", "for the result", set_metadata, true},
    {"--print-load", nullptr, "send nothing: print each request as a line of JSON",
     flag<&ServeOptions::print_load>},
};

const Row* find(const std::string& name) {
  for (const Row& row : kRows) {
    if (name == row.name) return &row;
  }
  return nullptr;
}

absl::Status set(const Row& row, ServeOptions& options, const std::string& value) {
  const absl::Status status = row.set(options, value);
  if (status.ok()) return status;
  // Setters begin with the value.
  return absl::InvalidArgumentError(absl::StrCat(
      row.name, status.message().rfind('`', 0) == 0 ? " is " : ": ", status.message()));
}

// What only the options together show.
absl::Status check(const ServeOptions& o) {
  if (o.tokenizer.empty() && o.dataset == Dataset::kText) {
    return absl::InvalidArgumentError("--dataset-name text needs --tokenizer, to cut it by tokens");
  }
  if (o.tokenizer.empty() && o.vocab_size == 0) {
    return absl::InvalidArgumentError(
        "prompts are made of token ids: give --tokenizer MODEL, or --vocab-size N for random ones");
  }
  if (!o.tokenizer.empty() && o.vocab_size > 0) {
    return absl::InvalidArgumentError("--tokenizer has a vocabulary; leave out --vocab-size");
  }
  if (o.tokenizer.empty() && o.endpoint.chat) {
    return absl::InvalidArgumentError("--backend openai-chat sends text: give --tokenizer MODEL");
  }
  if (o.max_concurrency == 0 && o.load.requests > 4096) {
    return absl::InvalidArgumentError(
        "more than 4096 requests need --max-concurrency: each has a connection of its own");
  }
  return absl::OkStatus();
}

// Lengths by name of the dataset; lognormal takes fixed ones only where they were given.
void finish(ServeOptions& o, bool input_given, bool output_given) {
  const bool lognormal = o.dataset == Dataset::kLogNormal;
  o.load.input.fixed = lognormal && !input_given ? 0 : o.input_len;
  o.load.output.fixed = lognormal && !output_given ? 0 : o.output_len;
  o.load.input.range = o.load.output.range = o.range_ratio;
  if (o.dataset_path.empty()) o.dataset_path = kLicences;
  o.endpoint.path = !o.path.empty()   ? o.path
                    : o.endpoint.chat ? "/v1/chat/completions"
                                      : "/v1/completions";
}

}  // namespace

absl::StatusOr<ServeOptions> parse_serve(const std::vector<std::string>& arguments) {
  ServeOptions options;
  options.load.requests = 1000;
  options.load.seed = 0;
  options.endpoint.ignore_eos = false;
  options.request_rate = std::numeric_limits<double>::infinity();
  bool input_given = false, output_given = false;
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    std::vector<std::string> parts = absl::StrSplit(arguments[i], absl::MaxSplits('=', 1));
    if (parts[0] == "--help" || parts[0] == "-h") {
      options.help = true;
      return options;
    }
    const Row* row = find(parts[0]);
    if (row == nullptr) {
      return absl::InvalidArgumentError(
          absl::StrCat("there is no option `", parts[0], "`; --help lists them"));
    }
    std::vector<std::string> values(parts.begin() + 1, parts.end());
    const auto next_is_value = [&] {
      return i + 1 < arguments.size() && arguments[i + 1].rfind("--", 0) != 0;
    };
    if (row->value == nullptr && !values.empty()) {
      return absl::InvalidArgumentError(absl::StrCat(row->name, " takes no value"));
    }
    if (row->value != nullptr && values.empty()) {
      do {
        if (next_is_value()) values.push_back(arguments[++i]);
      } while (row->many && next_is_value());
      if (values.empty()) {
        return absl::InvalidArgumentError(
            absl::StrCat(row->name, " needs a value (", row->value, ")"));
      }
    }
    if (row->value == nullptr) values = {""};
    for (const std::string& value : values) {
      if (absl::Status status = set(*row, options, value); !status.ok()) return status;
    }
    input_given |= parts[0] == "--random-input-len";
    output_given |= parts[0] == "--random-output-len";
  }
  QUIRE_RETURN_IF_ERROR(check(options));
  finish(options, input_given, output_given);
  return options;
}

std::string serve_help() {
  std::string help =
      "usage: quire bench serve [options]\n\n"
      "Sends a load to a server with OpenAI's API and prints throughput and latencies. Names and\n"
      "definitions are those of `vllm bench serve`.\n\n";
  constexpr std::size_t kLeft = 34;
  for (const Row& row : kRows) {
    std::string left = absl::StrCat("  ", row.name, " ", row.value != nullptr ? row.value : "");
    left.resize(std::max(left.size() + 2, kLeft), ' ');
    const std::vector<std::string> lines = absl::StrSplit(row.help, '\n');
    absl::StrAppend(&help, left, absl::StrJoin(lines, "\n" + std::string(kLeft, ' ')), "\n");
  }
  return help;
}

}  // namespace quire::bench

// How far every configuration of the CPU is from the fp32 reference, in one table, with peers:
//   bench_accuracy [--model GGUF] [--data FOLDER] [--windows N] [--only TEXT]
//                  [--kv-cache-dtype A,B,..] [--isa A,B,..] [--peer FILE]..
// A peer's FILE is written by bench/peers/accuracy.py. The bf16 checkpoint is the GGUF's exact
// values rounded once. Progress goes to stderr, the table to stdout.
#include <cstdio>
#include <iostream>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "bench/accuracy/table.h"
#include "bench/command_line.h"
#include "common/status.h"
#include "tests/test_data.h"
#include "tests/worker/hf_checkpoint.h"
#include "tests/worker/tiny_model.h"

namespace quire::bench {
namespace {

using Path = std::filesystem::path;

struct Options {
  Path model = test::demo_model();
  Path data = test::data_root();
  int windows = 40;  // of real text
  int threads = 2;   // for the arithmetic; they change nothing
  std::string only;
  std::vector<std::string> kv_dtypes = {"auto"};
  std::vector<std::string> isas = {"auto"};
  std::vector<std::string> peers;
};

absl::Status set(const std::string& name, const std::string& value, Options& options) {
  bool valid = true;
  if (name == "--model") {
    options.model = value;
  } else if (name == "--data") {
    options.data = value;
  } else if (name == "--windows") {
    valid = absl::SimpleAtoi(value, &options.windows) && options.windows >= 0;
  } else if (name == "--threads") {
    valid = absl::SimpleAtoi(value, &options.threads) && options.threads > 0;
  } else if (name == "--only") {
    options.only = value;
  } else if (name == "--kv-cache-dtype") {
    options.kv_dtypes = absl::StrSplit(value, ',');
  } else if (name == "--isa") {
    options.isas = absl::StrSplit(value, ',');
  } else if (name == "--peer") {
    options.peers.push_back(value);
  } else {
    return unknown_option(name);
  }
  return valid ? absl::OkStatus() : bad_value(name, value);
}

absl::StatusOr<Options> parse(int argc, char** argv) {
  Options options;
  QUIRE_RETURN_IF_ERROR(for_each_option(
      argc, argv,
      [&options](const auto& name, const auto& value) { return set(name, value, options); }));
  return options;
}

std::vector<Configuration> configurations(const Options& options, const Path& bf16) {
  std::vector<Configuration> all;
  for (const std::string& isa : options.isas) {
    const std::string suffix = isa == "auto" ? "" : absl::StrCat(", ", isa);
    const Path& gguf = options.model;
    const int threads = options.threads;
    all.push_back({absl::StrCat("Q4_1, float32", suffix), gguf, "float32", "auto", isa, threads});
    for (const std::string& kv : options.kv_dtypes) {
      const std::string tail = absl::StrCat(", KV ", kv, suffix);
      all.push_back({absl::StrCat("Q4_1, q8 activations", tail), gguf, "auto", kv, isa, threads});
      all.push_back({absl::StrCat("bf16 checkpoint", tail), bf16, "auto", kv, isa, threads});
    }
  }
  return all;
}

absl::Status run(const Options& options) {
  QUIRE_ASSIGN_OR_RETURN(const Reference reference,
                         read_reference(options.data / "reference/smollm2",
                                        static_cast<std::size_t>(options.windows)));
  const test::ScratchFolder scratch;
  QUIRE_RETURN_IF_ERROR(test::write_bf16_hf(options.model, scratch / "bf16"));
  std::vector<Scores> all;
  for (const std::string& file : options.peers) {
    QUIRE_ASSIGN_OR_RETURN(Scores scores, read_scores(file, reference));
    all.push_back(std::move(scores));
  }
  BestRows exact;
  for (const Configuration& with : configurations(options, scratch / "bf16")) {
    // The first one is what KL20 is taken against.
    const bool wanted = absl::StrContains(with.name, options.only);
    if (!wanted && !exact.empty()) continue;
    std::fprintf(stderr, "%s ..\n", with.name.c_str());
    absl::StatusOr<Scores> scores = score(with, reference, exact);
    if (!scores.ok()) {
      std::fprintf(stderr, "  not measured: %s\n", std::string(scores.status().message()).c_str());
      continue;
    }
    if (exact.empty()) exact = std::move(scores->best);
    scores->best.clear();
    if (wanted) all.push_back(*std::move(scores));
  }
  std::cout << make_table(reference, all);
  return absl::OkStatus();
}

}  // namespace
}  // namespace quire::bench

int main(int argc, char** argv) {
  using namespace quire::bench;
  const auto options = parse(argc, argv);
  return exit_code(options.ok() ? run(*options) : options.status());
}

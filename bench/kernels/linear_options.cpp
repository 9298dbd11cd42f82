#include "bench/kernels/linear_options.h"

#include <thread>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/status.h"
#include "kernels/cpu/isa.h"

namespace quire::bench {
namespace {

bool parse_formats(const std::string& names, std::vector<Format>& formats) {
  formats.clear();
  for (const absl::string_view name : absl::StrSplit(names, ',')) {
    const std::size_t before = formats.size();
    for (const Format format :
         {Format::kF32, Format::kF16, Format::kBf16, Format::kQ8_0, Format::kQ4_0, Format::kQ4_1}) {
      if (name == traits(format).name) formats.push_back(format);
    }
    if (formats.size() == before) return false;
  }
  return true;
}

bool parse_tokens(const std::string& numbers, std::vector<int>& tokens) {
  tokens.clear();
  for (const absl::string_view number : absl::StrSplit(numbers, ',')) {
    tokens.emplace_back();
    if (!absl::SimpleAtoi(number, &tokens.back()) || tokens.back() < 1) return false;
  }
  return true;
}

bool parse_flag(const std::string& name, const std::string& value, const OwnFlag& own,
                LinearOptions& options, std::string& isa) {
  if (name == "--threads") return absl::SimpleAtoi(value, &options.threads) && options.threads > 0;
  if (name == "--samples") return absl::SimpleAtoi(value, &options.samples) && options.samples > 0;
  if (name == "--tokens") return parse_tokens(value, options.tokens);
  if (name == "--formats") return parse_formats(value, options.formats);
  if (name == "--cpu-time") return options.cpu_time = value.empty();
  if (name == "--shapes") {
    options.shapes = value;
  } else if (name == "--isa") {
    isa = value;
  } else {
    return own(name, value);
  }
  return true;
}

}  // namespace

absl::StatusOr<LinearOptions> parse_linear_options(int argc, char** argv, LinearOptions defaults,
                                                   const OwnFlag& own) {
  LinearOptions options = std::move(defaults);
  options.threads = static_cast<int>(std::thread::hardware_concurrency());
  std::string isa = "auto";
  for (int i = 1; i < argc; ++i) {
    const std::pair<std::string, std::string> flag =
        absl::StrSplit(argv[i], absl::MaxSplits('=', 1));
    if (parse_flag(flag.first, flag.second, own, options, isa)) continue;
    return absl::InvalidArgumentError(absl::StrCat(
        argv[i],
        " is not understood; --threads, --samples and --tokens take numbers, --formats "
        "f32, f16, bf16, q8_0, q4_0 and q4_1, and the rest is at the head of the source."));
  }
  if (options.cpu_time && options.threads > 1) {
    return absl::InvalidArgumentError("--cpu-time is one thread's: it needs --threads=1.");
  }
  QUIRE_ASSIGN_OR_RETURN(options.isa, cpu::choose_isa(isa));
  return options;
}

}  // namespace quire::bench

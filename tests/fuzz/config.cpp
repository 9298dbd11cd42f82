// A --config file and, behind a NUL, words of a command line. What is accepted can be handed to
// another program and means the same there.
#include "common/config.h"

#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_split.h"
#include "tests/fuzz/fuzz.h"

namespace quire::fuzz {
namespace {

absl::StatusOr<ParsedConfig> parse(const std::vector<std::string>& words) {
  std::vector<const char*> argv = {"quire-coordinator"};
  for (const std::string& word : words) argv.push_back(word.c_str());
  return parse_config(kCoordinator, argv);
}

}  // namespace
}  // namespace quire::fuzz

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace quire;
  static fuzz::MemoryFile file;
  const auto [yaml, line] = fuzz::halves(fuzz::view(data, size));
  file.assign(yaml);
  std::vector<std::string> words = {"--config=" + file.path()};
  for (const absl::string_view word : absl::StrSplit(line, '\n', absl::SkipEmpty())) {
    words.push_back(std::string(word));
  }
  const auto parsed = fuzz::parse(words);
  // A file with a secret may be named, but its content is not for a command line.
  if (!parsed.ok() || parsed->help || !parsed->config.api_key_file.empty()) return 0;
  const auto again = fuzz::parse(to_arguments(parsed->config, kCoordinator));
  QUIRE_CHECK(again.ok());
  for (const Option& option : options()) {
    if ((option.programs & kCoordinator) == 0) continue;
    QUIRE_CHECK_EQ(option.get(again->config), option.get(parsed->config));
  }
  return 0;
}

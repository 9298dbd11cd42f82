#include "common/config_file.h"

#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <numeric>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/strip.h"
#include "common/mapped_file.h"
#include "common/status.h"

namespace quire {
namespace {

constexpr std::size_t kMaxConfigBytes = 1 << 20;
constexpr std::size_t kMaxSecretBytes = 4096;

// Levenshtein distance.
std::size_t distance(const std::string& a, const std::string& b) {
  std::vector<std::size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), std::size_t{0});
  for (std::size_t i = 1; i <= a.size(); ++i) {
    std::size_t diagonal = row[0];
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t replaced = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, replaced});
    }
  }
  return row[b.size()];
}

std::string canonical(absl::string_view name) {
  while (absl::ConsumePrefix(&name, "-")) {
  }
  return absl::StrReplaceAll(name, {{"_", "-"}});
}

}  // namespace

absl::StatusOr<std::vector<std::pair<std::string, std::string>>> read_yaml(
    const std::string& file) {
  QUIRE_ASSIGN_OR_RETURN(const MappedFile mapped, MappedFile::open(file));
  const auto refuse = [&file](auto... reason) {
    return absl::InvalidArgumentError(absl::StrCat(file, ": ", reason...));
  };
  if (mapped.bytes().size() > kMaxConfigBytes) return refuse("it is longer than 1 MiB.");
  std::vector<std::pair<std::string, std::string>> pairs;
  try {
    const YAML::Node root = YAML::Load(std::string(mapped.bytes()));
    if (root.IsNull()) return pairs;
    if (!root.IsMap()) return refuse("it is not a map of options (lines of `name: value`).");
    for (const auto& entry : root) {
      const std::string key = canonical(entry.first.Scalar());
      if (!entry.second.IsScalar()) return refuse("'", key, "' has no single value.");
      const auto same = [&key](const auto& pair) { return pair.first == key; };
      if (std::any_of(pairs.begin(), pairs.end(), same)) return refuse("'", key, "' is set twice.");
      pairs.emplace_back(key, entry.second.Scalar());
    }
  } catch (const YAML::Exception& error) {
    return refuse("it is not valid YAML: ", error.what());
  }
  return pairs;
}

absl::StatusOr<std::string> read_secret(const std::string& file) {
  QUIRE_ASSIGN_OR_RETURN(const MappedFile mapped, MappedFile::open(file));
  if (mapped.bytes().size() > kMaxSecretBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat(file, ": a secret of at most ", kMaxSecretBytes, " bytes is expected."));
  }
  const absl::string_view first = mapped.bytes().substr(0, mapped.bytes().find('\n'));
  const absl::string_view secret = absl::StripAsciiWhitespace(first);
  if (secret.empty()) {
    return absl::InvalidArgumentError(absl::StrCat(file, ": its first line holds no secret."));
  }
  return std::string(secret);
}

const Option* find_option(const std::string& name) {
  const std::string wanted = absl::StrCat("--", canonical(name));
  for (const Option& option : options()) {
    if (wanted == option.name) return &option;
  }
  return nullptr;
}

std::string suggestion(const std::string& name, unsigned programs) {
  const std::string wanted = absl::StrCat("--", canonical(name));
  const Option* nearest = nullptr;
  std::size_t best = std::max<std::size_t>(2, canonical(name).size() / 3) + 1;
  for (const Option& option : options()) {
    if ((option.programs & programs) == 0) continue;
    std::size_t far = distance(wanted, option.name);
    if (wanted.size() > 4 && absl::StartsWith(option.name, wanted)) far = 1;
    if (far < best) {
      best = far;
      nearest = &option;
    }
  }
  return nearest == nullptr ? "" : absl::StrCat(" Did you mean ", nearest->name, "?");
}

}  // namespace quire

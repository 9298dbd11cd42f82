#include "common/model_file/json_file.h"

#include <limits>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "common/mapped_file.h"
#include "common/model_file/file_error.h"
#include "common/status.h"

namespace quire {
namespace {

using Json = nlohmann::json;

constexpr int kMaxDepth = 64;
constexpr std::size_t kMaxFileBytes = 16 << 20;

// Watches the parse: remembers the keys of every open object, and the first thing that is wrong.
class StrictParse {
 public:
  bool operator()(int depth, Json::parse_event_t event, Json& value) {
    if (depth >= kMaxDepth) {
      note(absl::StrCat("it is nested more than ", kMaxDepth, " deep."));
      return false;  // not kept, so that nothing grows
    }
    const auto level = static_cast<std::size_t>(depth);
    if (keys_.size() < level + 2) keys_.resize(level + 2);
    if (event == Json::parse_event_t::object_start) keys_[level + 1].clear();
    if (event == Json::parse_event_t::key) {
      const std::string& key = value.get_ref<const std::string&>();
      if (!keys_[level].insert(key).second) note(absl::StrCat("key '", key, "' appears twice."));
    }
    return true;
  }
  const std::string& problem() const { return problem_; }

 private:
  void note(std::string problem) {
    if (problem_.empty()) problem_ = std::move(problem);
  }
  std::vector<absl::flat_hash_set<std::string>> keys_;  // by depth
  std::string problem_;
};

}  // namespace

absl::StatusOr<Json> parse_json_object(const std::string& file, absl::string_view text) {
  StrictParse watch;
  Json parsed;
  try {
    parsed = Json::parse(text.begin(), text.end(), std::ref(watch));
  } catch (const Json::exception& error) {
    return corrupt(file, "it is not valid JSON: ", error.what());
  }
  if (!watch.problem().empty()) return corrupt(file, watch.problem());
  if (!parsed.is_object()) return corrupt(file, "it is JSON, but not an object.");
  return parsed;
}

absl::StatusOr<Json> read_json_object(const std::string& file) {
  QUIRE_ASSIGN_OR_RETURN(const MappedFile mapped, MappedFile::open(file));
  if (mapped.bytes().size() > kMaxFileBytes) {
    return unsupported(file, "it has ", mapped.bytes().size(), " bytes; at most ", kMaxFileBytes,
                       " are read.");
  }
  return parse_json_object(file, mapped.bytes());
}

const Json* JsonFields::find(const char* key) const {
  const auto found = object_.find(key);
  return found == object_.end() || found->is_null() ? nullptr : &*found;
}

std::string JsonFields::name(const char* key) const {
  return absl::StrCat("field '", prefix_, key, "'");
}

bool JsonFields::has(const char* key) const {
  return find(key) != nullptr;
}

int JsonFields::integer(const char* key, std::optional<int> otherwise) {
  const Json* value = find(key);
  if (value == nullptr) {
    if (!otherwise) fail(unsupported(file_, name(key), " is missing."));
    return otherwise.value_or(0);
  }
  constexpr std::int64_t kMax = std::numeric_limits<int>::max();
  const bool fits = value->is_number_integer() && value->dump().size() < 18 &&
                    value->get<std::int64_t>() >= -kMax && value->get<std::int64_t>() <= kMax;
  if (!fits) {
    fail(unsupported(file_, name(key), " is ", value->dump().substr(0, 40),
                     ", but must be an integer of at most ", kMax, "."));
    return 0;
  }
  return value->get<int>();
}

double JsonFields::real(const char* key, std::optional<double> otherwise) {
  const Json* value = find(key);
  if (value == nullptr) {
    if (!otherwise) fail(unsupported(file_, name(key), " is missing."));
    return otherwise.value_or(0.0);
  }
  if (!value->is_number()) {
    fail(unsupported(file_, name(key), " is not a number."));
    return 0.0;
  }
  return value->get<double>();
}

bool JsonFields::boolean(const char* key, bool otherwise) {
  const Json* value = find(key);
  if (value == nullptr) return otherwise;
  if (!value->is_boolean()) {
    fail(unsupported(file_, name(key), " is not true or false."));
    return otherwise;
  }
  return value->get<bool>();
}

std::string JsonFields::text(const char* key, const std::string& otherwise) {
  const Json* value = find(key);
  if (value == nullptr) return otherwise;
  if (!value->is_string()) {
    fail(unsupported(file_, name(key), " is not a string."));
    return otherwise;
  }
  return value->get<std::string>();
}

Json JsonFields::object(const char* key) {
  const Json* value = find(key);
  if (value == nullptr) return Json::object();
  if (!value->is_object()) {
    fail(unsupported(file_, name(key), " is not an object."));
    return Json::object();
  }
  return *value;
}

}  // namespace quire

#include "common/model_file/gguf_keys.h"

#include "common/model_file/file_error.h"

namespace quire {

template <typename T>
const T* GgufKeys::get(const std::string& key, const char* type) {
  const auto found = file_.metadata.find(key);
  if (found == file_.metadata.end()) return nullptr;
  const T* value = std::get_if<T>(&found->second);
  if (value == nullptr) fail(corrupt(file_.path, "metadata key '", key, "' is not ", type, "."));
  return value;
}

int GgufKeys::integer(const std::string& key, std::optional<int> otherwise) {
  const auto found = file_.metadata.find(key);
  if (found == file_.metadata.end()) {
    if (!otherwise) fail(corrupt(file_.path, "metadata key '", key, "' is missing."));
    return otherwise.value_or(0);
  }
  constexpr int kMax = std::numeric_limits<int>::max();
  if (const auto* value = std::get_if<std::uint64_t>(&found->second)) {
    if (*value <= static_cast<std::uint64_t>(kMax)) return static_cast<int>(*value);
    fail(corrupt(file_.path, "metadata key '", key, "' is ", *value, ", which is too large."));
  } else if (const auto* with_sign = std::get_if<std::int64_t>(&found->second)) {
    if (*with_sign >= 0 && *with_sign <= kMax) return static_cast<int>(*with_sign);
    fail(corrupt(file_.path, "metadata key '", key, "' is ", *with_sign, ", but must be in [0, ",
                 kMax, "]."));
  } else {
    fail(corrupt(file_.path, "metadata key '", key, "' is not a single integer."));
  }
  return 0;
}

double GgufKeys::real(const std::string& key, std::optional<double> otherwise) {
  const double* value = get<double>(key, "a floating point number");
  if (value != nullptr) return *value;
  if (!otherwise) fail(corrupt(file_.path, "metadata key '", key, "' is missing."));
  return otherwise.value_or(0.0);
}

bool GgufKeys::boolean(const std::string& key, bool otherwise) {
  const bool* value = get<bool>(key, "a boolean");
  return value != nullptr ? *value : otherwise;
}

std::string GgufKeys::text(const std::string& key, const std::string& otherwise) {
  const std::string* value = get<std::string>(key, "a string");
  return value != nullptr ? *value : otherwise;
}

const std::vector<std::string>& GgufKeys::texts(const std::string& key) {
  static const std::vector<std::string> kNone;
  const auto* value = get<std::vector<std::string>>(key, "an array of strings");
  return value != nullptr ? *value : kNone;
}

const std::vector<std::int64_t>& GgufKeys::integers(const std::string& key) {
  static const std::vector<std::int64_t> kNone;
  const auto* value = get<std::vector<std::int64_t>>(key, "an array of integers");
  return value != nullptr ? *value : kNone;
}

const std::vector<double>& GgufKeys::reals(const std::string& key) {
  static const std::vector<double> kNone;
  const auto* value = get<std::vector<double>>(key, "an array of floating point numbers");
  return value != nullptr ? *value : kNone;
}

}  // namespace quire

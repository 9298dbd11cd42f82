// Conversions without bending; see fields.h.
#include "coordinator/api/fields.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"

namespace quire {

using nlohmann::json;

namespace {

constexpr std::size_t kShownBytes = 40;  // of a value, in a message

const char* type_of(const json& value) {
  if (value.is_boolean()) return "a boolean";
  if (value.is_string()) return "a text";
  if (value.is_array()) return "a list";
  if (value.is_object()) return "an object";
  if (value.is_null()) return "null";
  return "a number";
}

}  // namespace

std::string describe(const json& value) {
  if (value.is_structured()) return type_of(value);
  const std::string shown = value.dump(-1, ' ', true, json::error_handler_t::replace);
  if (shown.size() > kShownBytes) return type_of(value);
  return shown;
}

std::optional<std::int64_t> as_integer(const json& value) {
  constexpr std::int64_t kMax = std::numeric_limits<std::int64_t>::max();
  constexpr std::int64_t kMin = std::numeric_limits<std::int64_t>::min();
  if (value.is_number_unsigned()) {
    return static_cast<std::int64_t>(
        std::min<std::uint64_t>(value.get<std::uint64_t>(), static_cast<std::uint64_t>(kMax)));
  }
  if (value.is_number_integer()) return value.get<std::int64_t>();
  if (!value.is_number_float()) return std::nullopt;
  const double number = value.get<double>();
  if (number != std::floor(number)) return std::nullopt;
  if (number >= 9223372036854775808.0) return kMax;
  if (number <= -9223372036854775808.0) return kMin;
  return static_cast<std::int64_t>(number);
}

std::optional<std::vector<std::int64_t>> as_integers(const json& value) {
  if (!value.is_array()) return std::nullopt;
  std::vector<std::int64_t> out;
  out.reserve(value.size());
  for (const json& element : value) {
    const auto integer = as_integer(element);
    if (!integer) return std::nullopt;
    out.push_back(*integer);
  }
  return out;
}

const json* Fields::find(const char* name) const {
  const auto found = object_.find(name);
  return found == object_.end() || found->is_null() ? nullptr : &*found;
}

void Fields::fail(absl::Status status) {
  status_.Update(std::move(status));
}

void Fields::wrong_type(const char* name, const json& value, const char* wanted) {
  fail(absl::InvalidArgumentError(
      absl::StrCat("`", name, "` is ", describe(value), "; it must be ", wanted, ".")));
}

void Fields::read(const char* name, bool& out) {
  const json* value = find(name);
  if (value == nullptr) return;
  if (!value->is_boolean()) return wrong_type(name, *value, "true or false");
  out = value->get<bool>();
}

void Fields::read(const char* name, std::string& out) {
  const json* value = find(name);
  if (value == nullptr) return;
  if (!value->is_string()) return wrong_type(name, *value, "a text");
  out = value->get_ref<const std::string&>();
}

void Fields::read(const char* name, std::optional<double>& out) {
  const json* value = find(name);
  if (value == nullptr) return;
  if (!value->is_number()) return wrong_type(name, *value, "a number");
  out = value->get<double>();
}

void Fields::read(const char* name, std::optional<std::int64_t>& out) {
  const json* value = find(name);
  if (value == nullptr) return;
  const auto integer = as_integer(*value);
  if (!integer) return wrong_type(name, *value, "an integer");
  out = *integer;
}

void Fields::read(const char* name, std::int64_t& out) {
  std::optional<std::int64_t> value;
  read(name, value);
  out = value.value_or(out);
}

void Fields::read_seed(const char* name, std::optional<std::uint64_t>& out) {
  const json* value = find(name);
  if (value == nullptr) return;
  if (value->is_number_unsigned()) {
    out = value->get<std::uint64_t>();
  } else if (value->is_number_integer()) {  // negative: its bits
    out = static_cast<std::uint64_t>(value->get<std::int64_t>());
  } else {
    wrong_type(name, *value, "an integer in [-9223372036854775808, 18446744073709551615]");
  }
}

void Fields::read(const char* name, std::vector<std::int64_t>& out) {
  const json* value = find(name);
  if (value == nullptr) return;
  auto integers = as_integers(*value);
  if (!integers) return wrong_type(name, *value, "a list of integers");
  out = *std::move(integers);
}

void Fields::read_string_or_list(const char* name, std::vector<std::string>& out) {
  const json* value = find(name);
  if (value == nullptr) return;
  if (value->is_string()) {
    out.push_back(value->get<std::string>());
    return;
  }
  const bool texts = value->is_array() && std::all_of(value->begin(), value->end(),
                                                      [](auto& e) { return e.is_string(); });
  if (!texts) return wrong_type(name, *value, "a text or a list of texts");
  for (const json& element : *value) out.push_back(element.get<std::string>());
}

}  // namespace quire

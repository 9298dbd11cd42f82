// Typed access to the fields of a tokenizer.json, with errors that name the field.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"

namespace quire::hf {

using Json = nlohmann::json;

// The value, or null where it is absent.
inline const Json& field(const Json& object, const char* name) {
  static const Json null;
  if (!object.is_object()) return null;
  const auto it = object.find(name);
  return it == object.end() ? null : *it;
}

inline absl::Status wrong_type(const char* name, const char* wanted) {
  return absl::InvalidArgumentError(absl::StrCat("\"", name, "\" should be ", wanted));
}

inline absl::StatusOr<bool> bool_field(const Json& object, const char* name, bool missing) {
  const Json& value = field(object, name);
  if (value.is_null()) return missing;
  if (!value.is_boolean()) return wrong_type(name, "true or false");
  return value.get<bool>();
}

inline absl::StatusOr<std::string> text_field(const Json& object, const char* name) {
  const Json& value = field(object, name);
  if (!value.is_string()) return wrong_type(name, "a text");
  return value.get<std::string>();
}

inline absl::StatusOr<std::string> text_field(const Json& object, const char* name,
                                              std::string missing) {
  if (field(object, name).is_null()) return missing;
  return text_field(object, name);
}

}  // namespace quire::hf

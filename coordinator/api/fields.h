// Strict reading of a JSON object's fields. No value is bent: a boolean is not a number, "3" is not
// 3, 1.5 is not an integer. null counts as absent. The first error is kept, and names the field.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "nlohmann/json.hpp"

namespace quire {

class Fields {
 public:
  explicit Fields(const nlohmann::json& object) : object_(object) {}

  // The value of `name`, or nullptr when it is absent or null.
  const nlohmann::json* find(const char* name) const;

  void read(const char* name, bool& out);
  void read(const char* name, std::string& out);
  void read(const char* name, std::optional<double>& out);
  // Integers beyond 64 bits become the largest (smallest), so that the range check that follows
  // refuses them by name; 3.0 is an integer.
  void read(const char* name, std::optional<std::int64_t>& out);
  void read(const char* name, std::int64_t& out);  // absent: unchanged
  void read_seed(const char* name, std::optional<std::uint64_t>& out);
  void read(const char* name, std::vector<std::int64_t>& out);
  void read_string_or_list(const char* name, std::vector<std::string>& out);

  void fail(absl::Status status);
  const absl::Status& status() const { return status_; }

 private:
  void wrong_type(const char* name, const nlohmann::json& value, const char* wanted);

  const nlohmann::json& object_;
  absl::Status status_;
};

// "a text", "a number", ... and, for short values, the value itself.
std::string describe(const nlohmann::json& value);
// Nothing, unless `value` is an integer (see above).
std::optional<std::int64_t> as_integer(const nlohmann::json& value);
// All of an array as integers, or nothing.
std::optional<std::vector<std::int64_t>> as_integers(const nlohmann::json& value);

}  // namespace quire

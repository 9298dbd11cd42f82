// JSON from files we did not write: parsed strictly (no duplicate keys, bounded depth, valid UTF-8)
// and read by typed look-ups that keep the first error, as GgufKeys does.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace quire {

// DataLoss naming the file, and the byte where it stops being JSON. The top level is an object.
absl::StatusOr<nlohmann::json> parse_json_object(const std::string& file, absl::string_view text);

// Reads and parses a whole file, of at most 16 MiB.
absl::StatusOr<nlohmann::json> read_json_object(const std::string& file);

// The fields of one object. null counts as absent. Without a default a field is required.
class JsonFields {
 public:
  JsonFields(const std::string& file, const nlohmann::json& object, std::string prefix = "")
      : file_(file), object_(object), prefix_(std::move(prefix)) {}

  bool has(const char* key) const;
  int integer(const char* key, std::optional<int> otherwise = std::nullopt);
  double real(const char* key, std::optional<double> otherwise = std::nullopt);
  bool boolean(const char* key, bool otherwise);
  std::string text(const char* key, const std::string& otherwise);
  // A field that is an object; an empty object if absent.
  nlohmann::json object(const char* key);

  const absl::Status& status() const { return status_; }

 private:
  const nlohmann::json* find(const char* key) const;
  std::string name(const char* key) const;
  void fail(absl::Status status) { status_.Update(std::move(status)); }

  const std::string& file_;
  const nlohmann::json& object_;
  std::string prefix_;  // "rope_scaling."
  absl::Status status_;
};

}  // namespace quire

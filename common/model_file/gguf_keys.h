// Typed look-up of GGUF metadata. An absent key gives the default; a key of another type or out of
// range is an error that names it, kept until status() is asked: a reader of many keys stays flat.
#pragma once

#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "common/model_file/gguf_file.h"

namespace quire {

class GgufKeys {
 public:
  explicit GgufKeys(const GgufFile& file) : file_(file) {}

  bool has(const std::string& key) const { return file_.metadata.contains(key); }
  // Integers must fit an int. Without a default the key is required.
  int integer(const std::string& key, std::optional<int> otherwise = std::nullopt);
  double real(const std::string& key, std::optional<double> otherwise = std::nullopt);
  bool boolean(const std::string& key, bool otherwise);
  std::string text(const std::string& key, const std::string& otherwise = "");
  const std::vector<std::string>& texts(const std::string& key);
  const std::vector<std::int64_t>& integers(const std::string& key);
  const std::vector<double>& reals(const std::string& key);

  const absl::Status& status() const { return status_; }

 private:
  template <typename T>
  const T* get(const std::string& key, const char* type);
  void fail(absl::Status status) { status_.Update(std::move(status)); }

  const GgufFile& file_;
  absl::Status status_;
};

}  // namespace quire

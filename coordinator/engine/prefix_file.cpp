// The file: id, then the index, which carries its own checksum.
#include "coordinator/engine/prefix_file.h"

#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace quire {
namespace {

std::string path_of(const std::string& folder, std::uint64_t model_hash) {
  return absl::StrFormat("%s/prefixes-%016x.index", folder, model_hash);
}

absl::Status cannot(const char* what, const std::string& path) {
  return absl::UnavailableError(absl::StrCat("Cannot ", what, " ", path,
                                             ", the index of the saved KV blocks (",
                                             std::strerror(errno), "); check --kv-offload-path."));
}

}  // namespace

absl::StatusOr<SavedPrefixes> read_prefix_file(const std::string& folder,
                                               std::uint64_t model_hash) {
  const std::string path = path_of(folder, model_hash);
  SavedPrefixes saved;
  if (!std::filesystem::exists(path)) return saved;
  std::ifstream in(path, std::ios::binary);
  const std::string bytes{std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
  if (!in) return cannot("read", path);
  if (bytes.size() < sizeof(saved.id)) return saved;
  std::memcpy(&saved.id, bytes.data(), sizeof(saved.id));
  saved.index = bytes.substr(sizeof(saved.id));
  return saved;
}

absl::Status write_prefix_file(const std::string& folder, std::uint64_t model_hash,
                               const SavedPrefixes& saved) {
  const std::string path = path_of(folder, model_hash);
  const std::string fresh = path + ".new";
  std::ofstream out(fresh, std::ios::binary | std::ios::trunc);
  out.write(reinterpret_cast<const char*>(&saved.id), sizeof(saved.id));
  out.write(saved.index.data(), static_cast<std::streamsize>(saved.index.size()));
  out.close();
  if (!out) return cannot("write", fresh);
  std::error_code error;
  std::filesystem::rename(fresh, path, error);
  if (error) return cannot("replace", path);
  return absl::OkStatus();
}

}  // namespace quire

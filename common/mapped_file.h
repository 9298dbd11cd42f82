// A file mapped read-only for as long as the object lives. Only regular files are opened (a symlink
// to one is fine): a FIFO or a device would block or never end.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace quire {

class MappedFile {
 public:
  // NotFound / PermissionDenied / InvalidArgument, naming the file.
  static absl::StatusOr<MappedFile> open(const std::string& path);

  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  ~MappedFile();

  const std::string& path() const { return path_; }
  absl::string_view bytes() const { return {static_cast<const char*>(data_), size_}; }

 private:
  MappedFile(std::string path, void* data, std::size_t size)
      : path_(std::move(path)), data_(data), size_(size) {}

  std::string path_;
  void* data_ = nullptr;  // nullptr for an empty file
  std::size_t size_ = 0;
};

}  // namespace quire

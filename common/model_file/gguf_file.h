// The GGUF container, versions 2 and 3 (ggml docs/gguf.md): typed metadata and tensor descriptions,
// every size checked against the file before it is used. What the keys mean is gguf.cpp's.
#pragma once

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "common/model_file/model_file.h"

namespace quire {

// Integers and booleans in arrays widen to 64 bits.
using GgufValue =
    std::variant<std::int64_t, std::uint64_t, double, bool, std::string, std::vector<std::int64_t>,
                 std::vector<double>, std::vector<std::string>>;

struct GgufFile {
  std::string path;
  absl::flat_hash_map<std::string, GgufValue> metadata;
  std::vector<TensorInfo> tensors;  // inside the file, without overlap, names unique
  std::uint64_t headers_end = 0;    // first byte that describes nothing
  std::uint64_t data_offset = 0;    // the next aligned one: where the first tensor may begin
};

// `bytes` is the whole file; with `headers_only` it may end before its tensors do. DataLoss or
// InvalidArgument naming the file, the key or tensor, and the reason.
absl::StatusOr<GgufFile> read_gguf(const std::string& path, absl::string_view bytes,
                                   bool headers_only = false);

}  // namespace quire

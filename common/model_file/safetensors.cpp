#include "common/model_file/safetensors.h"

#include <bit>
#include <cstring>
#include <limits>
#include <optional>

#include "common/hash.h"
#include "common/model_file/file_error.h"
#include "common/model_file/json_file.h"
#include "common/model_file/tensor_check.h"
#include "common/status.h"

namespace quire {
namespace {

using Json = nlohmann::json;

static_assert(std::endian::native == std::endian::little, "the header length is read in place");

constexpr std::uint64_t kLengthBytes = 8;
constexpr std::uint64_t kMaxHeaderBytes = 32 << 20;
constexpr std::size_t kMaxDims = 8;

// Known by name only.
constexpr const char* kForeignDtypes[] = {"F64", "BOOL", "U8",      "U16",     "I16",
                                          "U32", "U64",  "F8_E5M2", "F8_E8M0", "F4"};

absl::Status read_dtype(const std::string& path, const Json& entry, StoredTensor* out) {
  const auto dtype = entry.find("dtype");
  if (dtype == entry.end() || !dtype->is_string()) {
    return corrupt(path, "tensor '", out->name, "' has no dtype.");
  }
  const std::string& name = dtype->get_ref<const std::string&>();
  for (int i = 0; i <= static_cast<int>(Dtype::kI64); ++i) {
    if (name != name_of(static_cast<Dtype>(i))) continue;
    out->dtype = static_cast<Dtype>(i);
    return absl::OkStatus();
  }
  for (const char* known : kForeignDtypes) {
    if (name != known) continue;
    return unsupported(path, "tensor '", out->name, "' is stored as ", name,
                       "; the formats that run are F32, F16 and BF16, and those of the ",
                       "quantization methods that the README lists.");
  }
  return corrupt(path, "tensor '", out->name, "' has the unknown dtype '", name.substr(0, 40),
                 "'.");
}

// A JSON value that is an integer in [0, 2^63).
std::optional<std::int64_t> natural(const Json& value) {
  if (!value.is_number_unsigned()) return std::nullopt;
  const auto number = value.get<std::uint64_t>();
  if (number > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max())) {
    return std::nullopt;
  }
  return static_cast<std::int64_t>(number);
}

absl::Status read_shape(const std::string& path, const Json& entry, StoredTensor* out) {
  const auto shape = entry.find("shape");
  if (shape == entry.end() || !shape->is_array() || shape->size() > kMaxDims) {
    return corrupt(path, "tensor '", out->name, "' has no shape of at most ", kMaxDims,
                   " dimensions.");
  }
  for (const Json& value : *shape) {
    const std::optional<std::int64_t> dim = natural(value);
    if (!dim) {
      return corrupt(path, "tensor '", out->name,
                     "' has a dimension that is not a natural number.");
    }
    out->shape.push_back(*dim);
  }
  return absl::OkStatus();
}

// Offsets count from the first byte after the header; `space` bytes are there.
absl::Status read_place(const std::string& path, const Json& entry, std::uint64_t data_offset,
                        std::uint64_t space, StoredTensor* out) {
  const auto place = entry.find("data_offsets");
  std::optional<std::int64_t> begin, end;
  if (place != entry.end() && place->is_array() && place->size() == 2) {
    begin = natural((*place)[0]);
    end = natural((*place)[1]);
  }
  if (!begin || !end || *end < *begin) {
    return corrupt(path, "tensor '", out->name,
                   "' has no data_offsets [begin, end] with 0 <= begin <= end.");
  }
  if (static_cast<std::uint64_t>(*end) > space) {
    return corrupt(path, "tensor '", out->name, "' ends at byte ", *end, " of the data, but there ",
                   "are only ", space, ". The file is truncated or damaged: fetch it again.");
  }
  QUIRE_ASSIGN_OR_RETURN(out->bytes, tensor_bytes(path, *out));
  if (out->bytes != static_cast<std::uint64_t>(*end - *begin)) {
    return corrupt(path, "tensor '", out->name, "' should have ", out->bytes,
                   " bytes by its shape and dtype, but its data_offsets give ", *end - *begin, ".");
  }
  out->offset = data_offset + static_cast<std::uint64_t>(*begin);
  return absl::OkStatus();
}

absl::Status check_no_holes(const std::string& path, std::uint64_t at, std::uint64_t end,
                            const std::vector<StoredTensor>& tensors) {
  for (const StoredTensor& tensor : tensors) {
    if (tensor.offset != at) {
      return corrupt(path, "there is a hole of ", tensor.offset - at, " bytes before tensor '",
                     tensor.name, "'.");
    }
    at += tensor.bytes;
  }
  if (at != end) return corrupt(path, end - at, " bytes at its end belong to no tensor.");
  return absl::OkStatus();
}

absl::StatusOr<absl::string_view> header_text(const std::string& path, absl::string_view bytes) {
  if (bytes.size() < kLengthBytes) {
    return corrupt(path, "it has only ", bytes.size(), " bytes and so no header.");
  }
  std::uint64_t size = 0;
  std::memcpy(&size, bytes.data(), kLengthBytes);
  if (size > bytes.size() - kLengthBytes) {
    return corrupt(path, "its header is said to be ", size, " bytes long, but only ",
                   bytes.size() - kLengthBytes, " follow.");
  }
  if (size > kMaxHeaderBytes) {
    return unsupported(path, "its header is ", size, " bytes long; at most ", kMaxHeaderBytes,
                       " are read.");
  }
  const absl::string_view header = bytes.substr(kLengthBytes, size);
  if (header.empty() || header.front() != '{') return corrupt(path, "its header is not JSON.");
  return header;
}

}  // namespace

absl::StatusOr<SafetensorsFile> read_safetensors(const std::string& path, absl::string_view bytes) {
  QUIRE_ASSIGN_OR_RETURN(const absl::string_view header, header_text(path, bytes));
  QUIRE_ASSIGN_OR_RETURN(const Json json, parse_json_object(path, header));
  const std::uint64_t data_offset = kLengthBytes + header.size();
  SafetensorsFile file;
  file.hash = hash64(bytes.size(), header);
  for (const auto& [name, entry] : json.items()) {
    if (name == "__metadata__") continue;
    StoredTensor info;
    info.name = name;
    if (!entry.is_object()) return corrupt(path, "tensor '", name, "' is not described.");
    QUIRE_RETURN_IF_ERROR(read_dtype(path, entry, &info));
    QUIRE_RETURN_IF_ERROR(read_shape(path, entry, &info));
    QUIRE_RETURN_IF_ERROR(read_place(path, entry, data_offset, bytes.size() - data_offset, &info));
    file.tensors.push_back(std::move(info));
  }
  QUIRE_RETURN_IF_ERROR(check_tensors(path, &file.tensors));
  QUIRE_RETURN_IF_ERROR(check_no_holes(path, data_offset, bytes.size(), file.tensors));
  return file;
}

}  // namespace quire

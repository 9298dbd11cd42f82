// A cursor over the mapped bytes; every read says what it was reading when the file ended. Lengths
// are compared with what is left of the file before anything is allocated.
#include "common/model_file/gguf_file.h"

#include <bit>
#include <cstring>
#include <limits>

#include "common/model_file/file_error.h"
#include "common/model_file/tensor_check.h"
#include "common/status.h"

namespace quire {
namespace {

static_assert(std::endian::native == std::endian::little, "GGUF fields are read in place");

constexpr std::uint64_t kMaxArrayElements = 1 << 24;  // all arrays of a file together
constexpr std::uint64_t kMaxTensors = 1 << 20;
constexpr std::uint64_t kMaxKeys = 1 << 16;
constexpr int kMaxDims = 4;

enum ValueType : std::uint32_t {
  kUint8,
  kInt8,
  kUint16,
  kInt16,
  kUint32,
  kInt32,
  kFloat32,
  kBool,
  kString,
  kArray,
  kUint64,
  kInt64,
  kFloat64
};

struct TensorType {
  std::uint32_t id;
  const char* name;
  int format;  // -1: known by name only
};
constexpr TensorType kTensorTypes[] = {
    {0, "F32", static_cast<int>(Format::kF32)},
    {1, "F16", static_cast<int>(Format::kF16)},
    {2, "Q4_0", static_cast<int>(Format::kQ4_0)},
    {3, "Q4_1", static_cast<int>(Format::kQ4_1)},
    {8, "Q8_0", static_cast<int>(Format::kQ8_0)},
    {12, "Q4_K", static_cast<int>(Format::kQ4_K)},
    {13, "Q5_K", static_cast<int>(Format::kQ5_K)},
    {14, "Q6_K", static_cast<int>(Format::kQ6_K)},
    {30, "BF16", static_cast<int>(Format::kBf16)},
    {6, "Q5_0", -1},
    {7, "Q5_1", -1},
    {9, "Q8_1", -1},
    {10, "Q2_K", -1},
    {11, "Q3_K", -1},
    {15, "Q8_K", -1},
    {16, "IQ2_XXS", -1},
    {17, "IQ2_XS", -1},
    {18, "IQ3_XXS", -1},
    {19, "IQ1_S", -1},
    {20, "IQ4_NL", -1},
    {21, "IQ3_S", -1},
    {22, "IQ2_S", -1},
    {23, "IQ4_XS", -1},
    {24, "I8", -1},
    {25, "I16", -1},
    {26, "I32", -1},
    {27, "I64", -1},
    {28, "F64", -1},
    {29, "IQ1_M", -1},
    {34, "TQ1_0", -1},
    {35, "TQ2_0", -1},
    {39, "MXFP4", -1},
};

class Reader {
 public:
  Reader(const std::string& path, absl::string_view bytes, bool headers_only)
      : path_(path), bytes_(bytes), headers_only_(headers_only) {}

  absl::StatusOr<GgufFile> read();

 private:
  std::uint64_t left() const { return bytes_.size() - at_; }
  absl::Status ended(const std::string& what) const {
    return corrupt(path_, "the file ends at byte ", bytes_.size(), " inside ", what,
                   ". It is truncated or damaged: fetch it again.");
  }

  template <typename T>
  absl::Status number(T* out, const std::string& what) {
    if (left() < sizeof(T)) return ended(what);
    std::memcpy(out, bytes_.data() + at_, sizeof(T));
    at_ += sizeof(T);
    return absl::OkStatus();
  }
  absl::Status text(std::string* out, const std::string& what);

  absl::Status header(std::uint64_t* num_tensors, std::uint64_t* num_keys);
  absl::Status metadata(std::uint64_t num_keys);
  absl::Status value(std::uint32_t type, const std::string& what, GgufValue* out);
  absl::Status array(const std::string& what, GgufValue* out);
  template <typename T, typename As>
  absl::Status scalar(const std::string& what, GgufValue* out);
  template <typename T, typename As>
  absl::Status numbers(std::uint64_t count, const std::string& what, GgufValue* out);
  absl::Status strings(std::uint64_t count, const std::string& what, GgufValue* out);
  absl::Status find_alignment();
  absl::Status tensor(std::uint64_t index);
  absl::Status tensor_format(std::uint32_t type, TensorInfo* out);
  absl::Status place_tensors();

  const std::string& path_;
  absl::string_view bytes_;
  const bool headers_only_;
  std::uint64_t at_ = 0;
  std::uint64_t num_elements_ = 0;  // of arrays so far
  std::uint32_t alignment_ = 32;
  GgufFile file_;
};

absl::Status Reader::text(std::string* out, const std::string& what) {
  std::uint64_t size = 0;
  QUIRE_RETURN_IF_ERROR(number(&size, what));
  if (size > left()) {
    return corrupt(path_, what, " is said to be ", size, " bytes long, but only ", left(),
                   " are left in the file.");
  }
  out->assign(bytes_.data() + at_, size);
  at_ += size;
  return absl::OkStatus();
}

absl::Status Reader::header(std::uint64_t* num_tensors, std::uint64_t* num_keys) {
  if (bytes_.substr(0, 4) != "GGUF") return corrupt(path_, "it does not begin with GGUF.");
  at_ = 4;
  std::uint32_t version = 0;
  QUIRE_RETURN_IF_ERROR(number(&version, "the version"));
  if (version != 2 && version != 3) {
    return unsupported(path_, "GGUF version ", version, " is not known; versions 2 and 3 are",
                       (version & 0xffff) == 0 ? " (this file may be big-endian)." : ".");
  }
  QUIRE_RETURN_IF_ERROR(number(num_tensors, "the number of tensors"));
  QUIRE_RETURN_IF_ERROR(number(num_keys, "the number of metadata keys"));
  if (*num_tensors > kMaxTensors || *num_keys > kMaxKeys) {
    return corrupt(path_, "it claims ", *num_tensors, " tensors and ", *num_keys,
                   " metadata keys; at most ", kMaxTensors, " and ", kMaxKeys, " are believed.");
  }
  return absl::OkStatus();
}

template <typename T, typename As>
absl::Status Reader::scalar(const std::string& what, GgufValue* out) {
  T value{};
  QUIRE_RETURN_IF_ERROR(number(&value, what));
  *out = static_cast<As>(value);
  return absl::OkStatus();
}

template <typename T, typename As>
absl::Status Reader::numbers(std::uint64_t count, const std::string& what, GgufValue* out) {
  if (count > left() / sizeof(T)) return ended(what);
  std::vector<As> values(count);
  for (As& to : values) {
    T value{};
    QUIRE_RETURN_IF_ERROR(number(&value, what));
    to = static_cast<As>(value);
  }
  *out = std::move(values);
  return absl::OkStatus();
}

absl::Status Reader::strings(std::uint64_t count, const std::string& what, GgufValue* out) {
  if (count > left() / sizeof(std::uint64_t)) return ended(what);
  std::vector<std::string> values(count);
  const std::string element = absl::StrCat("a string of ", what);
  for (std::string& value : values) QUIRE_RETURN_IF_ERROR(text(&value, element));
  *out = std::move(values);
  return absl::OkStatus();
}

absl::Status Reader::array(const std::string& what, GgufValue* out) {
  std::uint32_t type = 0;
  std::uint64_t count = 0;
  QUIRE_RETURN_IF_ERROR(number(&type, what));
  QUIRE_RETURN_IF_ERROR(number(&count, what));
  if (count > kMaxArrayElements - num_elements_) {
    return corrupt(path_, what, " is said to have ", count, " elements; a file may have at most ",
                   kMaxArrayElements, " in all its arrays.");
  }
  num_elements_ += count;
  switch (type) {
    case kUint8:
      return numbers<std::uint8_t, std::int64_t>(count, what, out);
    case kInt8:
      return numbers<std::int8_t, std::int64_t>(count, what, out);
    case kUint16:
      return numbers<std::uint16_t, std::int64_t>(count, what, out);
    case kInt16:
      return numbers<std::int16_t, std::int64_t>(count, what, out);
    case kUint32:
      return numbers<std::uint32_t, std::int64_t>(count, what, out);
    case kInt32:
      return numbers<std::int32_t, std::int64_t>(count, what, out);
    case kBool:
      return numbers<std::uint8_t, std::int64_t>(count, what, out);
    case kUint64:
      return numbers<std::uint64_t, std::int64_t>(count, what, out);
    case kInt64:
      return numbers<std::int64_t, std::int64_t>(count, what, out);
    case kFloat32:
      return numbers<float, double>(count, what, out);
    case kFloat64:
      return numbers<double, double>(count, what, out);
    case kString:
      return strings(count, what, out);
    case kArray:
      return unsupported(path_, what, " is an array of arrays.");
    default:
      return corrupt(path_, what, " is an array of the unknown type ", type, ".");
  }
}

absl::Status Reader::value(std::uint32_t type, const std::string& what, GgufValue* out) {
  switch (type) {
    case kUint8:
      return scalar<std::uint8_t, std::uint64_t>(what, out);
    case kInt8:
      return scalar<std::int8_t, std::int64_t>(what, out);
    case kUint16:
      return scalar<std::uint16_t, std::uint64_t>(what, out);
    case kInt16:
      return scalar<std::int16_t, std::int64_t>(what, out);
    case kUint32:
      return scalar<std::uint32_t, std::uint64_t>(what, out);
    case kInt32:
      return scalar<std::int32_t, std::int64_t>(what, out);
    case kUint64:
      return scalar<std::uint64_t, std::uint64_t>(what, out);
    case kInt64:
      return scalar<std::int64_t, std::int64_t>(what, out);
    case kFloat32:
      return scalar<float, double>(what, out);
    case kFloat64:
      return scalar<double, double>(what, out);
    case kBool:
      return scalar<std::uint8_t, bool>(what, out);
    case kString:
      return text(&out->emplace<std::string>(), what);
    case kArray:
      return array(what, out);
    default:
      return corrupt(path_, what, " has the unknown type ", type, ".");
  }
}

absl::Status Reader::metadata(std::uint64_t num_keys) {
  for (std::uint64_t i = 0; i < num_keys; ++i) {
    std::string key;
    QUIRE_RETURN_IF_ERROR(text(&key, absl::StrCat("the name of metadata key ", i)));
    const std::string what = absl::StrCat("metadata key '", key, "'");
    std::uint32_t type = 0;
    QUIRE_RETURN_IF_ERROR(number(&type, what));
    GgufValue parsed;
    QUIRE_RETURN_IF_ERROR(value(type, what, &parsed));
    if (!file_.metadata.emplace(key, std::move(parsed)).second) {
      return corrupt(path_, what, " appears twice.");
    }
  }
  return absl::OkStatus();
}

absl::Status Reader::find_alignment() {
  const auto found = file_.metadata.find("general.alignment");
  if (found == file_.metadata.end()) return absl::OkStatus();
  const auto* value = std::get_if<std::uint64_t>(&found->second);
  if (value == nullptr || !std::has_single_bit(*value) || *value > (1u << 30)) {
    return corrupt(path_,
                   "metadata key 'general.alignment' must be a power of two of at most 2^30.");
  }
  alignment_ = static_cast<std::uint32_t>(*value);
  return absl::OkStatus();
}

absl::Status Reader::tensor_format(std::uint32_t type, TensorInfo* out) {
  for (const TensorType& known : kTensorTypes) {
    if (known.id != type) continue;
    if (known.format >= 0) {
      out->format = static_cast<Format>(known.format);
      return absl::OkStatus();
    }
    return unsupported(path_, "tensor '", out->name, "' is stored as ", known.name,
                       "; the formats that run are F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q4_K, Q5_K ",
                       "and Q6_K.");
  }
  return corrupt(path_, "tensor '", out->name, "' has the unknown type ", type, ".");
}

absl::Status Reader::tensor(std::uint64_t index) {
  TensorInfo info;
  QUIRE_RETURN_IF_ERROR(text(&info.name, absl::StrCat("the name of tensor ", index)));
  const std::string what = absl::StrCat("tensor '", info.name, "'");
  std::uint32_t num_dims = 0;
  QUIRE_RETURN_IF_ERROR(number(&num_dims, what));
  if (num_dims < 1 || num_dims > kMaxDims) {
    return corrupt(path_, what, " has ", num_dims, " dimensions, but must have 1 to ", kMaxDims,
                   ".");
  }
  info.shape.resize(num_dims);
  for (std::uint32_t d = num_dims; d-- > 0;) {  // innermost first in the file
    QUIRE_RETURN_IF_ERROR(number(&info.shape[d], what));
  }
  std::uint32_t type = 0;
  QUIRE_RETURN_IF_ERROR(number(&type, what));
  QUIRE_RETURN_IF_ERROR(number(&info.offset, what));
  QUIRE_RETURN_IF_ERROR(tensor_format(type, &info));
  QUIRE_ASSIGN_OR_RETURN(info.bytes, tensor_bytes(path_, info));
  file_.tensors.push_back(std::move(info));
  return absl::OkStatus();
}

// Turns offsets into the data section into offsets into the file.
absl::Status Reader::place_tensors() {
  const std::uint64_t mask = alignment_ - 1;
  file_.headers_end = at_;
  file_.data_offset = (at_ + mask) & ~mask;
  for (TensorInfo& info : file_.tensors) {
    if ((info.offset & mask) != 0) {
      return corrupt(path_, "tensor '", info.name, "' is at offset ", info.offset,
                     ", which the alignment ", alignment_, " does not divide.");
    }
    std::uint64_t end = 0;
    if (__builtin_add_overflow(info.offset, file_.data_offset, &info.offset) ||
        __builtin_add_overflow(info.offset, info.bytes, &end) ||
        (end > bytes_.size() && !headers_only_)) {
      return corrupt(path_, "tensor '", info.name, "' needs ", info.bytes, " bytes from byte ",
                     info.offset, ", but the file has only ", bytes_.size(),
                     ". It is truncated or damaged: fetch it again.");
    }
  }
  return check_tensors(path_, &file_.tensors);
}

absl::StatusOr<GgufFile> Reader::read() {
  file_.path = path_;
  std::uint64_t num_tensors = 0;
  std::uint64_t num_keys = 0;
  QUIRE_RETURN_IF_ERROR(header(&num_tensors, &num_keys));
  QUIRE_RETURN_IF_ERROR(metadata(num_keys));
  QUIRE_RETURN_IF_ERROR(find_alignment());
  for (std::uint64_t i = 0; i < num_tensors; ++i) QUIRE_RETURN_IF_ERROR(tensor(i));
  QUIRE_RETURN_IF_ERROR(place_tensors());
  return std::move(file_);
}

}  // namespace

absl::StatusOr<GgufFile> read_gguf(const std::string& path, absl::string_view bytes,
                                   bool headers_only) {
  return Reader(path, bytes, headers_only).read();
}

}  // namespace quire

// Element formats: two random bytes are added (a triangle of 511 steps) and looked up in a table of
// their encodings; one draw gives four elements. Block formats: random numbers under scales that
// are the same in every block. A draw is splitmix64 of a counter, so any part can be made alone.
#include "worker/loader/dummy_values.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "absl/strings/match.h"
#include "common/check.h"
#include "common/hash.h"
#include "kernels/formats/half.h"
#include "kernels/formats/superblock.h"
#include "kernels/formats/table.h"

namespace quire {
namespace {

constexpr std::uint64_t kSeed = 1;
constexpr float kDeviation = 0.02f;
constexpr int kSteps = 511;                   // sums of two bytes
constexpr float kStepsDeviation = 104.5f;     // of such a sum
constexpr std::uint64_t kDrawsPerBlock = 32;  // more than the bytes of any block need
constexpr std::uint64_t kElementsPerDraw = 4;

// What is common to all blocks of a format: its scales, such that uniform numbers under them have
// the deviation wanted and, where there is an offset, the mean zero.
struct Header {
  std::vector<std::byte> bytes;
  std::size_t at = 0;
};

Header halves(std::initializer_list<float> values) {
  Header header;
  header.bytes.resize(2 * values.size());
  std::byte* out = header.bytes.data();
  for (const float value : values) {
    store_half(out, value);
    out += 2;
  }
  return header;
}

// f16 d, f16 dmin, 8 scales and 8 minimums, all of the same size.
Header superblock_header(float uniform_deviation, float mean) {
  constexpr int kScale = 32;
  formats::Superblock block;
  block.scales.fill(kScale);
  block.minimums.fill(kScale);
  const float d = kDeviation / uniform_deviation / kScale;
  Header header = halves({d, d * mean});
  header.bytes.resize(16);
  formats::write_scales(block, header.bytes.data() + 4);
  return header;
}

Header block_header(Format format) {
  constexpr float k4 = 4.61f, k5 = 9.23f, k6 = 18.5f, k8 = 73.9f;  // of uniform whole numbers
  switch (format) {
    case Format::kQ8_0:
      return halves({kDeviation / k8});
    case Format::kQ4_0:
      return halves({kDeviation / k4});
    case Format::kQ4_1:
      return halves({kDeviation / k4, -7.5f * kDeviation / k4});
    case Format::kQ4_Z:
      return halves({kDeviation / k4, 8.0f});
    case Format::kQ4_K:
      return superblock_header(k4, 7.5f);
    case Format::kQ5_K:
      return superblock_header(k5, 15.5f);
    case Format::kQ6_K: {  // 128 + 64 bytes of numbers, 16 scales of 8 bits, f16 d
      constexpr int kScale = 8;
      Header header = halves({kDeviation / k6 / kScale});
      header.bytes.insert(header.bytes.begin(), 16, std::byte{kScale});
      header.at = 192;
      return header;
    }
    default:
      QUIRE_CHECK(false && "not a format of blocks");
      return {};
  }
}

}  // namespace

DummyValues::DummyValues(const TensorInfo& tensor)
    : format_(tensor.format),
      columns_(tensor.shape.back()),
      key_(hash64(kSeed, tensor.name)),
      norm_(tensor.shape.size() == 1 && !absl::EndsWith(tensor.name, "bias")) {
  if (traits(format_).block > 1) {
    Header header = block_header(format_);
    header_ = std::move(header.bytes);
    header_at_ = header.at;
    return;
  }
  // Scaled rows hold numbers of a size that their type spends its bits on.
  float deviation = kDeviation;
  if (format_ == Format::kI8) deviation = 0.5f * kStepsDeviation;
  if (format_ == Format::kF8E4M3) deviation = 1.0f;
  row_scale_ = kDeviation / deviation;
  const auto bytes = static_cast<std::size_t>(traits(format_).block_bytes);
  codes_.resize(kSteps * bytes);
  for (int i = 0; i < kSteps; ++i) {
    const float value = static_cast<float>(i - kSteps / 2) * (deviation / kStepsDeviation);
    formats::encode_row(format_, &value, 1, codes_.data() + static_cast<std::size_t>(i) * bytes);
  }
}

std::uint64_t DummyValues::draw(std::uint64_t counter) const {
  std::uint64_t z = key_ + (counter + 1) * 0x9e3779b97f4a7c15;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  return z ^ (z >> 31);
}

void DummyValues::fill_row(int row, Range columns, std::byte* out) const {
  const int block = traits(format_).block;
  if (block == 1) return fill_elements(row, columns, out);
  fill_blocks(row, {columns.begin / block, (columns.end + block - 1) / block}, out);
}

namespace {

// `draw_of(g)` gives the bits of elements 4 g to 4 g + 3.
template <typename Code, typename Draw>
void look_up(const std::byte* codes, Range columns, const Draw& draw_of, std::byte* out) {
  constexpr int kGroup = static_cast<int>(kElementsPerDraw);
  Code table[kSteps];
  std::memcpy(table, codes, sizeof(table));
  Code group[kGroup];
  for (int column = columns.begin; column < columns.end;) {
    const std::uint64_t bits = draw_of(column / kGroup);
    for (int i = 0; i < kGroup; ++i) {
      group[i] = table[(bits >> (16 * i) & 255) + (bits >> (16 * i + 8) & 255)];
    }
    const int first = column % kGroup;
    const int count = std::min(kGroup - first, columns.end - column);
    const std::size_t bytes = static_cast<std::size_t>(count) * sizeof(Code);
    if (count == kGroup) {
      std::memcpy(out, group, sizeof(group));
    } else {
      std::memcpy(out, group + first, bytes);
    }
    column += count;
    out += bytes;
  }
}

}  // namespace

void DummyValues::fill_elements(int row, Range columns, std::byte* out) const {
  const std::uint64_t groups =
      (static_cast<std::uint64_t>(columns_) + kElementsPerDraw - 1) / kElementsPerDraw;
  const std::uint64_t first = static_cast<std::uint64_t>(row) * groups;
  const auto draw_of = [&](int group) { return draw(first + static_cast<std::uint64_t>(group)); };
  switch (traits(format_).block_bytes) {
    case 1:
      return look_up<std::uint8_t>(codes_.data(), columns, draw_of, out);
    case 2:
      return look_up<std::uint16_t>(codes_.data(), columns, draw_of, out);
    default:
      return look_up<std::uint32_t>(codes_.data(), columns, draw_of, out);
  }
}

void DummyValues::fill_blocks(int row, Range blocks, std::byte* out) const {
  const auto bytes = static_cast<std::size_t>(traits(format_).block_bytes);
  const auto per_row = static_cast<std::uint64_t>(columns_ / traits(format_).block);
  for (int block = blocks.begin; block < blocks.end; ++block, out += bytes) {
    std::uint64_t counter =
        (static_cast<std::uint64_t>(row) * per_row + static_cast<std::uint64_t>(block)) *
        kDrawsPerBlock;
    for (std::size_t at = 0; at < bytes; at += sizeof(std::uint64_t)) {
      const std::uint64_t bits = draw(counter++);
      std::memcpy(out + at, &bits, std::min(sizeof(bits), bytes - at));
    }
    std::memcpy(out + header_at_, header_.data(), header_.size());
  }
}

std::vector<float> DummyValues::vector(Range range) const {
  std::vector<float> values(static_cast<std::size_t>(range.size()), 1.0f);
  if (norm_) return values;
  std::vector<std::byte> row(row_bytes(format_, range.size()));
  fill_elements(0, range, row.data());
  formats::decode_row(format_, row.data(), range.size(), values.data());
  return values;
}

}  // namespace quire

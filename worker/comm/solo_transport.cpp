// One rank: its own memory, nobody to wait for.
#include <vector>

#include "worker/comm/transport.h"

namespace quire {
namespace {

class SoloTransport final : public Transport {
 public:
  explicit SoloTransport(std::size_t part_bytes)
      : half_lines_((part_bytes + 63) / 64), halves_(2 * half_lines_) {}

  const char* name() const override { return "solo"; }
  std::byte* part(std::uint64_t k, int, std::size_t) override {
    return halves_[(k % 2) * half_lines_].bytes;
  }
  absl::Status exchange(std::uint64_t, std::size_t) override { return absl::OkStatus(); }
  void abort() override {}

 private:
  struct alignas(64) Line {
    std::byte bytes[64];
  };
  std::size_t half_lines_;
  std::vector<Line> halves_;
};

}  // namespace

std::unique_ptr<Transport> make_solo_transport(std::size_t part_bytes) {
  return std::make_unique<SoloTransport>(part_bytes);
}

}  // namespace quire

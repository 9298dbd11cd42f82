// What comes over the stream between coordinator and worker. The first byte chooses: a plan (which
// then goes into the slot table), an Up with a result, a Down.
#include "common/wire.h"

#include "fleet.pb.h"
#include "tests/fuzz/fuzz.h"
#include "worker/runner/slot_table.h"

namespace quire::fuzz {
namespace {

void take_plan(absl::string_view bytes) {
  const auto plan = wire::decode_plan(bytes);
  if (!plan.ok()) return;
  const std::string encoded = wire::encode(*plan);
  const auto again = wire::decode_plan(encoded);
  QUIRE_CHECK(again.ok());
  QUIRE_CHECK_EQ(wire::encode(*again), encoded);
  SlotTable slots({.num_blocks = 32,
                   .block_size = 16,
                   .max_num_seqs = 8,
                   .max_num_batched_tokens = 128,
                   .max_model_len = 256},
                  /*vocab=*/100, /*num_kv_groups=*/1);
  if (!slots.apply(*plan).ok()) return;
  QUIRE_CHECK_EQ(slots.num_used(),
                 static_cast<int>(plan->admits.size()) - static_cast<int>(plan->releases.size()));
}

void take_result(const v1::StepResult& message) {
  const auto result = wire::decode(message);
  if (!result.ok()) return;
  v1::StepResult encoded;
  wire::encode(*result, &encoded);
  const auto again = wire::decode(encoded);
  QUIRE_CHECK(again.ok());
  QUIRE_CHECK_EQ(again->rows.size(), result->rows.size());
}

}  // namespace
}  // namespace quire::fuzz

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace quire;
  if (size == 0) return 0;
  const absl::string_view bytes = fuzz::view(data + 1, size - 1);
  if (data[0] % 3 == 0) {
    fuzz::take_plan(bytes);
  } else if (data[0] % 3 == 1) {
    v1::Up up;
    if (up.ParseFromArray(bytes.data(), static_cast<int>(bytes.size())) && up.has_result()) {
      fuzz::take_result(up.result());
    }
  } else {
    v1::Down down;
    if (down.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) {
      fuzz::take_plan(down.plan());
    }
  }
  return 0;
}

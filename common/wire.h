// proto <-> structs for what the step loop sends: the only place that sees both. Decoding checks
// everything a peer could get wrong and names the field.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "common/step.h"

namespace quire::v1 {
class StepResult;
}

namespace quire::wire {

// What Hello presents; a coordinator refuses a worker of another version by name.
inline constexpr std::uint32_t kProtocolVersion = 4;

// The longest id of a collective that is relayed.
inline constexpr std::size_t kMaxCollectiveIdBytes = 4096;

// Serialised once per step; every rank gets these bytes and the digest runs over them.
std::string encode(const StepPlan& plan);
absl::StatusOr<StepPlan> decode_plan(absl::string_view bytes);

void encode(const StepResult& result, v1::StepResult* out);
absl::StatusOr<StepResult> decode(const v1::StepResult& in);

// Rolling digest: next = digest(previous, bytes of the plan); 0 before an epoch's first plan.
std::uint64_t plan_digest(std::uint64_t previous, absl::string_view bytes);

}  // namespace quire::wire

// What a rank says of itself when it attaches, and what the coordinator answers, as messages.
#pragma once

#include "absl/status/statusor.h"
#include "fleet.pb.h"
#include "worker/session/link.h"

namespace quire {

v1::Up hello_message(const Introduction& in);
// FailedPrecondition: a field is outside what it may be.
absl::StatusOr<Admission> read_welcome(const v1::Welcome& in);

}  // namespace quire

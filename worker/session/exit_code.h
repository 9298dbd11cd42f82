// How a worker ends, as mpirun and the supervisor see it (sysexits.h where it has a name for it).
// The launcher gives up at once on codes that another start cannot change.
#pragma once

#include "absl/status/status.h"

namespace quire {

enum ExitCode : int {
  kExitDrained = 0,
  kExitUsage = 64,
  kExitBadModel = 65,
  kExitNoFile = 66,
  kExitInternal = 70,
  kExitDevice = 71,
  kExitIo = 74,
  kExitTemporary = 75,  // a deadline, a lost peer or coordinator: try again
  kExitFenced = 76,     // refused by the coordinator
  kExitNoAccess = 77,
};

// What a failure means depends on what was being done.
enum class Stage { kOptions, kDevice, kModel, kServing };

inline ExitCode exit_code(Stage stage, const absl::Status& status) {
  using Code = absl::StatusCode;
  if (stage == Stage::kDevice && !status.ok()) {
    // A device that is not here, or a wrong option of it: no other start changes that.
    const bool asked_in_vain =
        status.code() == Code::kNotFound || status.code() == Code::kInvalidArgument;
    return asked_in_vain ? kExitUsage : kExitDevice;
  }
  switch (status.code()) {
    case Code::kOk:
      return kExitDrained;
    case Code::kResourceExhausted:
      return kExitDevice;
    case Code::kUnavailable:
    case Code::kDeadlineExceeded:
    case Code::kAborted:
    case Code::kCancelled:
      return stage == Stage::kModel ? kExitIo : kExitTemporary;
    case Code::kUnauthenticated:
      return kExitNoAccess;
    case Code::kPermissionDenied:
      return stage == Stage::kServing ? kExitNoAccess : kExitIo;
    case Code::kFailedPrecondition:
      return kExitFenced;
    case Code::kNotFound:
      return stage == Stage::kServing ? kExitInternal : kExitNoFile;
    case Code::kOutOfRange:  // while serving: an option that this machine or model cannot meet
      return stage == Stage::kModel ? kExitBadModel : kExitUsage;
    case Code::kInvalidArgument:
    case Code::kDataLoss:
      if (stage == Stage::kServing) return kExitInternal;
      return stage == Stage::kOptions ? kExitUsage : kExitBadModel;
    default:
      return kExitInternal;
  }
}

}  // namespace quire

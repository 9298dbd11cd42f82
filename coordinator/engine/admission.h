// What submit() checks before a request may enter: everything that needs no scheduler state. Pure.
#pragma once

#include "absl/status/status.h"
#include "coordinator/engine/request.h"

namespace quire {

struct RequestLimits {
  int vocab = 0;
  int max_model_len = 0;
  int block_size = 0;
  int total_blocks = 0;  // of the worker group; 0 = not known yet
  int max_num_seqs = 1;  // that can be in one step
  int num_tenants = 1;
};

// InvalidArgument names the field, its value and what is allowed. Nothing is capped here.
absl::Status check_request(const Request& request, const RequestLimits& limits);

}  // namespace quire

// The users that share a server, each with a key of its own: --tenants FILE.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace quire {

struct TenantEntry {
  std::string name;  // in logs and errors
  std::string key;   // what its clients send; in no message of this program
  double weight = 1.0;
  int max_requests = 0;                 // in the server at a time; 0: no limit
  std::int64_t max_waiting_tokens = 0;  // of prompts that have no answer yet; 0: no limit
};

inline constexpr int kMaxTenants = 4096;

// A YAML list of maps: name and key, weight unless it is 1, and the two limits where there are any.
// At least one entry; names and keys each once. Errors name the file and the entry, never a key.
absl::StatusOr<std::vector<TenantEntry>> read_tenants(const std::string& file);

}  // namespace quire

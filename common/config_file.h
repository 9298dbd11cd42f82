// Small helpers of config.cpp that need a file or a name; internal to the room.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "common/config.h"

namespace quire {

// The (key, value) pairs of a YAML file whose top level is a map of plain values; keys with - for _
// and without leading dashes. Errors name the file, and the key or line.
absl::StatusOr<std::vector<std::pair<std::string, std::string>>> read_yaml(const std::string& file);

// The first line of a file that holds one secret, without surrounding blanks. Errors name the file
// and never its content.
absl::StatusOr<std::string> read_secret(const std::string& file);

// What must hold between the options of who listens where and who is let in; see
// config_network.cpp.
absl::Status check_network(const EngineConfig& config);

// The row of "--name" ("name" with - or _), or nullptr.
const Option* find_option(const std::string& name);

// " Did you mean --port?" for the nearest option of these programs, or "".
std::string suggestion(const std::string& name, unsigned programs);

}  // namespace quire

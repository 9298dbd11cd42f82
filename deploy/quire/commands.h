// The `quire` command's subcommands. Each gets the arguments after its name and returns an exit
// code.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace quire {

int serve_command(const std::vector<std::string>& arguments);
int inspect_command(const std::vector<std::string>& arguments);
int generate_command(const std::vector<std::string>& arguments);
int doctor_command(const std::vector<std::string>& arguments);
int chat_command(const std::vector<std::string>& arguments);
int bench_command(const std::vector<std::string>& arguments);
int backup_command(const std::vector<std::string>& arguments);

// MODEL as typed to a path: the alias `smollm2` is the demo model that deploy/setup.sh caches.
absl::StatusOr<std::string> resolve_model(const std::string& model);

// Prints "quire COMMAND: MESSAGE" and returns `code`.
int fail(const std::string& command, const std::string& message, int code = 64);

}  // namespace quire

// `quire bench`: becomes quire-bench beside this program, which holds the load generator.
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>

#include "absl/strings/str_cat.h"
#include "deploy/quire/commands.h"

namespace quire {

int bench_command(const std::vector<std::string>& arguments) {
  const std::filesystem::path self = std::filesystem::read_symlink("/proc/self/exe");
  std::string program = (self.parent_path() / "quire-bench").string();
  std::vector<std::string> copies = arguments;
  std::vector<char*> raw = {program.data()};
  for (std::string& argument : copies) raw.push_back(argument.data());
  raw.push_back(nullptr);
  execv(raw[0], raw.data());
  const std::string why = errno == ENOENT ? "it was not built (QUIRE_BENCH is off in this build)"
                                          : std::string(std::strerror(errno));
  return fail("bench", absl::StrCat("cannot start ", program, ": ", why), 127);
}

}  // namespace quire

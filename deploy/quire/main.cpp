// quire: one command for people. Servers are started by `serve`; the other subcommands are clients
// of a running one, or read a model's files.
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include "deploy/quire/commands.h"

namespace {

struct Command {
  const char* name;
  int (*run)(const std::vector<std::string>&);
  const char* help;
};

constexpr Command kCommands[] = {
    {"serve", quire::serve_command, "serve MODEL over tensor-parallel ranks (HTTP and gRPC)"},
    {"generate", quire::generate_command,
     "send one prompt to a running server and stream the answer"},
    {"chat", quire::chat_command, "talk with a running server"},
    {"inspect", quire::inspect_command, "what a model is and what it needs per rank"},
    {"bench", quire::bench_command, "load a running server and measure it (`bench serve`)"},
    {"backup", quire::backup_command, "copy a journal, also while its server runs"},
    {"doctor", quire::doctor_command, "what this machine can run, and what is missing"},
};

void print_help(std::FILE* out) {
  std::fprintf(out, "usage: quire COMMAND [options]\n\n");
  for (const Command& command : kCommands) {
    std::fprintf(out, "  %-10s %s\n", command.name, command.help);
  }
  std::fprintf(out, "\n`quire COMMAND --help` tells more. Version %s.\n", QUIRE_VERSION);
}

}  // namespace

int main(int argc, char** argv) {
  const std::string name = argc > 1 ? argv[1] : "";
  if (name == "--help" || name == "-h" || name == "help") {
    print_help(stdout);
    return 0;
  }
  if (name == "--version" || name == "version") {
    std::printf("quire %s\n", QUIRE_VERSION);
    return 0;
  }
  for (const Command& command : kCommands) {
    if (name == command.name) return command.run(std::vector<std::string>(argv + 2, argv + argc));
  }
  if (!name.empty()) std::fprintf(stderr, "quire: there is no command `%s`\n\n", name.c_str());
  print_help(stderr);
  return 64;
}

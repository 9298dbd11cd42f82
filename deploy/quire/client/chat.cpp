// `quire chat`: a conversation in the terminal. Ctrl-C stops the answer and not the program; Ctrl-D
// or /exit ends it; /clear forgets what was said.
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <iostream>

#include "absl/strings/ascii.h"
#include "deploy/quire/client/interrupt.h"
#include "deploy/quire/client/options.h"
#include "deploy/quire/commands.h"

namespace quire {
namespace {

// One word after a slash: more likely a mistyped command than something to say.
bool is_command(const std::string& line) {
  return line.size() > 1 && line[0] == '/' &&
         std::all_of(line.begin() + 1, line.end(), [](char c) { return absl::ascii_isalpha(c); });
}

class Conversation {
 public:
  explicit Conversation(const ClientCommand& command)
      : command_(command), prompt_(command.prompt), client_(command.client) {
    clear();
  }

  void clear() {
    prompt_.messages.clear();
    if (!command_.system.empty()) prompt_.messages.emplace_back("system", command_.system);
  }

  // Says `line`, streams the answer, keeps both. A stopped answer is kept as far as it came; a
  // failed turn is forgotten so that it can be said again. False when the server is gone.
  bool say(const std::string& line) {
    prompt_.messages.emplace_back("user", line);
    std::string so_far;
    auto answer = client_.generate(prompt_, [&](const std::string& text) {
      so_far += text;
      std::fputs(text.c_str(), stdout);
      std::fflush(stdout);
    });
    std::printf("\n");
    if (answer.ok() || absl::IsCancelled(answer.status())) {
      if (!answer.ok()) std::printf("[stopped]\n");
      prompt_.messages.emplace_back("assistant", so_far);
      return true;
    }
    prompt_.messages.pop_back();
    failed_ = true;
    const bool too_long = absl::IsInvalidArgument(answer.status()) && prompt_.messages.size() > 2;
    fail("chat",
         describe_failure(answer.status(), command_.client.server) +
             (too_long ? " (/clear forgets what was said)" : ""),
         1);
    return !absl::IsUnavailable(answer.status());
  }

  bool failed() const { return failed_; }  // any turn
  bool stop_answer() { return client_.cancel(); }

 private:
  const ClientCommand& command_;
  Prompt prompt_;
  Client client_;
  bool failed_ = false;
};

}  // namespace

int chat_command(const std::vector<std::string>& arguments) {
  auto command = parse_client(arguments, /*takes_prompt=*/false);
  if (!command.ok()) return fail("chat", std::string(command.status().message()));
  if (command->help) {
    std::fputs(client_help(false).c_str(), stdout);
    return 0;
  }
  const Interrupt interrupt;
  Conversation conversation(*command);
  interrupt.call_on_ctrl_c([&conversation] {
    if (!conversation.stop_answer()) {
      std::printf("\n(Ctrl-D or /exit ends the chat)\n> ");
      std::fflush(stdout);
    }
  });
  const bool person = isatty(STDIN_FILENO) != 0;
  if (person) std::printf("Ctrl-C stops an answer, Ctrl-D or /exit ends, /clear forgets.\n");
  for (std::string line;;) {
    if (person) std::printf("> ");
    std::fflush(stdout);
    if (!std::getline(std::cin, line) || line == "/exit") break;
    if (line.empty()) continue;
    if (line == "/clear") {
      conversation.clear();
    } else if (is_command(line)) {
      std::printf("there is no %s; /clear and /exit are known (begin with a space to say it)\n",
                  line.c_str());
    } else if (!conversation.say(line)) {
      return 1;
    }
  }
  if (person) std::printf("\n");
  return !person && conversation.failed() ? 1 : 0;  // a script wants to know
}

}  // namespace quire

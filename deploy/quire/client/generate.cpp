// `quire generate "prompt"`: one prompt, the answer streamed to standard output. The prompt `-` is
// read from standard input.
#include <unistd.h>

#include <cstdio>
#include <iostream>
#include <iterator>

#include "absl/strings/str_cat.h"
#include "deploy/quire/client/interrupt.h"
#include "deploy/quire/client/options.h"
#include "deploy/quire/commands.h"

namespace quire {

int generate_command(const std::vector<std::string>& arguments) {
  auto command = parse_client(arguments, /*takes_prompt=*/true);
  if (!command.ok()) return fail("generate", std::string(command.status().message()));
  if (command->help) {
    std::fputs(client_help(true).c_str(), stdout);
    return 0;
  }
  if (command->text == "-") {
    command->text.assign(std::istreambuf_iterator<char>(std::cin), {});
    if (command->text.empty()) return fail("generate", "there is no prompt on standard input");
  }
  Prompt& prompt = command->prompt;
  if (command->raw) {
    prompt.text = command->text;
  } else {
    if (!command->system.empty()) prompt.messages.emplace_back("system", command->system);
    prompt.messages.emplace_back("user", command->text);
  }
  const Interrupt interrupt;  // before the client's threads start
  Client client(command->client);
  interrupt.call_on_ctrl_c([&client] {
    if (!client.cancel()) _exit(130);
  });
  bool began = false;
  auto answer = client.generate(prompt, [&](const std::string& text) {
    if (!began && command->show_prompt) std::printf("\n> %s\n\n", command->text.c_str());
    began = true;
    std::fputs(text.c_str(), stdout);
    std::fflush(stdout);
  });
  std::printf("\n");
  if (began && absl::IsUnavailable(answer.status())) {
    return fail("generate", "the server stopped; the answer is incomplete", 1);
  }
  if (!answer.ok()) {
    if (absl::IsCancelled(answer.status())) return 130;
    return fail("generate", describe_failure(answer.status(), command->client.server), 1);
  }
  std::fprintf(stderr, "[%d prompt tokens, %d of them cached, %d answer tokens, finish: %s]\n",
               answer->prompt_tokens, answer->cached_tokens, answer->completion_tokens,
               answer->finish_reason.c_str());
  return 0;
}

}  // namespace quire

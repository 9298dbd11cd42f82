// The options that generate and chat share.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "deploy/quire/client/client.h"

namespace quire {

struct ClientCommand {
  ClientOptions client;
  TlsFiles tls_files;
  Prompt prompt;
  std::string system;        // a system message, or empty
  std::string text;          // generate's PROMPT
  bool raw = false;          // no chat template
  bool show_prompt = false;  // print the prompt before the answer
  bool help = false;
};

// `takes_prompt`: whether a positional PROMPT is expected.
absl::StatusOr<ClientCommand> parse_client(const std::vector<std::string>& arguments,
                                           bool takes_prompt);
std::string client_help(bool takes_prompt);

}  // namespace quire

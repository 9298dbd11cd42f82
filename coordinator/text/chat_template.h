// Renders a model's chat template with the project's own interpreter of the Jinja subset that such
// templates use (coordinator/text/jinja/). No attribute of the host is reachable, and work is
// bounded: nesting 100, 1e6 steps, 1 MiB of output.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "nlohmann/json_fwd.hpp"

namespace quire {

class ChatTemplate {
 public:
  // InvalidArgument with line and reason.
  static absl::StatusOr<ChatTemplate> parse(const std::string& source);
  ChatTemplate(ChatTemplate&&) noexcept;
  ChatTemplate& operator=(ChatTemplate&&) noexcept;
  ~ChatTemplate();

  // `variables` is an object: messages, add_generation_prompt, bos_token, eos_token, tools, ...
  // As Hugging Face renders: trim_blocks, lstrip_blocks, loop controls, tojson without HTML
  // escapes, raise_exception (InvalidArgument with its message), strftime_now(format) at
  // `now_unix_seconds`. Thread-safe.
  absl::StatusOr<std::string> render(const nlohmann::ordered_json& variables,
                                     double now_unix_seconds) const;

 private:
  ChatTemplate();
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace quire

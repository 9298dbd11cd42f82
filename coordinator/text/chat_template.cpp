// The chat template's edge: what the interpreter throws becomes a Status here.
#include "coordinator/text/chat_template.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "coordinator/text/jinja/interpreter.h"
#include "coordinator/text/jinja/parser.h"

namespace quire {

struct ChatTemplate::Impl {
  jinja::Block program;
};

ChatTemplate::ChatTemplate() : impl_(std::make_unique<Impl>()) {}
ChatTemplate::ChatTemplate(ChatTemplate&&) noexcept = default;
ChatTemplate& ChatTemplate::operator=(ChatTemplate&&) noexcept = default;
ChatTemplate::~ChatTemplate() = default;

absl::StatusOr<ChatTemplate> ChatTemplate::parse(const std::string& source) {
  ChatTemplate chat_template;
  try {
    chat_template.impl_->program = jinja::parse_template(source);
  } catch (const jinja::SyntaxError& error) {
    return absl::InvalidArgumentError(absl::StrCat("The chat template cannot be used: line ",
                                                   error.line, ": ", error.reason, "."));
  }
  return chat_template;
}

absl::StatusOr<std::string> ChatTemplate::render(const nlohmann::ordered_json& variables,
                                                 double now_unix_seconds) const {
  jinja::Interpreter interpreter(now_unix_seconds);
  try {
    return interpreter.render(impl_->program, variables);
  } catch (const jinja::RaisedByTemplate& raised) {
    return absl::InvalidArgumentError(raised.what());
  } catch (const jinja::Error& error) {
    return absl::InvalidArgumentError(absl::StrCat("the chat template failed in line ",
                                                   interpreter.line(), ": ", error.what(), "."));
  }
}

}  // namespace quire

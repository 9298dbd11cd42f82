// A chat template of a stranger and, behind a NUL, the messages of another (JSON, as deep as the
// HTTP API lets through).
#include "coordinator/text/chat_template.h"

#include "common/utf8.h"
#include "nlohmann/json.hpp"
#include "tests/fuzz/fuzz.h"

namespace quire::fuzz {
namespace {

constexpr int kMaxDepth = 64;
constexpr std::size_t kMaxOutput = 1 << 20;

using nlohmann::ordered_json;

ordered_json messages_of(absl::string_view text) {
  const auto keep = [](int depth, ordered_json::parse_event_t, ordered_json&) {
    return depth <= kMaxDepth;
  };
  ordered_json parsed = ordered_json::parse(text.begin(), text.end(), keep, false);
  if (parsed.is_array()) return parsed;
  return {{{"role", "system"}, {"content", "Be brief."}},
          {{"role", "user"}, {"content", "Hello <|im_end|> {{ 7 }}"}}};
}

}  // namespace
}  // namespace quire::fuzz

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace quire;
  const auto [source, messages] = fuzz::halves(fuzz::view(data, size));
  const auto parsed = ChatTemplate::parse(std::string(source));
  if (!parsed.ok()) {
    QUIRE_CHECK(!parsed.status().message().empty());
    return 0;
  }
  const fuzz::ordered_json variables = {{"messages", fuzz::messages_of(messages)},
                                        {"add_generation_prompt", true},
                                        {"bos_token", "<s>"},
                                        {"eos_token", "</s>"},
                                        {"tools", nullptr}};
  const auto first = parsed->render(variables, 1.7e9);
  const auto second = parsed->render(variables, 1.7e9);
  QUIRE_CHECK_EQ(first.ok(), second.ok());
  if (!first.ok()) return 0;
  QUIRE_CHECK_LE(first->size(), fuzz::kMaxOutput);
  QUIRE_CHECK_EQ(*first, *second);
  return 0;
}

// Chat templates against jinja2 with Hugging Face's environment: 424 renderings of real templates
// (46 of them must fail) and 100 small cases of the engine.
#include <gtest/gtest.h>

#include <string>

#include "coordinator/text/chat_template.h"
#include "tests/coordinator/text/text_fixtures.h"

namespace quire {
namespace {

using nlohmann::ordered_json;
using test::shared_file;

constexpr double kClock = 1741964966;  // 2025-03-14T15:09:26 UTC, as the goldens

// The rendering, or "<error> reason".
std::string render(const std::string& source, const ordered_json& variables) {
  const auto chat_template = ChatTemplate::parse(source);
  if (!chat_template.ok()) return "<error> " + std::string(chat_template.status().message());
  const auto text = chat_template->render(variables, kClock);
  return text.ok() ? *text : "<error> " + std::string(text.status().message());
}

bool is_error(const std::string& text) {
  return text.rfind("<error> ", 0) == 0;
}

std::string template_source(const std::string& name) {
  for (const char* folder : {"llama.cpp/", "vllm/"}) {
    const auto path = shared_file("data/templates/" + std::string(folder) + name);
    if (std::filesystem::exists(path)) return test::read_text(path);
  }
  ADD_FAILURE() << "no template named " << name;
  return "";
}

TEST(TemplateGolden, RealTemplates) {
  const auto path = shared_file("data/templates/golden.dev.json");
  QUIRE_NEED_DATA(path);
  const auto golden = ordered_json::parse(test::read_text(path));
  int equal = 0;
  int refused = 0;
  for (const auto& entry : golden["cases"]) {
    ordered_json variables = golden["contexts"][entry["context"].get<std::string>()];
    for (const char* name : {"tools", "documents"}) {
      if (!variables.contains(name)) variables[name] = nullptr;
    }
    variables["bos_token"] = "<s>";
    variables["eos_token"] = "</s>";
    const auto name = entry["template"].get<std::string>();
    const std::string got = render(template_source(name), variables);
    SCOPED_TRACE(name + " in context " + entry["context"].get<std::string>());
    if (entry.contains("error")) {
      EXPECT_TRUE(is_error(got)) << "should fail with " << entry["error"] << ", gave " << got;
      refused += is_error(got) ? 1 : 0;
    } else {
      EXPECT_EQ(got, entry["expect"].get<std::string>());
      equal += got == entry["expect"].get<std::string>() ? 1 : 0;
    }
  }
  RecordProperty("equal", equal);
  RecordProperty("refused", refused);
  EXPECT_EQ(equal, 378);
  EXPECT_EQ(refused, 46);
}

TEST(TemplateGolden, SmallCases) {
  const auto path = shared_file("data/templates/jinja_micro.dev.json");
  QUIRE_NEED_DATA(path);
  const auto golden = ordered_json::parse(test::read_text(path));
  int right = 0;
  for (const auto& entry : golden["cases"]) {
    const std::string got = render(entry["template"].get<std::string>(), entry["vars"]);
    SCOPED_TRACE(entry["template"].get<std::string>());
    if (entry["jinja2_agrees"].get<bool>()) {
      EXPECT_EQ(got, entry["expect"].get<std::string>());
      right += got == entry["expect"].get<std::string>() ? 1 : 0;
    } else {  // another engine's opinion: jinja2 refuses
      EXPECT_TRUE(is_error(got)) << got;
      right += is_error(got) ? 1 : 0;
    }
  }
  EXPECT_EQ(right, 100);
}

}  // namespace
}  // namespace quire

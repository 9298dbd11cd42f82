#include "common/log.h"

#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include "absl/strings/escaping.h"
#include "absl/strings/str_replace.h"
#include "common/utf8.h"

namespace quire {

void start_log(const std::string& program, const std::string& level) {
  auto logger =
      std::make_shared<spdlog::logger>(program, std::make_shared<spdlog::sinks::stderr_sink_mt>());
  // % begins a directive of the pattern.
  const std::string name = absl::StrReplaceAll(program, {{"%", "%%"}});
  logger->set_pattern("%Y-%m-%d %H:%M:%S.%e %l " + name + ": %v");
  logger->set_level(spdlog::level::from_str(level));
  logger->flush_on(spdlog::level::info);
  spdlog::set_default_logger(std::move(logger));
}

std::string log_text(absl::string_view text) {
  constexpr std::size_t kMost = 512;
  const bool cut = text.size() > kMost;
  if (cut) text = text.substr(0, utf8::complete_prefix(text.substr(0, kMost)));
  std::string out = utf8::first_invalid(text) == utf8::npos ? absl::Utf8SafeCHexEscape(text)
                                                            : absl::CHexEscape(text);
  if (cut) out += "...";
  return out;
}

}  // namespace quire

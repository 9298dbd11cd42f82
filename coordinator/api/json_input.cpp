// A SAX handler that builds the value, so that depth and duplicate keys are seen before they cost
// anything.
#include "coordinator/api/json_input.h"

#include <utility>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace quire {

namespace {

using nlohmann::json;

// What nlohmann's message says after its "[json.exception...] parse error at line 1, column 2: ".
std::string reason_of(absl::string_view what) {
  const std::size_t colon = what.find("column ");
  const std::size_t text = colon == absl::string_view::npos ? colon : what.find(": ", colon);
  if (text == absl::string_view::npos) {
    const std::size_t bracket = what.find("] ");
    return std::string(bracket == absl::string_view::npos ? what : what.substr(bracket + 2));
  }
  return std::string(what.substr(text + 2));
}

class Builder : public nlohmann::json_sax<json> {
 public:
  bool null() override { return put(nullptr); }
  bool boolean(bool value) override { return put(value); }
  bool number_integer(std::int64_t value) override { return put(value); }
  bool number_unsigned(std::uint64_t value) override { return put(value); }
  bool number_float(double value, const std::string&) override { return put(value); }
  bool string(std::string& value) override { return put(std::move(value)); }
  bool binary(json::binary_t&) override { return false; }
  bool start_object(std::size_t) override { return open(json::object()); }
  bool start_array(std::size_t) override { return open(json::array()); }
  bool end_object() override { return close(); }
  bool end_array() override { return close(); }

  bool key(std::string& name) override {
    auto [place, is_new] =
        open_.back()->get_ref<json::object_t&>().emplace(std::move(name), nullptr);
    if (!is_new) {
      error_ = absl::InvalidArgumentError(absl::StrCat("The body's JSON has the key \"",
                                                       absl::CHexEscape(place->first.substr(0, 60)),
                                                       "\" twice in one object."));
      return false;
    }
    next_ = &place->second;
    return true;
  }

  bool parse_error(std::size_t position, const std::string&,
                   const nlohmann::detail::exception& error) override {
    error_ = absl::InvalidArgumentError(absl::StrCat("The body is not valid JSON at byte ",
                                                     position, ": ", reason_of(error.what()), "."));
    return false;
  }

  const absl::Status& error() const { return error_; }
  json take() { return std::move(root_); }

 private:
  // Where the next value goes: the root, a new element, or the place of the last key.
  json* slot() {
    if (open_.empty()) return &root_;
    if (open_.back()->is_object()) return next_;
    return &open_.back()->get_ref<json::array_t&>().emplace_back();
  }

  template <typename T>
  bool put(T&& value) {
    *slot() = std::forward<T>(value);
    return true;
  }

  bool open(json empty) {
    if (open_.size() >= static_cast<std::size_t>(kMaxJsonDepth)) {
      error_ = absl::InvalidArgumentError(
          absl::StrCat("The body's JSON is nested deeper than ", kMaxJsonDepth, " levels."));
      return false;
    }
    json* place = slot();
    *place = std::move(empty);
    open_.push_back(place);  // stays valid: a container grows only after its last element is closed
    return true;
  }

  bool close() {
    open_.pop_back();
    return true;
  }

  json root_;
  std::vector<json*> open_;
  json* next_ = nullptr;
  absl::Status error_;
};

}  // namespace

absl::StatusOr<json> parse_json(absl::string_view text) {
  if (absl::StartsWith(text, "\xEF\xBB\xBF")) {
    return absl::InvalidArgumentError(
        "The body is not valid JSON at byte 0: it begins with a byte order mark.");
  }
  Builder builder;
  if (json::sax_parse(text.begin(), text.end(), &builder)) return builder.take();
  if (!builder.error().ok()) return builder.error();
  return absl::InvalidArgumentError("The body is not valid JSON.");
}

void append_json_string(std::string& out, absl::string_view text) {
  constexpr char kHex[] = "0123456789abcdef";
  out.push_back('"');
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      out.push_back('\\');
      out.push_back(c);
    } else if (byte >= 0x20 && byte != 0x7f) {
      out.push_back(c);
    } else if (c == '\n') {
      out.append("\\n");
    } else {
      out.append("\\u00");
      out.push_back(kHex[byte >> 4]);
      out.push_back(kHex[byte & 15]);
    }
  }
  out.push_back('"');
}

}  // namespace quire

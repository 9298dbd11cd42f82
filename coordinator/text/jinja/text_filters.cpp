// Filters over texts. Most call the method of the same name, after str().
#include <algorithm>

#include "coordinator/text/jinja/arguments.h"
#include "coordinator/text/jinja/filter_tables.h"
#include "coordinator/text/jinja/interpreter.h"
#include "coordinator/text/jinja/printf_form.h"
#include "coordinator/text/jinja/strings.h"

namespace quire::jinja {
namespace {

std::string subject_text(Interpreter& in, const Value& subject) {
  std::string text = to_text(in.budget(), subject);
  in.budget().text(text.size());
  return text;
}

template <std::string (*Change)(absl::string_view)>
Value change(Interpreter& in, const Value& subject, const Arguments& arguments) {
  ArgumentReader("filter", arguments).finish();
  return Value(Change(subject_text(in, subject)));
}

Value trim(Interpreter& in, const Value& subject, const Arguments& arguments) {
  ArgumentReader reader("trim", arguments);
  const Value chars = reader.take("chars", Value::none());
  reader.finish();
  const std::string text = subject_text(in, subject);
  const absl::string_view set = chars.is_string() ? chars.string() : "";
  std::string out(strip(text, Side::kBoth, chars.is_string() ? &set : nullptr));
  return subject.is_markup() ? Value::markup(std::move(out)) : Value(std::move(out));
}

Value replace_filter(Interpreter& in, const Value& subject, const Arguments& arguments) {
  ArgumentReader reader("replace", arguments);
  const std::string from = to_text(in.budget(), reader.required("old"));
  const std::string to = to_text(in.budget(), reader.required("new"));
  const std::int64_t count = reader.integer("count", -1);
  reader.finish();
  const std::string text = subject_text(in, subject);
  in.budget().text(replaced_size(text, from, to));
  return Value(replace(text, from, to, count));
}

Value indent(Interpreter& in, const Value& subject, const Arguments& arguments) {
  ArgumentReader reader("indent", arguments);
  const Value width = reader.take("width", Value(std::int64_t{4}));
  const bool first = reader.flag("first", false);
  const bool blank = reader.flag("blank", false);
  reader.finish();
  std::string margin;
  if (width.is_string()) {
    margin = width.string();
  } else if (width.is_integral()) {
    margin = std::string(
        static_cast<std::size_t>(std::clamp<std::int64_t>(width.as_integer(), 0, kMaxTextBytes)),
        ' ');
  } else {
    fail("indent() wants a number or a text for 'width'");
  }
  const std::string text = subject_text(in, subject) + "\n";
  std::string out;
  bool at_start = true;
  for (const absl::string_view line : split_lines(text, false)) {
    if (!at_start) out += '\n';
    const bool indented = at_start ? first : blank || !line.empty();
    if (indented) out += margin;
    absl::StrAppend(&out, line);
    in.budget().text(out.size());
    at_start = false;
  }
  return Value(std::move(out));
}

Value center(Interpreter& in, const Value& subject, const Arguments& arguments) {
  ArgumentReader reader("center", arguments);
  const std::int64_t width = reader.integer("width", 80);
  reader.finish();
  in.budget().text(static_cast<std::size_t>(std::max<std::int64_t>(width, 0)));
  return Value(pad(subject_text(in, subject), width, " ", Side::kBoth));
}

Value escape(Interpreter& in, const Value& subject, const Arguments& arguments) {
  ArgumentReader("escape", arguments).finish();
  if (subject.is_markup()) return subject;
  return Value::markup(escape_html(subject_text(in, subject)));
}

Value format(Interpreter& in, const Value& subject, const Arguments& arguments) {
  if (!arguments.named.empty()) {
    auto dict = std::make_shared<Dict>();
    for (const auto& [name, value] : arguments.named) dict->set(Value(name), value);
    return Value(printf_text(in.budget(), subject_text(in, subject),
                             Value(std::shared_ptr<const Dict>(std::move(dict)))));
  }
  return Value(
      printf_text(in.budget(), subject_text(in, subject), Value::tuple(arguments.positional)));
}

Value truncate(Interpreter& in, const Value& subject, const Arguments& arguments) {
  ArgumentReader reader("truncate", arguments);
  const std::int64_t length = reader.integer("length", 255);
  const bool kill_words = reader.flag("killwords", false);
  const std::string end = reader.text("end", "...");
  const std::int64_t leeway = reader.integer("leeway", 5);
  reader.finish();
  const std::string text = subject_text(in, subject);
  const Characters characters(text);
  const auto end_size = static_cast<std::int64_t>(num_characters(end));
  if (length < end_size || leeway < 0) fail("truncate() got a length or leeway out of range");
  if (static_cast<std::int64_t>(characters.size()) <= length + leeway) return Value(text);
  const std::string kept =
      text.substr(0, characters.byte_offset(static_cast<std::size_t>(length - end_size)));
  const std::size_t blank = kill_words ? std::string::npos : kept.rfind(' ');
  return Value(kept.substr(0, blank) + end);
}

Value word_count(Interpreter& in, const Value& subject, const Arguments& arguments) {
  ArgumentReader("wordcount", arguments).finish();
  return Value::integer(num_words(subject_text(in, subject)));
}

Value string(Interpreter& in, const Value& subject, const Arguments& arguments) {
  ArgumentReader("string", arguments).finish();
  return subject.is_string() ? subject : Value(to_text(in.budget(), subject));
}

Value safe(Interpreter& in, const Value& subject, const Arguments& arguments) {
  ArgumentReader("safe", arguments).finish();
  return Value::markup(to_text(in.budget(), subject));
}

constexpr NamedFunction kFilters[] = {
    {"capitalize", change<capitalize>},
    {"center", center},
    {"e", escape},
    {"escape", escape},
    {"format", format},
    {"indent", indent},
    {"lower", change<lower>},
    {"replace", replace_filter},
    {"safe", safe},
    {"string", string},
    {"title", change<title_words>},
    {"trim", trim},
    {"truncate", truncate},
    {"upper", change<upper>},
    {"wordcount", word_count},
};

}  // namespace

absl::Span<const NamedFunction> text_filters() {
  return kFilters;
}

}  // namespace quire::jinja

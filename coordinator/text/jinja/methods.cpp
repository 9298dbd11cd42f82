// Methods of texts, dicts and lists. Those that would change the object are refused, as in Hugging
// Face's immutable sandbox.
#include <algorithm>

#include "coordinator/text/jinja/arguments.h"
#include "coordinator/text/jinja/filter_tables.h"
#include "coordinator/text/jinja/interpreter.h"
#include "coordinator/text/jinja/operators.h"
#include "coordinator/text/jinja/printf_form.h"
#include "coordinator/text/jinja/strings.h"

namespace quire::jinja {
namespace {

const std::string& self_text(Interpreter& in, const Value& self) {
  in.budget().text(self.string().size());
  return self.string();
}

template <std::string (*Change)(absl::string_view)>
Value change(Interpreter& in, const Value& self, const Arguments& arguments) {
  ArgumentReader("method", arguments).finish();
  return Value(Change(self_text(in, self)));
}

template <Side Where>
Value strip_method(Interpreter& in, const Value& self, const Arguments& arguments) {
  ArgumentReader reader("strip", arguments);
  const Value chars = reader.take("chars", Value::none());
  reader.finish();
  const std::string& text = self_text(in, self);
  if (chars.is_none()) return Value(strip(text, Where));
  if (!chars.is_string()) fail("strip arg must be None or str");
  const absl::string_view set = chars.string();
  in.budget().steps(set.size());
  return Value(strip(text, Where, &set));
}

template <bool FromRight>
Value split_method(Interpreter& in, const Value& self, const Arguments& arguments) {
  ArgumentReader reader("split", arguments);
  const Value separator = reader.take("sep", Value::none());
  const std::int64_t most = reader.integer("maxsplit", -1);
  reader.finish();
  const std::string& text = self_text(in, self);
  absl::string_view cut;
  if (!separator.is_none()) {
    if (!separator.is_string()) fail("must be str or None, not ", separator.type_name());
    cut = separator.string();
    if (cut.empty()) fail("empty separator");
  }
  std::vector<Value> parts;
  for (const absl::string_view part :
       split(text, separator.is_none() ? nullptr : &cut, most, FromRight)) {
    parts.emplace_back(part);
  }
  in.budget().steps(parts.size());
  return Value::list(std::move(parts));
}

Value splitlines(Interpreter& in, const Value& self, const Arguments& arguments) {
  ArgumentReader reader("splitlines", arguments);
  const bool keep_ends = reader.flag("keepends", false);
  reader.finish();
  std::vector<Value> lines;
  for (const absl::string_view line : split_lines(self_text(in, self), keep_ends)) {
    lines.emplace_back(line);
  }
  in.budget().steps(lines.size());
  return Value::list(std::move(lines));
}

template <bool FromRight>
Value partition(Interpreter& in, const Value& self, const Arguments& arguments) {
  ArgumentReader reader("partition", arguments);
  const std::string separator = reader.required_text("sep");
  reader.finish();
  if (separator.empty()) fail("empty separator");
  const std::string& text = self_text(in, self);
  const std::size_t at = FromRight ? text.rfind(separator) : text.find(separator);
  if (at == std::string::npos) {
    return FromRight ? Value::tuple({Value(""), Value(""), self})
                     : Value::tuple({self, Value(""), Value("")});
  }
  return Value::tuple(
      {Value(text.substr(0, at)), Value(separator), Value(text.substr(at + separator.size()))});
}

// The affixes to try: a text, or a tuple of them.
std::vector<std::string> affixes(const Value& value) {
  if (value.is_undefined()) fail(value.undefined_reason());
  if (value.is_string()) return {value.string()};
  const Sequence* tuple = value.sequence();
  if (tuple == nullptr || tuple->form != Sequence::Form::kTuple) {
    fail("first arg must be str or a tuple of str, not ", value.type_name());
  }
  std::vector<std::string> out;
  for (const Value& item : tuple->items) {
    if (!item.is_string()) fail("a tuple of str is wanted, it holds ", item.type_name());
    out.push_back(item.string());
  }
  return out;
}

template <bool AtEnd>
Value has_affix(Interpreter& in, const Value& self, const Arguments& arguments) {
  ArgumentReader reader(AtEnd ? "endswith" : "startswith", arguments);
  const std::vector<std::string> wanted = affixes(reader.required("prefix"));
  reader.finish();
  in.budget().steps(wanted.size());
  const absl::string_view text = self.string();
  return Value(std::any_of(wanted.begin(), wanted.end(), [&](const std::string& affix) {
    if (affix.size() > text.size()) return false;
    return text.substr(AtEnd ? text.size() - affix.size() : 0, affix.size()) == affix;
  }));
}

template <bool AtEnd>
Value remove_affix(Interpreter& in, const Value& self, const Arguments& arguments) {
  ArgumentReader reader(AtEnd ? "removesuffix" : "removeprefix", arguments);
  const std::string affix = reader.required_text("affix");
  reader.finish();
  const std::string& text = self_text(in, self);
  if (affix.size() > text.size()) return self;
  const std::size_t at = AtEnd ? text.size() - affix.size() : 0;
  if (text.compare(at, affix.size(), affix) != 0) return self;
  return Value(AtEnd ? text.substr(0, at) : text.substr(affix.size()));
}

Value replace_method(Interpreter& in, const Value& self, const Arguments& arguments) {
  ArgumentReader reader("replace", arguments);
  const std::string from = reader.required_text("old");
  const std::string to = reader.required_text("new");
  const std::int64_t count = reader.integer("count", -1);
  reader.finish();
  const std::string& text = self_text(in, self);
  in.budget().text(replaced_size(text, from, to));
  return Value(replace(text, from, to, count));
}

enum class Search { kFind, kFindLast, kIndex };

template <Search How>
Value find_method_of_text(Interpreter& in, const Value& self, const Arguments& arguments) {
  ArgumentReader reader("find", arguments);
  const std::string part = reader.required_text("sub");
  reader.finish();
  const std::string& text = self_text(in, self);
  const std::size_t at = How == Search::kFindLast ? text.rfind(part) : text.find(part);
  if (at != std::string::npos) {
    return Value::integer(num_characters(absl::string_view(text).substr(0, at)));
  }
  if (How == Search::kIndex) fail("substring not found");
  return Value(std::int64_t{-1});
}

Value count_in_text(Interpreter& in, const Value& self, const Arguments& arguments) {
  ArgumentReader reader("count", arguments);
  const std::string part = reader.required_text("sub");
  reader.finish();
  const std::string& text = self_text(in, self);
  if (part.empty()) return Value::integer(num_characters(text) + 1);
  std::size_t count = 0;
  for (std::size_t at = text.find(part); at != std::string::npos;
       at = text.find(part, at + part.size())) {
    ++count;
  }
  return Value::integer(count);
}

template <CharacterKind Kind>
Value is_kind(Interpreter& in, const Value& self, const Arguments& arguments) {
  ArgumentReader("method", arguments).finish();
  return Value(all_of_kind(self_text(in, self), Kind));
}

template <Side Where>
Value justify(Interpreter& in, const Value& self, const Arguments& arguments) {
  ArgumentReader reader("justify", arguments);
  const std::int64_t width = reader.integer("width", 0);
  const std::string fill = reader.text("fillchar", " ");
  reader.finish();
  if (num_characters(fill) != 1) fail("the fill character must be exactly one character long");
  const auto wanted = static_cast<std::size_t>(std::max<std::int64_t>(width, 0));
  in.budget().text(std::min(wanted, kMaxTextBytes + 1) * fill.size());
  return Value(pad(self_text(in, self), width, fill, Where));
}

Value zfill(Interpreter& in, const Value& self, const Arguments& arguments) {
  ArgumentReader reader("zfill", arguments);
  const std::int64_t width = reader.integer("width", 0);
  reader.finish();
  in.budget().text(static_cast<std::size_t>(std::max<std::int64_t>(width, 0)));
  const std::string& text = self_text(in, self);
  const bool sign = !text.empty() && (text[0] == '-' || text[0] == '+');
  return Value(text.substr(0, sign ? 1 : 0) +
               pad(text.substr(sign ? 1 : 0), width - (sign ? 1 : 0), "0", Side::kRight));
}

Value join_method(Interpreter& in, const Value& self, const Arguments& arguments) {
  ArgumentReader reader("join", arguments);
  const Value iterable = reader.required("iterable");
  reader.finish();
  std::string out;
  bool first = true;
  const auto items = items_of(in.budget(), iterable);
  for (const Value& item : *items) {
    if (!item.is_string())
      fail("sequence item: expected str instance, ", item.type_name(), " found");
    if (!first) out += self.string();
    first = false;
    out += item.string();
    in.budget().text(out.size());
  }
  return Value(std::move(out));
}

Value format_method(Interpreter& in, const Value& self, const Arguments& arguments) {
  return Value(format_text(in.budget(), self_text(in, self), arguments));
}

constexpr NamedFunction kTextMethods[] = {
    {"capitalize", change<capitalize>},
    {"center", justify<Side::kBoth>},
    {"count", count_in_text},
    {"endswith", has_affix<true>},
    {"find", find_method_of_text<Search::kFind>},
    {"format", format_method},
    {"index", find_method_of_text<Search::kIndex>},
    {"isalnum", is_kind<CharacterKind::kLetterOrNumber>},
    {"isalpha", is_kind<CharacterKind::kLetter>},
    {"isdecimal", is_kind<CharacterKind::kDigit>},
    {"isdigit", is_kind<CharacterKind::kDigit>},
    {"islower", is_kind<CharacterKind::kLower>},
    {"isspace", is_kind<CharacterKind::kSpace>},
    {"isupper", is_kind<CharacterKind::kUpper>},
    {"join", join_method},
    {"ljust", justify<Side::kLeft>},
    {"lower", change<lower>},
    {"lstrip", strip_method<Side::kLeft>},
    {"partition", partition<false>},
    {"removeprefix", remove_affix<false>},
    {"removesuffix", remove_affix<true>},
    {"replace", replace_method},
    {"rfind", find_method_of_text<Search::kFindLast>},
    {"rjust", justify<Side::kRight>},
    {"rpartition", partition<true>},
    {"rsplit", split_method<true>},
    {"rstrip", strip_method<Side::kRight>},
    {"split", split_method<false>},
    {"splitlines", splitlines},
    {"startswith", has_affix<false>},
    {"strip", strip_method<Side::kBoth>},
    {"title", change<title>},
    {"upper", change<upper>},
    {"zfill", zfill},
};

Value get(Interpreter&, const Value& self, const Arguments& arguments) {
  ArgumentReader reader("get", arguments);
  const Value key = reader.required("key");
  Value otherwise = reader.take("default", Value::none());
  reader.finish();
  const Value* found = self.dict()->find(key);
  return found != nullptr ? *found : std::move(otherwise);
}

enum class Part { kKeys, kValues, kItems };

template <Part Which>
Value parts_of_dict(Interpreter& in, const Value& self, const Arguments& arguments) {
  ArgumentReader("method", arguments).finish();
  in.budget().steps(self.dict()->entries.size());
  std::vector<Value> out;
  for (const auto& [key, value] : self.dict()->entries) {
    out.push_back(Which == Part::kKeys     ? key
                  : Which == Part::kValues ? value
                                           : Value::tuple({key, value}));
  }
  return Value::view(std::move(out));
}

Value copy(Interpreter&, const Value& self, const Arguments& arguments) {
  ArgumentReader("copy", arguments).finish();
  return self;
}

constexpr NamedFunction kDictMethods[] = {
    {"copy", copy},
    {"get", get},
    {"items", parts_of_dict<Part::kItems>},
    {"keys", parts_of_dict<Part::kKeys>},
    {"values", parts_of_dict<Part::kValues>},
};

Value count_in_list(Interpreter& in, const Value& self, const Arguments& arguments) {
  ArgumentReader reader("count", arguments);
  const Value wanted = reader.required("value");
  reader.finish();
  const auto& items = self.sequence()->items;
  return Value::integer(
      static_cast<std::size_t>(std::count_if(items.begin(), items.end(), [&](const Value& item) {
        return equal(in.budget(), item, wanted);
      })));
}

Value index_in_list(Interpreter& in, const Value& self, const Arguments& arguments) {
  ArgumentReader reader("index", arguments);
  const Value wanted = reader.required("value");
  reader.finish();
  const auto& items = self.sequence()->items;
  for (std::size_t i = 0; i < items.size(); ++i) {
    if (equal(in.budget(), items[i], wanted)) return Value::integer(i);
  }
  fail("the value is not in the list");
}

constexpr NamedFunction kListMethods[] = {
    {"copy", copy},
    {"count", count_in_list},
    {"index", index_in_list},
};

constexpr const char* kListChanges[] = {"append", "clear",  "extend",  "insert",
                                        "pop",    "remove", "reverse", "sort"};
constexpr const char* kDictChanges[] = {"clear", "pop", "popitem", "setdefault", "update"};

Function find(absl::Span<const NamedFunction> table, absl::string_view name) {
  for (const NamedFunction& row : table) {
    if (name == row.name) return row.run;
  }
  return nullptr;
}

void refuse_change(const Value& value, absl::Span<const char* const> names,
                   absl::string_view name) {
  for (const char* change : names) {
    if (name == change) {
      fail("access to attribute '", name, "' of '", value.type_name(), "' object is unsafe.");
    }
  }
}

}  // namespace

Function find_method(const Value& value, absl::string_view name) {
  if (value.is_string()) return find(kTextMethods, name);
  if (value.dict() != nullptr) {
    if (const Function method = find(kDictMethods, name)) return method;
    refuse_change(value, kDictChanges, name);
    return nullptr;
  }
  const Sequence* sequence = value.sequence();
  if (sequence == nullptr || !sequence->indexed()) return nullptr;
  if (sequence->form == Sequence::Form::kList) refuse_change(value, kListChanges, name);
  return find(kListMethods, name);
}

}  // namespace quire::jinja

// Look-up of filters and tests, and the global functions.
#include "coordinator/text/jinja/builtins.h"

#include <ctime>

#include "absl/container/flat_hash_map.h"
#include "coordinator/text/jinja/arguments.h"
#include "coordinator/text/jinja/filter_tables.h"
#include "coordinator/text/jinja/interpreter.h"

namespace quire::jinja {
namespace {

using Table = absl::flat_hash_map<absl::string_view, Function>;

Function look_up(const Table& table, absl::string_view name) {
  const auto it = table.find(name);
  return it == table.end() ? nullptr : it->second;
}

Table join_tables(std::initializer_list<absl::Span<const NamedFunction>> tables) {
  Table joined;
  for (const auto& table : tables) {
    for (const NamedFunction& row : table) joined[row.name] = row.run;
  }
  return joined;
}

constexpr std::int64_t kMaxRange = 100'000;  // as Jinja's sandbox

Value range(Interpreter& in, const Arguments& arguments) {
  ArgumentReader reader("range", arguments);
  std::int64_t begin = 0;
  std::int64_t end = 0;
  std::int64_t step = 1;
  for (const Value& value : arguments.positional) {
    if (!value.is_integral()) {
      fail("'", value.type_name(), "' object cannot be interpreted as an integer");
    }
  }
  if (arguments.positional.size() < 2) {
    end = reader.integer("stop", 0);
  } else {
    begin = reader.integer("start", 0);
    end = reader.integer("stop", 0);
    step = reader.integer("step", 1);
  }
  reader.finish();
  if (step == 0) fail("range() arg 3 must not be zero");
  std::vector<Value> items;
  for (std::int64_t i = begin; step > 0 ? i < end : i > end;) {
    if (static_cast<std::int64_t>(items.size()) >= kMaxRange) {
      fail("range() gives more than ", kMaxRange, " numbers");
    }
    items.emplace_back(i);
    if (__builtin_add_overflow(i, step, &i)) break;
  }
  in.budget().steps(items.size());
  return Value::list(std::move(items));
}

// dict(pairs or mapping, name=value, ...).
std::vector<std::pair<Value, Value>> read_pairs(Interpreter& in, const Arguments& arguments) {
  std::vector<std::pair<Value, Value>> pairs;
  if (arguments.positional.size() > 1) fail("dict expected at most 1 positional argument");
  if (!arguments.positional.empty()) {
    const Value& source = arguments.positional[0];
    if (const Dict* dict = source.dict()) {
      pairs = dict->entries;
    } else {
      const auto source_items = items_of(in.budget(), source);
      for (const Value& pair : *source_items) {
        const auto halves = items_of(in.budget(), pair);
        if (halves->size() != 2) fail("dict() wants pairs, one has ", halves->size(), " items");
        pairs.emplace_back((*halves)[0], (*halves)[1]);
      }
    }
  }
  for (const auto& [name, value] : arguments.named) pairs.emplace_back(Value(name), value);
  in.budget().steps(pairs.size());
  return pairs;
}

Value dict(Interpreter& in, const Arguments& arguments) {
  auto out = std::make_shared<Dict>();
  for (auto& [key, value] : read_pairs(in, arguments)) out->set(key, value);
  return Value(std::shared_ptr<const Dict>(std::move(out)));
}

Value name_space(Interpreter& in, const Arguments& arguments) {
  auto out = in.make_namespace();
  for (auto& [key, value] : read_pairs(in, arguments)) {
    if (!key.is_string()) fail("namespace() wants texts as names");
    out->attributes[key.string()] = value;
  }
  return Value(std::move(out));
}

Value raise_exception(Interpreter& in, const Arguments& arguments) {
  ArgumentReader reader("raise_exception", arguments);
  const std::string message = to_text(in.budget(), reader.required("message"));
  reader.finish();
  throw RaisedByTemplate(message);
}

// Universal time: the same text wherever the request is rendered.
Value strftime_now(Interpreter& in, const Arguments& arguments) {
  ArgumentReader reader("strftime_now", arguments);
  const std::string format = reader.required_text("format");
  reader.finish();
  if (format.empty() || format.size() > 256) fail("strftime_now() wants 1 to 256 characters");
  const auto seconds = static_cast<std::time_t>(in.now());
  std::tm parts{};
  gmtime_r(&seconds, &parts);
  char buffer[4096];
  const std::size_t size = std::strftime(buffer, sizeof(buffer), format.c_str(), &parts);
  return Value(std::string(buffer, size));
}

}  // namespace

Function find_filter(absl::string_view name) {
  static const Table table = join_tables({text_filters(), value_filters(), list_filters()});
  return look_up(table, name);
}

Function find_test(absl::string_view name) {
  static const Table table = join_tables({tests()});
  return look_up(table, name);
}

const std::vector<Global>& globals() {
  static const std::vector<Global> table = {{"dict", dict},
                                            {"namespace", name_space},
                                            {"raise_exception", raise_exception},
                                            {"range", range},
                                            {"strftime_now", strftime_now}};
  return table;
}

}  // namespace quire::jinja

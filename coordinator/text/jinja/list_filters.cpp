// Filters over lists and dicts: picking, mapping, sorting, joining.
#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "coordinator/text/jinja/arguments.h"
#include "coordinator/text/jinja/filter_tables.h"
#include "coordinator/text/jinja/interpreter.h"
#include "coordinator/text/jinja/operators.h"
#include "coordinator/text/jinja/strings.h"

namespace quire::jinja {
namespace {

// "a.b.0": keys to look up one after the other.
std::vector<Value> attribute_path(const Value& attribute) {
  if (!attribute.is_string()) return {attribute};
  std::vector<Value> path;
  for (const absl::string_view part : absl::StrSplit(attribute.string(), '.')) {
    std::int64_t index = 0;
    const bool digits = !part.empty() && std::all_of(part.begin(), part.end(), [](char c) {
      return absl::ascii_isdigit(static_cast<unsigned char>(c));
    });
    path.push_back(digits && absl::SimpleAtoi(part, &index) ? Value(index) : Value(part));
  }
  return path;
}

Value follow(Interpreter& in, Value value, const std::vector<Value>& path) {
  in.budget().steps();
  for (const Value& key : path) value = in.item(value, key);
  return value;
}

// What sorting and comparing looks at: an attribute, without regard to case.
struct Key {
  std::vector<Value> path;
  bool case_sensitive = false;

  Value of(Interpreter& in, const Value& item) const {
    Value value = path.empty() ? item : follow(in, item, path);
    if (case_sensitive || !value.is_string()) return value;
    in.budget().text(value.string().size());
    return Value(lower(value.string()));
  }
};

Key read_key(ArgumentReader& reader, bool attribute_first) {
  Key key;
  Value attribute;
  if (attribute_first) attribute = reader.take("attribute", Value::none());
  key.case_sensitive = reader.flag("case_sensitive", false);
  if (!attribute_first) attribute = reader.take("attribute", Value::none());
  if (!attribute.is_none()) key.path = attribute_path(attribute);
  return key;
}

std::vector<std::pair<Value, Value>> keyed(Interpreter& in, const Value& subject, const Key& key) {
  std::vector<std::pair<Value, Value>> out;
  const auto items = items_of(in.budget(), subject);
  for (const Value& item : *items) {
    out.emplace_back(key.of(in, item), item);
  }
  return out;
}

void sort_keyed(Interpreter& in, std::vector<std::pair<Value, Value>>* items, bool reverse) {
  std::stable_sort(items->begin(), items->end(), [&](const auto& a, const auto& b) {
    return reverse ? order(in.budget(), b.first, a.first) < 0
                   : order(in.budget(), a.first, b.first) < 0;
  });
}

Value sort(Interpreter& in, const Value& subject, const Arguments& arguments) {
  ArgumentReader reader("sort", arguments);
  const bool reverse = reader.flag("reverse", false);
  const Key key = read_key(reader, false);
  reader.finish();
  auto items = keyed(in, subject, key);
  sort_keyed(in, &items, reverse);
  std::vector<Value> out;
  for (auto& item : items) out.push_back(std::move(item.second));
  return Value::list(std::move(out));
}

Value dictsort(Interpreter& in, const Value& subject, const Arguments& arguments) {
  ArgumentReader reader("dictsort", arguments);
  Key key;
  key.case_sensitive = reader.flag("case_sensitive", false);
  const std::string by = reader.text("by", "key");
  const bool reverse = reader.flag("reverse", false);
  reader.finish();
  if (by != "key" && by != "value") fail("dictsort() sorts by key or by value");
  if (subject.is_undefined()) fail(subject.undefined_reason());
  if (subject.dict() == nullptr) fail("dictsort() wants a dict, not ", subject.type_name());
  std::vector<std::pair<Value, Value>> items;
  for (const auto& [name, value] : subject.dict()->entries) {
    items.emplace_back(key.of(in, by == "key" ? name : value), Value::tuple({name, value}));
  }
  sort_keyed(in, &items, reverse);
  std::vector<Value> out;
  for (auto& item : items) out.push_back(std::move(item.second));
  return Value::list(std::move(out));
}

Value unique(Interpreter& in, const Value& subject, const Arguments& arguments) {
  ArgumentReader reader("unique", arguments);
  const Key key = read_key(reader, false);
  reader.finish();
  Dict seen;
  std::vector<Value> out;
  for (auto& [value, item] : keyed(in, subject, key)) {
    if (seen.find(value) != nullptr) continue;
    seen.set(value, Value(true));
    out.push_back(item);
  }
  return Value::generator(std::move(out));
}

Value extreme(Interpreter& in, const Value& subject, const Arguments& arguments, bool largest) {
  ArgumentReader reader(largest ? "max" : "min", arguments);
  const Key key = read_key(reader, false);
  reader.finish();
  const auto items = keyed(in, subject, key);
  if (items.empty()) return Value::undefined("No aggregated item, sequence was empty.");
  const std::pair<Value, Value>* best = &items[0];
  for (const auto& item : items) {
    const int difference = order(in.budget(), item.first, best->first);
    if (largest ? difference > 0 : difference < 0) best = &item;
  }
  return best->second;
}

Value min_filter(Interpreter& in, const Value& subject, const Arguments& arguments) {
  return extreme(in, subject, arguments, false);
}

Value max_filter(Interpreter& in, const Value& subject, const Arguments& arguments) {
  return extreme(in, subject, arguments, true);
}

Value groupby(Interpreter& in, const Value& subject, const Arguments& arguments) {
  ArgumentReader reader("groupby", arguments);
  Key key;
  key.path = attribute_path(reader.required("attribute"));
  key.case_sensitive = true;
  reader.finish();
  auto items = keyed(in, subject, key);
  sort_keyed(in, &items, false);
  std::vector<Value> groups;
  for (std::size_t i = 0; i < items.size();) {
    std::vector<Value> group;
    const std::size_t first = i;
    while (i < items.size() && equal(in.budget(), items[i].first, items[first].first)) {
      group.push_back(items[i++].second);
    }
    groups.push_back(Value::tuple({items[first].first, Value::list(std::move(group))}));
    if (i == first) ++i;  // a value that does not equal itself
  }
  return Value::list(std::move(groups));
}

Value join(Interpreter& in, const Value& subject, const Arguments& arguments) {
  ArgumentReader reader("join", arguments);
  const std::string separator = to_text(in.budget(), reader.take("d", Value("")));
  const Value attribute = reader.take("attribute", Value::none());
  reader.finish();
  const std::vector<Value> path =
      attribute.is_none() ? std::vector<Value>() : attribute_path(attribute);
  std::string out;
  bool first = true;
  const auto items = items_of(in.budget(), subject);
  for (const Value& item : *items) {
    if (!first) out += separator;
    first = false;
    out += to_text(in.budget(), path.empty() ? item : follow(in, item, path));
    in.budget().text(out.size());
  }
  return Value(std::move(out));
}

Value list(Interpreter& in, const Value& subject, const Arguments& arguments) {
  ArgumentReader("list", arguments).finish();
  return Value::list(*items_of(in.budget(), subject));
}

Value first(Interpreter& in, const Value& subject, const Arguments& arguments) {
  ArgumentReader("first", arguments).finish();
  const Sequence* sequence = subject.sequence();
  if (sequence != nullptr && sequence->form == Sequence::Form::kGenerator) {
    if (sequence->taken >= sequence->items.size()) return Value::undefined("No first item");
    return sequence->items[sequence->taken++];
  }
  const auto items = items_of(in.budget(), subject);
  return items->empty() ? Value::undefined("No first item, sequence was empty.") : items->front();
}

Value last(Interpreter& in, const Value& subject, const Arguments& arguments) {
  ArgumentReader("last", arguments).finish();
  const Sequence* sequence = subject.sequence();
  if (sequence != nullptr && sequence->form == Sequence::Form::kGenerator) {
    fail("'generator' object is not reversible");
  }
  const auto items = items_of(in.budget(), subject);
  return items->empty() ? Value::undefined("No last item, sequence was empty.") : items->back();
}

Value reverse(Interpreter& in, const Value& subject, const Arguments& arguments) {
  ArgumentReader("reverse", arguments).finish();
  const auto items = items_of(in.budget(), subject);
  if (!subject.is_string()) return Value::generator({items->rbegin(), items->rend()});
  std::string out;
  for (auto item = items->rbegin(); item != items->rend(); ++item) out += item->string();
  return Value(std::move(out));
}

Value sum(Interpreter& in, const Value& subject, const Arguments& arguments) {
  ArgumentReader reader("sum", arguments);
  const Value attribute = reader.take("attribute", Value::none());
  Value total = reader.take("start", Value(std::int64_t{0}));
  reader.finish();
  const std::vector<Value> path =
      attribute.is_none() ? std::vector<Value>() : attribute_path(attribute);
  const auto items = items_of(in.budget(), subject);
  for (const Value& item : *items) {
    total = arithmetic(in.budget(), "+", total, path.empty() ? item : follow(in, item, path));
  }
  return total;
}

Value batch(Interpreter& in, const Value& subject, const Arguments& arguments) {
  ArgumentReader reader("batch", arguments);
  const std::int64_t size = reader.integer("linecount", 0);
  const Value* fill = reader.take("fill_with");
  reader.finish();
  if (size < 1) fail("batch() wants a size of at least 1");
  std::vector<Value> batches;
  std::vector<Value> current;
  const auto full = static_cast<std::size_t>(size);
  const auto items = items_of(in.budget(), subject);
  for (const Value& item : *items) {
    if (current.size() == full) batches.push_back(Value::list(std::exchange(current, {})));
    current.push_back(item);
  }
  if (!current.empty()) {
    if (fill != nullptr && !fill->is_none() && current.size() < full) {
      in.budget().steps(full);
      current.resize(full, *fill);
    }
    batches.push_back(Value::list(std::move(current)));
  }
  return Value::generator(std::move(batches));
}

// map(attribute="a", default=x), or map("filter", arguments...).
Value map(Interpreter& in, const Value& subject, const Arguments& arguments) {
  if (!subject.truthy()) return Value::generator({});  // None too, as in Jinja
  const auto items = items_of(in.budget(), subject);
  std::vector<Value> out;
  if (arguments.positional.empty()) {
    ArgumentReader reader("map", arguments);
    const std::vector<Value> path = attribute_path(reader.required("attribute"));
    const Value* otherwise = reader.take("default");
    reader.finish();
    for (const Value& item : *items) {
      Value value = follow(in, item, path);
      out.push_back(value.is_undefined() && otherwise != nullptr ? *otherwise : std::move(value));
    }
    return Value::generator(std::move(out));
  }
  if (!arguments.positional[0].is_string()) fail("map() wants the name of a filter");
  Arguments rest = arguments;
  rest.positional.erase(rest.positional.begin());
  for (const Value& item : *items) {
    in.budget().steps();
    out.push_back(in.filter(arguments.positional[0].string(), item, rest));
  }
  return Value::generator(std::move(out));
}

// select, reject, selectattr and rejectattr: the items, or one attribute of each, put to a test.
Value pick(Interpreter& in, const Value& subject, const Arguments& arguments, bool by_attribute,
           bool wanted) {
  if (!subject.truthy()) return Value::generator({});  // None too, as in Jinja
  const auto items = items_of(in.budget(), subject);
  Arguments rest = arguments;
  std::vector<Value> path;
  if (by_attribute) {
    if (rest.positional.empty()) fail("selectattr() and rejectattr() want an attribute");
    path = attribute_path(rest.positional[0]);
    rest.positional.erase(rest.positional.begin());
  }
  std::string test;
  if (!rest.positional.empty()) {
    if (!rest.positional[0].is_string()) fail("the name of a test should be a text");
    test = rest.positional[0].string();
    rest.positional.erase(rest.positional.begin());
  }
  std::vector<Value> out;
  for (const Value& item : *items) {
    in.budget().steps();
    const Value value = by_attribute ? follow(in, item, path) : item;
    if ((test.empty() ? value.truthy() : in.test(test, value, rest)) == wanted) out.push_back(item);
  }
  return Value::generator(std::move(out));
}

template <bool ByAttribute, bool Wanted>
Value pick_filter(Interpreter& in, const Value& subject, const Arguments& arguments) {
  return pick(in, subject, arguments, ByAttribute, Wanted);
}

constexpr NamedFunction kFilters[] = {
    {"batch", batch},
    {"dictsort", dictsort},
    {"first", first},
    {"groupby", groupby},
    {"join", join},
    {"last", last},
    {"list", list},
    {"map", map},
    {"max", max_filter},
    {"min", min_filter},
    {"reject", pick_filter<false, false>},
    {"rejectattr", pick_filter<true, false>},
    {"reverse", reverse},
    {"select", pick_filter<false, true>},
    {"selectattr", pick_filter<true, true>},
    {"sort", sort},
    {"sum", sum},
    {"unique", unique},
};

}  // namespace

absl::Span<const NamedFunction> list_filters() {
  return kFilters;
}

}  // namespace quire::jinja

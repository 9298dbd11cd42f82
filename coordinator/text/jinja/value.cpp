// Construction and inspection of values; see value.h.
#include "coordinator/text/jinja/value.h"

#include <algorithm>
#include <cmath>

#include "common/utf8.h"
#include "nlohmann/json.hpp"

namespace quire::jinja {
namespace {

Value make_sequence(Sequence::Form form, std::vector<Value> items) {
  auto sequence = std::make_shared<Sequence>();
  sequence->form = form;
  sequence->nesting = nesting_over(deepest_nesting(items));
  sequence->items = std::move(items);
  return Value(std::shared_ptr<const Sequence>(std::move(sequence)));
}

// Equal keys have equal texts. Fails for what Python cannot hash.
void append_key(const Value& key, std::string* out) {
  if (key.is_string()) {
    absl::StrAppend(out, "s", key.string().size(), ":", key.string());
  } else if (key.is_integral()) {
    absl::StrAppend(out, "n", key.as_integer(), ";");
  } else if (key.is_number()) {
    const double number = key.as_double();
    if (std::floor(number) == number && std::abs(number) < 9e18) {
      absl::StrAppend(out, "n", static_cast<std::int64_t>(number), ";");
    } else {
      absl::StrAppend(out, "f", number, ";");
    }
  } else if (key.is_none()) {
    out->append("0");
  } else if (key.sequence() != nullptr && key.sequence()->form == Sequence::Form::kTuple) {
    out->append("(");
    for (const Value& item : key.sequence()->items) append_key(item, out);
    out->append(")");
    if (out->size() > kMaxTextBytes) fail("a dict key is too long");
  } else if (key.is_undefined()) {
    out->append("u");
  } else {
    fail("unhashable type: '", key.type_name(), "'");
  }
}

std::string key_text(const Value& key) {
  std::string text;
  append_key(key, &text);
  return text;
}

}  // namespace

int nesting_over(int deepest) {
  if (deepest >= kMaxNesting) fail("values are nested more than ", kMaxNesting, " deep");
  return deepest + 1;
}

int deepest_nesting(const std::vector<Value>& values) {
  int deepest = 0;
  for (const Value& value : values) deepest = std::max(deepest, value.nesting());
  return deepest;
}

Value Value::none() {
  Value value;
  value.data_ = None{};
  return value;
}

Value Value::undefined(std::string reason) {
  Value value;
  value.data_ = Undefined{std::make_shared<const std::string>(std::move(reason))};
  return value;
}

Value Value::markup(std::string text) {
  Value value(std::move(text));
  value.markup_ = true;
  return value;
}

Value Value::list(std::vector<Value> items) {
  return make_sequence(Sequence::Form::kList, std::move(items));
}

Value Value::tuple(std::vector<Value> items) {
  return make_sequence(Sequence::Form::kTuple, std::move(items));
}

Value Value::generator(std::vector<Value> items) {
  return make_sequence(Sequence::Form::kGenerator, std::move(items));
}

Value Value::view(std::vector<Value> items) {
  return make_sequence(Sequence::Form::kView, std::move(items));
}

Value Value::function(std::string name, std::function<Value(Interpreter&, const Arguments&)> run,
                      int nesting) {
  return Value(
      std::shared_ptr<const Callable>(new Callable{std::move(name), std::move(run), nesting}));
}

Value Value::from_json(const nlohmann::ordered_json& json) {
  switch (json.type()) {
    case nlohmann::ordered_json::value_t::boolean:
      return Value(json.get<bool>());
    case nlohmann::ordered_json::value_t::number_integer:
      return Value(json.get<std::int64_t>());
    case nlohmann::ordered_json::value_t::number_unsigned:
      if (const auto number = json.get<std::uint64_t>(); number <= INT64_MAX) {
        return Value(static_cast<std::int64_t>(number));
      }
      return Value(json.get<double>());
    case nlohmann::ordered_json::value_t::number_float:
      return Value(json.get<double>());
    case nlohmann::ordered_json::value_t::string:
      return Value(json.get<std::string>());
    case nlohmann::ordered_json::value_t::array: {
      std::vector<Value> items;
      items.reserve(json.size());
      for (const auto& item : json) items.push_back(from_json(item));
      return list(std::move(items));
    }
    case nlohmann::ordered_json::value_t::object: {
      auto dict = std::make_shared<Dict>();
      for (const auto& [key, item] : json.items()) dict->set(Value(key), from_json(item));
      return Value(std::shared_ptr<const Dict>(std::move(dict)));
    }
    default:
      return none();
  }
}

std::int64_t Value::as_integer() const {
  const bool* flag = get_if<bool>();
  return flag != nullptr ? static_cast<std::int64_t>(*flag) : std::get<std::int64_t>(data_);
}

double Value::as_double() const {
  const double* number = get_if<double>();
  return number != nullptr ? *number : static_cast<double>(as_integer());
}

const Sequence* Value::sequence() const {
  const auto* pointer = get_if<std::shared_ptr<const Sequence>>();
  return pointer == nullptr ? nullptr : pointer->get();
}

const Dict* Value::dict() const {
  const auto* pointer = get_if<std::shared_ptr<const Dict>>();
  return pointer == nullptr ? nullptr : pointer->get();
}

std::shared_ptr<Namespace> Value::name_space() const {
  const auto* pointer = get_if<std::shared_ptr<Namespace>>();
  return pointer == nullptr ? nullptr : *pointer;
}

const LoopState* Value::loop() const {
  const auto* pointer = get_if<std::shared_ptr<const LoopState>>();
  return pointer == nullptr ? nullptr : pointer->get();
}

std::shared_ptr<const Callable> Value::callable() const {
  const auto* pointer = get_if<std::shared_ptr<const Callable>>();
  return pointer == nullptr ? nullptr : *pointer;
}

bool Value::truthy() const {
  if (is_undefined() || is_none()) return false;
  if (is_integral()) return as_integer() != 0;
  if (is_number()) return as_double() != 0.0;
  if (is_string()) return !string().empty();
  if (const Sequence* s = sequence())
    return s->form == Sequence::Form::kGenerator || !s->items.empty();
  if (const Dict* d = dict()) return !d->entries.empty();
  return true;
}

int Value::nesting() const {
  if (const Sequence* s = sequence()) return s->nesting;
  if (const Dict* d = dict()) return d->nesting;
  if (const LoopState* l = loop()) return l->nesting;
  if (const auto c = callable()) return c->nesting;
  return 0;
}

const char* Value::type_name() const {
  if (is_undefined()) return "Undefined";
  if (is_none()) return "NoneType";
  if (is<bool>()) return "bool";
  if (is<std::int64_t>()) return "int";
  if (is<double>()) return "float";
  if (is_string()) return "str";
  if (dict() != nullptr) return "dict";
  if (const Sequence* s = sequence()) {
    if (s->form == Sequence::Form::kList) return "list";
    if (s->form == Sequence::Form::kTuple) return "tuple";
    return s->form == Sequence::Form::kView ? "dict_view" : "generator";
  }
  if (name_space() != nullptr) return "Namespace";
  return loop() != nullptr ? "LoopContext" : "function";
}

const std::string& Value::undefined_reason() const {
  static const std::string plain = "the value is undefined";
  const auto& reason = std::get<Undefined>(data_).reason;
  return reason == nullptr ? plain : *reason;
}

void Dict::set(Value key, Value value) {
  nesting = std::max(nesting, nesting_over(std::max(key.nesting(), value.nesting())));
  const auto [it, is_new] = index_.try_emplace(key_text(key), entries.size());
  if (is_new) {
    entries.emplace_back(std::move(key), std::move(value));
  } else {
    entries[it->second].second = std::move(value);
  }
}

const Value* Dict::find(const Value& key) const {
  const auto it = index_.find(key_text(key));
  return it == index_.end() ? nullptr : &entries[it->second].second;
}

std::shared_ptr<const std::vector<Value>> items_of(Budget& budget, const Value& value) {
  if (const auto* pointer = value.get_if<std::shared_ptr<const Sequence>>()) {
    const Sequence& sequence = **pointer;
    budget.steps(sequence.items.size());
    if (sequence.form != Sequence::Form::kGenerator || sequence.taken == 0) {
      sequence.taken = sequence.items.size();
      return {*pointer, &sequence.items};
    }
    const auto begin = sequence.items.begin() + static_cast<std::ptrdiff_t>(sequence.taken);
    sequence.taken = sequence.items.size();
    return std::make_shared<const std::vector<Value>>(begin, sequence.items.end());
  }
  std::vector<Value> items;
  if (const Dict* dict = value.dict()) {
    budget.steps(dict->entries.size());
    for (const auto& entry : dict->entries) items.push_back(entry.first);
  } else if (value.is_string()) {
    absl::string_view text = value.string();
    budget.steps(text.size());
    while (!text.empty()) {
      const auto size = static_cast<std::size_t>(std::max(utf8::decode(text).size, 1));
      items.emplace_back(text.substr(0, size));
      text.remove_prefix(size);
    }
  } else if (!value.is_undefined()) {
    fail("'", value.type_name(), "' object is not iterable");
  }
  return std::make_shared<const std::vector<Value>>(std::move(items));
}

}  // namespace quire::jinja

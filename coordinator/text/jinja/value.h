// The values of a template: Python's, as far as templates see them. Values are immutable and shared
// by pointer, except namespaces. A list or dict is nested at most kMaxNesting deep, so recursive
// work over it is bounded in depth (and by the Budget in width).
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/string_view.h"
#include "coordinator/text/jinja/budget.h"
#include "nlohmann/json_fwd.hpp"

namespace quire::jinja {

class Interpreter;
class Value;
struct Callable;
struct Dict;
struct LoopState;
struct Namespace;
struct Sequence;

struct Arguments {
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> named;
};

class Value {
 public:
  struct None {};
  // Prints as nothing and iterates as empty; any other use fails with this reason.
  struct Undefined {
    std::shared_ptr<const std::string> reason;
  };

  Value() = default;  // undefined
  Value(bool value) : data_(value) {}
  Value(std::int64_t value) : data_(value) {}
  Value(double value) : data_(value) {}
  Value(std::string text) : data_(std::make_shared<const std::string>(std::move(text))) {}
  Value(absl::string_view text) : Value(std::string(text)) {}
  Value(const char* text) : Value(std::string(text)) {}
  Value(std::shared_ptr<const Sequence> value) : data_(std::move(value)) {}
  Value(std::shared_ptr<const Dict> value) : data_(std::move(value)) {}
  Value(std::shared_ptr<Namespace> value) : data_(std::move(value)) {}
  Value(std::shared_ptr<const LoopState> value) : data_(std::move(value)) {}
  Value(std::shared_ptr<const Callable> value) : data_(std::move(value)) {}
  static Value none();
  static Value undefined(std::string reason);
  // A text marked as safe (`|safe`, `|e`): adding plain text to it escapes that text as HTML.
  static Value markup(std::string text);
  static Value integer(std::size_t value) { return Value(static_cast<std::int64_t>(value)); }
  static Value list(std::vector<Value> items);
  static Value tuple(std::vector<Value> items);
  static Value generator(std::vector<Value> items);
  static Value view(std::vector<Value> items);
  // `nesting`: of the deepest value that `run` holds.
  static Value function(std::string name, std::function<Value(Interpreter&, const Arguments&)> run,
                        int nesting = 0);
  static Value from_json(const nlohmann::ordered_json& json);

  template <typename T>
  bool is() const {
    return std::holds_alternative<T>(data_);
  }
  template <typename T>
  const T* get_if() const {
    return std::get_if<T>(&data_);
  }
  bool is_undefined() const { return is<Undefined>(); }
  bool is_none() const { return is<None>(); }
  bool is_string() const { return is<std::shared_ptr<const std::string>>(); }
  bool is_markup() const { return markup_; }
  bool is_number() const { return is<bool>() || is<std::int64_t>() || is<double>(); }
  bool is_integral() const { return is<bool>() || is<std::int64_t>(); }

  const std::string& string() const { return *std::get<std::shared_ptr<const std::string>>(data_); }
  std::int64_t as_integer() const;  // of a bool or an integer
  double as_double() const;         // of any number
  const Sequence* sequence() const;
  const Dict* dict() const;
  std::shared_ptr<Namespace> name_space() const;
  const LoopState* loop() const;
  std::shared_ptr<const Callable> callable() const;

  bool truthy() const;
  int nesting() const;            // 0 for a plain value
  const char* type_name() const;  // Python's: "str", "dict", "NoneType"
  const std::string& undefined_reason() const;

 private:
  std::variant<Undefined, None, bool, std::int64_t, double, std::shared_ptr<const std::string>,
               std::shared_ptr<const Sequence>, std::shared_ptr<const Dict>,
               std::shared_ptr<Namespace>, std::shared_ptr<const LoopState>,
               std::shared_ptr<const Callable>>
      data_;
  bool markup_ = false;
};

// A generator gives each item once, and knows neither its length nor its JSON. A view is what
// dict.items() gives: it has a length, but neither positions nor JSON.
struct Sequence {
  enum class Form { kList, kTuple, kGenerator, kView };
  Form form = Form::kList;
  std::vector<Value> items;
  int nesting = 1;
  mutable std::size_t taken = 0;  // kGenerator: items given

  bool indexed() const { return form == Form::kList || form == Form::kTuple; }
};

// Keeps the order of insertion. Keys are equal as in Python: 1 == 1.0 == True.
struct Dict {
  std::vector<std::pair<Value, Value>> entries;
  int nesting = 1;

  void set(Value key, Value value);
  const Value* find(const Value& key) const;  // nullptr if absent; fails for unhashable keys

 private:
  absl::flat_hash_map<std::string, std::size_t> index_;
};

struct Namespace {
  absl::flat_hash_map<std::string, Value> attributes;
};

// The `loop` variable of one iteration.
struct LoopState {
  std::shared_ptr<const std::vector<Value>> items;
  std::size_t index = 0;
  int depth = 1;    // of loops in loops, from 1
  int nesting = 1;  // of the items
};

struct Callable {
  std::string name;
  std::function<Value(Interpreter&, const Arguments&)> run;
  int nesting = 0;
};

// The nesting of what holds values nested as deep as `deepest`; fails beyond kMaxNesting.
int nesting_over(int deepest);
int deepest_nesting(const std::vector<Value>& values);

// The items that a loop over `value` sees: elements, keys, characters. A generator is used up.
std::shared_ptr<const std::vector<Value>> items_of(Budget& budget, const Value& value);

}  // namespace quire::jinja

// Runs a parsed template. One Interpreter per rendering; it owns every scope and namespace that a
// value could keep alive in a circle, and empties them at its end.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "coordinator/text/jinja/ast.h"
#include "coordinator/text/jinja/budget.h"
#include "coordinator/text/jinja/value.h"
#include "nlohmann/json_fwd.hpp"

namespace quire::jinja {

// Names of one block that has a scope of its own; what it lacks is looked up outwards.
struct Scope {
  absl::flat_hash_map<std::string, Value> names;
  std::shared_ptr<Scope> outer;
};
using ScopePtr = std::shared_ptr<Scope>;

class Interpreter {
 public:
  explicit Interpreter(double now_unix_seconds) : now_(now_unix_seconds) {}
  ~Interpreter();
  Interpreter(const Interpreter&) = delete;
  Interpreter& operator=(const Interpreter&) = delete;

  // Throws Error; line() then says where.
  std::string render(const Block& program, const nlohmann::ordered_json& variables);
  int line() const { return line_; }

  // For the built-in functions.
  Budget& budget() { return budget_; }
  double now() const { return now_; }
  Value call(const Value& callee, const Arguments& arguments);
  Value filter(absl::string_view name, const Value& subject, const Arguments& arguments);
  bool test(absl::string_view name, const Value& subject, const Arguments& arguments);
  Value attribute(const Value& value, const std::string& name);
  Value item(const Value& value, const Value& key);
  std::shared_ptr<Namespace> make_namespace();

 private:
  enum class Flow { kOn, kBreak, kContinue };

  // expressions
  Value eval(const Expression& e);
  Value eval_optional(const ExpressionPtr& e) { return e != nullptr ? eval(*e) : Value(); }
  Value eval_name(const Expression& e);
  Value eval_dict(const Expression& e);
  Value eval_call(const Expression& e);
  Value eval_arithmetic(const Expression& e);
  Value eval_concat(const Expression& e);
  Value eval_logic(const Expression& e);
  Value eval_compare(const Expression& e);
  Value eval_filters(const Expression* e, const Value& block_text);
  std::vector<Value> eval_all(const Expression& e);
  Arguments eval_arguments(const Expression& e);
  Value loop_attribute(const LoopState& loop, const std::string& name);

  // statements
  Flow run(const Block& block);
  Flow run(const Statement& s);
  Flow run_if(const Statement& s);
  Flow run_for(const Statement& s);
  Flow run_scope(const Statement& s);
  void run_call_block(const Statement& s);
  void write(absl::string_view text);
  void assign(const Expression& target, const Value& value);
  std::string text_of(const Block& block);  // runs it in a new scope, into a text of its own
  Value make_macro(const std::string& name, const Statement& s);
  Value run_macro(const Statement& s, const std::string& name, const ScopePtr& outer,
                  const Arguments& arguments);
  void bind_parameters(const Statement& s, const std::string& name, const Arguments& arguments);

  Budget budget_;
  double now_;
  int line_ = 1;
  int frames_ = 0;
  int calls_ = 0;
  int loops_ = 0;
  ScopePtr scope_;
  std::string* output_ = nullptr;
  std::vector<ScopePtr> captured_;  // scopes that a macro holds on to
  std::vector<std::shared_ptr<Namespace>> namespaces_;
};

}  // namespace quire::jinja

// Statements: output, blocks, loops, assignments, macros; see interpreter.h.
#include "coordinator/text/jinja/interpreter.h"

#include <utility>

#include "absl/cleanup/cleanup.h"
#include "coordinator/text/jinja/builtins.h"
#include "coordinator/text/jinja/frame.h"
#include "coordinator/text/jinja/text_form.h"
#include "nlohmann/json.hpp"

namespace quire::jinja {

using Kind = Statement::Kind;

Interpreter::~Interpreter() {
  // Everything in these circles is still held by the two lists, so nothing is freed recursively.
  for (const ScopePtr& scope : captured_) scope->names.clear();
  for (const auto& name_space : namespaces_) name_space->attributes.clear();
}

std::shared_ptr<Namespace> Interpreter::make_namespace() {
  namespaces_.push_back(std::make_shared<Namespace>());
  return namespaces_.back();
}

std::string Interpreter::render(const Block& program, const nlohmann::ordered_json& variables) {
  scope_ = std::make_shared<Scope>();
  for (const Global& global : globals()) {
    scope_->names[global.name] = Value::function(global.name, global.run);
  }
  for (const auto& [name, value] : variables.items()) {
    scope_->names[name] = Value::from_json(value);
  }
  std::string out;
  output_ = &out;
  run(program);
  return out;
}

void Interpreter::write(absl::string_view text) {
  budget_.text(output_->size() + text.size() > kMaxTextBytes ? kMaxTextBytes + 1 : text.size());
  output_->append(text.data(), text.size());
}

Interpreter::Flow Interpreter::run(const Block& block) {
  for (const Statement& statement : block) {
    const Flow flow = run(statement);
    if (flow != Flow::kOn) return flow;
  }
  return Flow::kOn;
}

Interpreter::Flow Interpreter::run(const Statement& s) {
  const Frame frame(frames_);
  budget_.steps();
  line_ = s.line;
  switch (s.kind) {
    case Kind::kText:
      write(s.name);
      return Flow::kOn;
    case Kind::kOutput:
      write(to_text(budget_, eval(*s.expression)));
      return Flow::kOn;
    case Kind::kIf:
      return run_if(s);
    case Kind::kFor:
      return run_for(s);
    case Kind::kSet:
      assign(*s.target, eval(*s.expression));
      return Flow::kOn;
    case Kind::kSetBlock:
      assign(*s.target, eval_filters(s.expression.get(), Value(text_of(s.body))));
      return Flow::kOn;
    case Kind::kMacro:
      scope_->names[s.name] = make_macro(s.name, s);
      return Flow::kOn;
    case Kind::kCallBlock:
      run_call_block(s);
      return Flow::kOn;
    case Kind::kFilterBlock:
      write(to_text(budget_, eval_filters(s.expression.get(), Value(text_of(s.body)))));
      return Flow::kOn;
    case Kind::kScope:
      return run_scope(s);
    case Kind::kBreak:
      return Flow::kBreak;
    case Kind::kContinue:
      return Flow::kContinue;
    case Kind::kBranch:
      break;
  }
  fail("a branch without its if");
}

Interpreter::Flow Interpreter::run_if(const Statement& s) {
  for (const Statement& branch : s.body) {
    line_ = branch.line;
    if (eval(*branch.expression).truthy()) return run(branch.body);
  }
  return run(s.otherwise);
}

Interpreter::Flow Interpreter::run_scope(const Statement& s) {
  auto inner = std::make_shared<Scope>(Scope{{}, scope_});
  for (const Parameter& binding : s.parameters)
    inner->names[binding.name] = eval(*binding.otherwise);
  const ScopePtr outer = std::exchange(scope_, std::move(inner));
  const absl::Cleanup restore = [&] { scope_ = outer; };
  return run(s.body);
}

Interpreter::Flow Interpreter::run_for(const Statement& s) {
  const ScopePtr outer = scope_;
  const absl::Cleanup restore = [&] { scope_ = outer; };
  auto items = items_of(budget_, eval(*s.expression));
  if (s.condition != nullptr) {
    std::vector<Value> kept;
    for (const Value& item : *items) {
      scope_ = std::make_shared<Scope>(Scope{{}, outer});
      assign(*s.target, item);
      if (eval(*s.condition).truthy()) kept.push_back(item);
    }
    items = std::make_shared<const std::vector<Value>>(std::move(kept));
  }
  if (items->empty()) {
    scope_ = outer;
    return run(s.otherwise);
  }
  const int nesting = nesting_over(deepest_nesting(*items));
  ++loops_;
  const absl::Cleanup leave = [&] { --loops_; };
  for (std::size_t i = 0; i < items->size(); ++i) {
    budget_.steps();
    scope_ = std::make_shared<Scope>(Scope{{}, outer});
    assign(*s.target, (*items)[i]);
    scope_->names["loop"] =
        Value(std::make_shared<const LoopState>(LoopState{items, i, loops_, nesting}));
    if (run(s.body) == Flow::kBreak) break;
  }
  return Flow::kOn;
}

void Interpreter::assign(const Expression& target, const Value& value) {
  if (target.kind == Expression::Kind::kName) {
    scope_->names[target.name] = value;
    return;
  }
  if (target.kind == Expression::Kind::kAttribute) {
    const auto name_space = eval(*target.parts[0]).name_space();
    if (name_space == nullptr) {
      fail("cannot assign attribute '", target.name, "' on what is not a namespace");
    }
    name_space->attributes[target.name] = value;
    return;
  }
  const auto items = items_of(budget_, value);
  if (value.is_undefined() || items->size() != target.parts.size()) {
    fail("cannot unpack ", items->size(), " values into ", target.parts.size(), " names");
  }
  for (std::size_t i = 0; i < items->size(); ++i) assign(*target.parts[i], (*items)[i]);
}

std::string Interpreter::text_of(const Block& block) {
  const ScopePtr outer = std::exchange(scope_, std::make_shared<Scope>(Scope{{}, scope_}));
  std::string text;
  std::string* const output = std::exchange(output_, &text);
  const absl::Cleanup restore = [&] {
    scope_ = outer;
    output_ = output;
  };
  run(block);
  return text;
}

Value Interpreter::make_macro(const std::string& name, const Statement& s) {
  captured_.push_back(scope_);
  return Value::function(name, [this, &s, name, outer = scope_](Interpreter&, const Arguments& a) {
    return run_macro(s, name, outer, a);
  });
}

Value Interpreter::run_macro(const Statement& s, const std::string& name, const ScopePtr& outer,
                             const Arguments& arguments) {
  if (++calls_ > kMaxNesting) fail("macro calls are nested more than ", kMaxNesting, " deep");
  const ScopePtr caller = std::exchange(scope_, std::make_shared<Scope>(Scope{{}, outer}));
  std::string text;
  std::string* const output = std::exchange(output_, &text);
  const int line = line_;
  const absl::Cleanup restore = [&] {
    --calls_;
    scope_ = caller;
    output_ = output;
  };
  bind_parameters(s, name, arguments);
  run(s.body);
  line_ = line;
  return Value(std::move(text));
}

void Interpreter::bind_parameters(const Statement& s, const std::string& name,
                                  const Arguments& arguments) {
  const std::size_t given = arguments.positional.size();
  std::vector<Value> extra;
  for (std::size_t i = s.parameters.size(); i < given; ++i) {
    extra.push_back(arguments.positional[i]);
  }
  auto extra_named = std::make_shared<Dict>();
  for (std::size_t i = 0; i < s.parameters.size(); ++i) {
    const Parameter& parameter = s.parameters[i];
    const Value* value = i < given ? &arguments.positional[i] : nullptr;
    for (const auto& [key, named] : arguments.named) {
      if (key == parameter.name) value = &named;
    }
    if (value != nullptr) {
      scope_->names[parameter.name] = *value;
    } else if (parameter.otherwise != nullptr) {
      scope_->names[parameter.name] = eval(*parameter.otherwise);
    } else {
      scope_->names[parameter.name] =
          Value::undefined(absl::StrCat("parameter '", parameter.name, "' was not provided"));
    }
  }
  for (const auto& [key, value] : arguments.named) {
    if (key == "caller") {
      scope_->names[key] = value;
    } else if (!scope_->names.contains(key)) {
      extra_named->set(Value(key), value);
    }
  }
  if (!s.takes_extra && (!extra.empty() || !extra_named->entries.empty())) {
    fail("macro '", name, "' takes ", s.parameters.size(), " arguments; ",
         extra.empty() ? "one with another name" : "more", " was given");
  }
  if (!s.takes_extra) return;
  scope_->names["varargs"] = Value::tuple(std::move(extra));
  scope_->names["kwargs"] = Value(std::shared_ptr<const Dict>(std::move(extra_named)));
}

void Interpreter::run_call_block(const Statement& s) {
  const Expression& call_node = *s.expression;
  Arguments arguments = eval_arguments(call_node);
  arguments.named.emplace_back("caller", make_macro("caller", s));
  write(to_text(budget_, call(eval(*call_node.parts[0]), arguments)));
}

}  // namespace quire::jinja

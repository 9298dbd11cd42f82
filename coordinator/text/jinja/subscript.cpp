// Items and slices; see operators.h. Positions in a text count characters, not bytes.
#include <algorithm>

#include "absl/strings/match.h"
#include "coordinator/text/jinja/operators.h"
#include "coordinator/text/jinja/strings.h"
#include "coordinator/text/jinja/text_form.h"

namespace quire::jinja {
namespace {

std::string describe(const Value& value) {
  return value.is_none() ? "None" : absl::StrCat("'", value.type_name(), " object'");
}

Value no_item(Budget& budget, const Value& value, const Value& key) {
  if (key.is_string()) {
    const std::string subject =
        value.is_none() ? "'None'" : absl::StrCat("'", value.type_name(), " object'");
    return Value::undefined(absl::StrCat(subject, " has no attribute '", key.string(), "'"));
  }
  return Value::undefined(absl::StrCat(describe(value), " has no element ", to_repr(budget, key)));
}

// Where a slice begins, ends, and how it moves, as Python's slice.indices().
struct Walk {
  std::int64_t begin;
  std::int64_t end;
  std::int64_t step;
};

std::int64_t slice_bound(const Value& value, std::int64_t length, std::int64_t low,
                         std::int64_t high, std::int64_t missing) {
  if (value.is_none() || value.is_undefined()) return missing;
  if (!value.is_integral()) fail("slice indices must be integers or None");
  const std::int64_t index = value.as_integer();
  const std::int64_t from_front = index < 0 ? std::max(index, -length) + length : index;
  return std::clamp(index < 0 && index < -length ? low : from_front, low, high);
}

Walk walk_of(std::int64_t length, const Value& begin, const Value& end, const Value& step) {
  const bool no_step = step.is_none() || step.is_undefined();
  if (!no_step && !step.is_integral()) fail("slice indices must be integers or None");
  Walk walk{0, 0, no_step ? 1 : step.as_integer()};
  if (walk.step == 0) fail("slice step cannot be zero");
  const bool forward = walk.step > 0;
  const std::int64_t low = forward ? 0 : -1;
  const std::int64_t high = forward ? length : length - 1;
  walk.begin = slice_bound(begin, length, low, high, forward ? low : high);
  walk.end = slice_bound(end, length, low, high, forward ? high : low);
  return walk;
}

template <typename Take>
void walk_items(const Walk& walk, const Take& take) {
  std::int64_t i = walk.begin;
  while (walk.step > 0 ? i < walk.end : i > walk.end) {
    take(static_cast<std::size_t>(i));
    if (__builtin_add_overflow(i, walk.step, &i)) return;
  }
}

}  // namespace

Value get_item(Budget& budget, const Value& value, const Value& key) {
  if (value.is_undefined()) fail(value.undefined_reason());
  if (const Dict* dict = value.dict()) {
    const bool hashable = key.dict() == nullptr && (key.sequence() == nullptr ||
                                                    key.sequence()->form == Sequence::Form::kTuple);
    const Value* found = hashable ? dict->find(key) : nullptr;
    return found != nullptr ? *found : no_item(budget, value, key);
  }
  if (const Sequence* sequence = value.sequence();
      sequence != nullptr && key.is_integral() && sequence->indexed()) {
    const auto size = static_cast<std::int64_t>(sequence->items.size());
    const std::int64_t index = key.as_integer() < 0 ? key.as_integer() + size : key.as_integer();
    if (index < 0 || index >= size) return no_item(budget, value, key);
    return sequence->items[static_cast<std::size_t>(index)];
  }
  if (value.is_string() && key.is_integral()) {
    budget.text(value.string().size());
    const Characters characters(value.string());
    const auto size = static_cast<std::int64_t>(characters.size());
    const std::int64_t index = key.as_integer() < 0 ? key.as_integer() + size : key.as_integer();
    if (index < 0 || index >= size) return no_item(budget, value, key);
    return Value(characters.at(static_cast<std::size_t>(index)));
  }
  return no_item(budget, value, key);
}

Value get_slice(Budget& budget, const Value& value, const Value& begin, const Value& end,
                const Value& step) {
  if (value.is_undefined()) fail(value.undefined_reason());
  if (value.is_string()) {
    budget.text(value.string().size());
    const Characters characters(value.string());
    std::string out;
    walk_items(walk_of(static_cast<std::int64_t>(characters.size()), begin, end, step),
               [&](std::size_t i) { absl::StrAppend(&out, characters.at(i)); });
    return Value(std::move(out));
  }
  const Sequence* sequence = value.sequence();
  if (sequence == nullptr || !sequence->indexed()) {
    fail("'", value.type_name(), "' object cannot be sliced");
  }
  budget.steps(sequence->items.size());
  std::vector<Value> items;
  walk_items(walk_of(static_cast<std::int64_t>(sequence->items.size()), begin, end, step),
             [&](std::size_t i) { items.push_back(sequence->items[i]); });
  return sequence->form == Sequence::Form::kTuple ? Value::tuple(std::move(items))
                                                  : Value::list(std::move(items));
}

}  // namespace quire::jinja

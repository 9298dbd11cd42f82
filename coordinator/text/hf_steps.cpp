// The known step types of a tokenizer.json; see hf_steps.h. Sequences are flattened.
#include "coordinator/text/hf_steps.h"

#include <functional>
#include <utility>

#include "common/status.h"
#include "coordinator/text/hf_field.h"

namespace quire::hf {
namespace {

constexpr int kMaxNesting = 16;

absl::Status unknown(const char* stage, const std::string& type) {
  return absl::InvalidArgumentError(
      absl::StrCat("tokenizer.json asks for the ", stage, " \"", type, "\", which is not known"));
}

// Calls `read(step, type)` for a step, or for every step of a (nested) Sequence in `list_name`.
using ReadStep = std::function<absl::Status(const Json& step, const std::string& type)>;

absl::Status for_each_step(const Json& json, const char* list_name, const ReadStep& read,
                           int nesting = 0) {
  if (json.is_null()) return absl::OkStatus();
  const Json& type = field(json, "type");
  if (!type.is_string()) return wrong_type("type", "a text");
  if (type != "Sequence") return read(json, type.get<std::string>());
  const Json& list = field(json, list_name);
  if (!list.is_array() || nesting >= kMaxNesting) {
    return wrong_type(list_name, "a list, nested at most 16 deep");
  }
  for (const Json& step : list) {
    QUIRE_RETURN_IF_ERROR(for_each_step(step, list_name, read, nesting + 1));
  }
  return absl::OkStatus();
}

// {"String": ...} or {"Regex": ...}.
struct Pattern {
  std::string text;
  bool regex = false;
};

absl::StatusOr<Pattern> read_pattern(const Json& step) {
  const Json& pattern = field(step, "pattern");
  if (const Json& text = field(pattern, "String"); text.is_string()) {
    return Pattern{text.get<std::string>(), false};
  }
  if (const Json& text = field(pattern, "Regex"); text.is_string()) {
    return Pattern{text.get<std::string>(), true};
  }
  return wrong_type("pattern", "a String or a Regex");
}

std::string quote_for_regex(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (std::string(".^$*+?()[]{}|\\/-#& ").find(c) != std::string::npos) out.push_back('\\');
    out.push_back(c);
  }
  return out;
}

absl::StatusOr<Regex> compile(const Pattern& pattern) {
  return Regex::compile(pattern.regex ? pattern.text : quote_for_regex(pattern.text));
}

absl::StatusOr<NormalizerStep> read_replace(const Json& step) {
  NormalizerStep out;
  out.kind = NormalizerStep::Kind::kReplace;
  QUIRE_ASSIGN_OR_RETURN(const Pattern pattern, read_pattern(step));
  QUIRE_ASSIGN_OR_RETURN(out.content, text_field(step, "content"));
  out.pattern = pattern.text;
  if (pattern.regex) {
    QUIRE_ASSIGN_OR_RETURN(out.regex, Regex::compile(pattern.text));
  } else if (pattern.text.empty()) {
    return wrong_type("pattern", "a text that is not empty");
  }
  return out;
}

absl::StatusOr<NormalizerStep> read_normalizer_step(const Json& step, const std::string& type) {
  using Kind = NormalizerStep::Kind;
  NormalizerStep out;
  if (type == "Replace") return read_replace(step);
  if (type == "Prepend") {
    out.kind = Kind::kPrepend;
    QUIRE_ASSIGN_OR_RETURN(out.content, text_field(step, "prepend"));
    return out;
  }
  if (type == "Strip") {
    out.kind = Kind::kStrip;
    QUIRE_ASSIGN_OR_RETURN(out.left, bool_field(step, "strip_left", true));
    QUIRE_ASSIGN_OR_RETURN(out.right, bool_field(step, "strip_right", true));
    return out;
  }
  static const std::pair<const char*, Kind> kPlain[] = {{"NFC", Kind::kNfc},
                                                        {"NFD", Kind::kNfd},
                                                        {"NFKC", Kind::kNfkc},
                                                        {"NFKD", Kind::kNfkd},
                                                        {"Lowercase", Kind::kLowercase}};
  for (const auto& [name, kind] : kPlain) {
    if (type != name) continue;
    out.kind = kind;
    return out;
  }
  return unknown("normalizer", type);
}

absl::StatusOr<SplitBehaviour> read_behaviour(const Json& step) {
  QUIRE_ASSIGN_OR_RETURN(const std::string name, text_field(step, "behavior"));
  if (name == "Isolated") return SplitBehaviour::kIsolated;
  if (name == "Removed") return SplitBehaviour::kRemoved;
  if (name == "Contiguous") return SplitBehaviour::kContiguous;
  if (name == "MergedWithPrevious") return SplitBehaviour::kMergedWithPrevious;
  if (name == "MergedWithNext") return SplitBehaviour::kMergedWithNext;
  return unknown("split behavior", name);
}

// Collects the steps of a pre-tokenizer. A step that changes the text (a prefix, Metaspace) can
// only come first: afterwards there are pieces, not a text.
class PreTokenizerReader {
 public:
  absl::Status read(const Json& step, const std::string& type) {
    if (type == "Split") return read_split(step);
    if (type == "Digits") return read_digits(step);
    if (type == "ByteLevel") return read_byte_level(step);
    if (type == "Metaspace") return read_metaspace(step);
    return unknown("pre-tokenizer", type);
  }

  PreTokenizerPlan finish() && {
    return {PreTokenizer(std::move(spaces_), std::move(steps_)), byte_level_};
  }

 private:
  absl::Status read_split(const Json& step) {
    QUIRE_ASSIGN_OR_RETURN(const Pattern pattern, read_pattern(step));
    QUIRE_ASSIGN_OR_RETURN(Regex regex, compile(pattern));
    QUIRE_ASSIGN_OR_RETURN(const SplitBehaviour behaviour, read_behaviour(step));
    QUIRE_ASSIGN_OR_RETURN(const bool invert, bool_field(step, "invert", false));
    steps_.push_back({std::move(regex), behaviour, invert});
    return absl::OkStatus();
  }

  absl::Status read_digits(const Json& step) {
    QUIRE_ASSIGN_OR_RETURN(const bool single, bool_field(step, "individual_digits", false));
    return add_isolated(single ? R"(\p{N})" : R"(\p{N}+)");
  }

  absl::Status read_byte_level(const Json& step) {
    byte_level_ = true;
    QUIRE_ASSIGN_OR_RETURN(const bool prefix, bool_field(step, "add_prefix_space", true));
    QUIRE_ASSIGN_OR_RETURN(const bool use_regex, bool_field(step, "use_regex", true));
    if (prefix) {
      QUIRE_RETURN_IF_ERROR(set_spaces({" ", SpaceRule::Prefix::kAlways}));
    }
    return use_regex ? add_isolated(kGpt2Pattern) : absl::OkStatus();
  }

  absl::Status read_metaspace(const Json& step) {
    SpaceRule rule;
    QUIRE_ASSIGN_OR_RETURN(rule.replacement, text_field(step, "replacement"));
    QUIRE_ASSIGN_OR_RETURN(const bool old_prefix, bool_field(step, "add_prefix_space", true));
    QUIRE_ASSIGN_OR_RETURN(const std::string scheme,
                           text_field(step, "prepend_scheme", old_prefix ? "always" : "never"));
    if (scheme == "always") {
      rule.prefix = SpaceRule::Prefix::kAlways;
    } else if (scheme == "first") {
      rule.prefix = SpaceRule::Prefix::kFirst;
    } else if (scheme != "never") {
      return unknown("prepend scheme", scheme);
    }
    QUIRE_ASSIGN_OR_RETURN(const bool split, bool_field(step, "split", true));
    const std::string replacement = rule.replacement;
    QUIRE_RETURN_IF_ERROR(set_spaces(std::move(rule)));
    if (!split) return absl::OkStatus();
    QUIRE_ASSIGN_OR_RETURN(Regex regex, Regex::compile(quote_for_regex(replacement)));
    steps_.push_back({std::move(regex), SplitBehaviour::kMergedWithNext, false});
    return absl::OkStatus();
  }

  absl::Status set_spaces(SpaceRule rule) {
    if (spaces_.has_value() || !steps_.empty()) {
      return absl::InvalidArgumentError(
          "tokenizer.json adds a prefix to the text after it was split, which is not known");
    }
    spaces_ = std::move(rule);
    return absl::OkStatus();
  }

  absl::Status add_isolated(const char* pattern) {
    QUIRE_ASSIGN_OR_RETURN(Regex regex, Regex::compile(pattern));
    steps_.push_back({std::move(regex), SplitBehaviour::kIsolated, false});
    return absl::OkStatus();
  }

  std::optional<SpaceRule> spaces_;
  std::vector<SplitStep> steps_;
  bool byte_level_ = false;
};

absl::Status read_strip_decoder(const Json& step, DecoderPlan* plan) {
  const Json& start = field(step, "start");
  const Json& stop = field(step, "stop");
  const Json& content = field(step, "content");
  const bool nothing = start == 0 && stop == 0;
  if (!nothing && (content != " " || start != 1 || stop != 0)) {
    return unknown("decoder", "Strip of anything but one leading space");
  }
  plan->strips_leading_space = plan->strips_leading_space || !nothing;
  return absl::OkStatus();
}

absl::Status read_metaspace_decoder(const Json& step, DecoderPlan* plan) {
  QUIRE_ASSIGN_OR_RETURN(const std::string mark, text_field(step, "replacement"));
  QUIRE_ASSIGN_OR_RETURN(const bool old_prefix, bool_field(step, "add_prefix_space", true));
  QUIRE_ASSIGN_OR_RETURN(const std::string scheme,
                         text_field(step, "prepend_scheme", old_prefix ? "always" : "never"));
  plan->replacements.emplace_back(mark, " ");
  plan->strips_leading_space = scheme != "never";
  return absl::OkStatus();
}

absl::Status read_decoder_step(const Json& step, const std::string& type, DecoderPlan* plan) {
  if (type == "ByteLevel") {
    plan->byte_level = true;
  } else if (type == "ByteFallback") {
    plan->byte_fallback = true;
  } else if (type == "Replace") {
    QUIRE_ASSIGN_OR_RETURN(const Pattern pattern, read_pattern(step));
    QUIRE_ASSIGN_OR_RETURN(const std::string content, text_field(step, "content"));
    if (pattern.regex || pattern.text.empty()) return unknown("decoder", "Replace of a Regex");
    plan->replacements.emplace_back(pattern.text, content);
  } else if (type == "Strip") {
    return read_strip_decoder(step, plan);
  } else if (type == "Metaspace") {
    return read_metaspace_decoder(step, plan);
  } else if (type != "Fuse") {  // Fuse only joins, which every decoding does
    return unknown("decoder", type);
  }
  return absl::OkStatus();
}

absl::Status read_template(const Json& step, TemplatePlan* plan) {
  plan->present = true;
  const Json& single = field(step, "single");
  if (!single.is_array()) return wrong_type("single", "a list");
  bool after_text = false;
  for (const Json& part : single) {
    if (!field(part, "Sequence").is_null()) {
      after_text = true;
      continue;
    }
    const Json& name = field(field(part, "SpecialToken"), "id");
    if (!name.is_string()) return wrong_type("single", "Sequence and SpecialToken entries");
    const Json& token = field(field(step, "special_tokens"), name.get<std::string>().c_str());
    const Json& ids = field(token, "ids");
    if (!ids.is_array()) return wrong_type("special_tokens", "the ids of every SpecialToken used");
    for (const Json& id : ids) {
      if (!id.is_number_unsigned() || id.get<std::uint64_t>() > kMaxTokenId) {
        return wrong_type("ids", "token ids");
      }
      (after_text ? plan->suffix : plan->prefix).push_back(id.get<std::int32_t>());
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Normalizer> read_normalizer(const Json& json) {
  std::vector<NormalizerStep> steps;
  QUIRE_RETURN_IF_ERROR(
      for_each_step(json, "normalizers", [&](const Json& step, const std::string& type) {
        QUIRE_ASSIGN_OR_RETURN(steps.emplace_back(), read_normalizer_step(step, type));
        return absl::OkStatus();
      }));
  return Normalizer(std::move(steps));
}

absl::StatusOr<PreTokenizerPlan> read_pre_tokenizer(const Json& json) {
  PreTokenizerReader reader;
  QUIRE_RETURN_IF_ERROR(for_each_step(
      json, "pretokenizers",
      [&](const Json& step, const std::string& type) { return reader.read(step, type); }));
  return std::move(reader).finish();
}

absl::StatusOr<DecoderPlan> read_decoder(const Json& json) {
  DecoderPlan plan;
  QUIRE_RETURN_IF_ERROR(
      for_each_step(json, "decoders", [&](const Json& step, const std::string& type) {
        return read_decoder_step(step, type, &plan);
      }));
  return plan;
}

absl::StatusOr<TemplatePlan> read_post_processor(const Json& json) {
  TemplatePlan plan;
  QUIRE_RETURN_IF_ERROR(
      for_each_step(json, "processors", [&](const Json& step, const std::string& type) {
        if (type == "TemplateProcessing") return read_template(step, &plan);
        if (type == "ByteLevel") return absl::OkStatus();  // changes offsets only
        return unknown("post-processor", type);
      }));
  return plan;
}

}  // namespace quire::hf

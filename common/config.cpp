// Command line and --config FILE over the option table, and the way back.
#include "common/config.h"

#include <map>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/config_file.h"
#include "common/status.h"

namespace quire {
namespace {

constexpr std::size_t kHelpColumn = 34;
constexpr std::size_t kHelpWidth = 100;

template <typename... Reason>
absl::Status refuse(const Reason&... reason) {
  return absl::InvalidArgumentError(absl::StrCat(reason...));
}

std::string programs_of(const Option& option) {
  std::vector<std::string> names;
  if (option.programs & kServe) names.push_back("quire serve");
  if (option.programs & kCoordinator) names.push_back("quire-coordinator");
  if (option.programs & kWorker) names.push_back("quire-worker");
  std::string out;
  for (std::size_t i = 0; i < names.size(); ++i) {
    absl::StrAppend(&out, i == 0 ? "" : i + 1 == names.size() ? " and " : ", ", names[i]);
  }
  return out;
}

// One option as written: which it is, and its value.
struct Assignment {
  const Option* option = nullptr;
  std::string value;
};

struct CommandLine {
  std::vector<Assignment> assignments;
  std::string config_file;
  bool help = false;
};

class ArgvParser {
 public:
  ArgvParser(ProgramMask program, absl::Span<const char* const> argv)
      : program_(program), argv_(argv) {}

  absl::StatusOr<CommandLine> parse() {
    for (at_ = 1; at_ < argv_.size(); ++at_) {
      const std::string word = argv_[at_];
      if (word == "--help" || word == "-h") {
        line_.help = true;
      } else if (word == "--" && !only_arguments_) {
        only_arguments_ = true;
      } else if (word.size() > 1 && word[0] == '-' && !only_arguments_) {
        QUIRE_RETURN_IF_ERROR(option(word));
      } else {
        QUIRE_RETURN_IF_ERROR(argument(word));
      }
    }
    return std::move(line_);
  }

 private:
  absl::Status argument(const std::string& word) {
    if (has_argument_) return refuse("'", word, "' is a second MODEL; only one can be given.");
    has_argument_ = true;
    line_.assignments.push_back({find_option("--model"), word});
    return absl::OkStatus();
  }

  absl::Status option(const std::string& word) {
    const std::size_t equals = word.find('=');
    const std::string name = word.substr(0, equals);
    const bool config = name == "--config";
    const Option* found = absl::StartsWith(name, "--") ? find_option(name) : nullptr;
    if (!config && found == nullptr) {
      return refuse("There is no option ", name, ".", suggestion(name, program_),
                    " --help lists all options.");
    }
    if (!config && (found->programs & program_) == 0) {
      return refuse(found->name, " is an option of ", programs_of(*found),
                    ", not of this program. --help lists all options.");
    }
    std::string value;
    if (equals != std::string::npos) {
      value = word.substr(equals + 1);
    } else if (!config && found->value == nullptr) {
      value = "true";
    } else if (at_ + 1 < argv_.size() && !absl::StartsWith(argv_[at_ + 1], "--")) {
      value = argv_[++at_];
    } else {
      return refuse(name, " needs a value: ", name, " ", config ? "FILE" : found->value, ".");
    }
    if (config) {
      line_.config_file = value;
    } else {
      line_.assignments.push_back({found, value});
    }
    return absl::OkStatus();
  }

  const ProgramMask program_;
  const absl::Span<const char* const> argv_;
  std::size_t at_ = 0;
  bool only_arguments_ = false;
  bool has_argument_ = false;
  CommandLine line_;
};

// A file may serve several programs: options that only others know are passed over.
absl::Status apply_file(ProgramMask program, const std::string& file, EngineConfig* config) {
  QUIRE_ASSIGN_OR_RETURN(const auto pairs, read_yaml(file));
  for (const auto& [key, value] : pairs) {
    const Option* option = find_option(key);
    if (option == nullptr) {
      return refuse(file, ": there is no option '", key, "'.", suggestion(key, kAll));
    }
    if ((option->programs & program) == 0) continue;
    if (const absl::Status set = option->set(*config, value); !set.ok()) {
      return refuse(file, ": ", option->name, ": ", set.message());
    }
  }
  return absl::OkStatus();
}

absl::Status check_groups(ProgramMask program, const EngineConfig& config) {
  if (!config.kv_offload_path.empty() && config.data_parallel_size > 1) {
    return refuse("--kv-offload-path is ", config.kv_offload_path, " and --data-parallel-size is ",
                  config.data_parallel_size,
                  ", but the folder holds the blocks of one group; leave it out, and "
                  "--kv-offload-bytes keeps them in each group's memory.");
  }
  if (program == kServe && config.data_parallel_size_local > config.data_parallel_size) {
    return refuse("--data-parallel-size-local is ", config.data_parallel_size_local,
                  ", but must be at most --data-parallel-size, which is ",
                  config.data_parallel_size, ".");
  }
  if (program == kServe && !config.hostfile.empty() && num_local_groups(config) > 1) {
    return refuse("--hostfile says where one group's ranks are, but ", num_local_groups(config),
                  " groups would be started there; give --data-parallel-size-local 1 and start the "
                  "others on their own hosts.");
  }
  if (program == kWorker && config.data_parallel_rank >= num_local_groups(config)) {
    return refuse("--data-parallel-rank is ", config.data_parallel_rank,
                  ", but must be below --data-parallel-size-local, which is ",
                  num_local_groups(config), ".");
  }
  return absl::OkStatus();
}

absl::Status check_together(ProgramMask program, const EngineConfig& config) {
  QUIRE_RETURN_IF_ERROR(check_network(config));
  QUIRE_RETURN_IF_ERROR(check_groups(program, config));
  if (!config.kv_offload_path.empty() && config.kv_offload_bytes == 0) {
    return refuse("--kv-offload-path is ", config.kv_offload_path,
                  ", but --kv-offload-bytes is 0; give the bytes that each rank may use there.");
  }
  if (config.kv_offload_bytes > 0 && config.no_prefix_caching) {
    return refuse("--kv-offload-bytes is ", config.kv_offload_bytes,
                  ", but with --no-enable-prefix-caching nothing that leaves the KV cache could be "
                  "found again; leave one of them out.");
  }
  if (config.prompt_lookup_min > config.prompt_lookup_max) {
    return refuse("--prompt-lookup-min is ", config.prompt_lookup_min,
                  ", but must be at most --prompt-lookup-max, which is ", config.prompt_lookup_max,
                  ".");
  }
  if ((config.rank < 0) != (config.world_size < 1)) {
    return refuse("--rank is ", config.rank, " and --world-size is ", config.world_size,
                  "; without MPI give both, with MPI neither.");
  }
  if (config.rank >= 0 && config.rank >= config.world_size) {
    return refuse("--rank is ", config.rank, ", but must be below --world-size ", config.world_size,
                  ".");
  }
  return absl::OkStatus();
}

// "  --name VALUE      help, wrapped" with the help in a column of its own.
std::string help_line(const std::string& head, const std::string& help) {
  std::string out = absl::StrCat("  ", head);
  std::size_t column = out.size();
  const std::string indent(kHelpColumn, ' ');
  if (column + 2 > kHelpColumn) {
    absl::StrAppend(&out, "\n", indent);
  } else {
    out.append(kHelpColumn - column, ' ');
  }
  column = kHelpColumn;
  for (const absl::string_view word : absl::StrSplit(help, ' ')) {
    if (column > kHelpColumn && column + 1 + word.size() > kHelpWidth) {
      absl::StrAppend(&out, "\n", indent);
      column = kHelpColumn;
    }
    absl::StrAppend(&out, column > kHelpColumn ? " " : "", word);
    column += word.size() + (column > kHelpColumn ? 1 : 0);
  }
  return out + "\n";
}

}  // namespace

absl::StatusOr<ParsedConfig> parse_config(ProgramMask program, absl::Span<const char* const> argv) {
  QUIRE_ASSIGN_OR_RETURN(const CommandLine line, ArgvParser(program, argv).parse());
  ParsedConfig parsed;
  parsed.help = line.help;
  if (line.help) return parsed;
  if (!line.config_file.empty()) {
    QUIRE_RETURN_IF_ERROR(apply_file(program, line.config_file, &parsed.config));
  }
  for (const Assignment& assignment : line.assignments) {
    const absl::Status set = assignment.option->set(parsed.config, assignment.value);
    if (!set.ok()) return refuse(assignment.option->name, ": ", set.message());
  }
  if (!parsed.config.api_key_file.empty()) {
    QUIRE_ASSIGN_OR_RETURN(parsed.config.api_key, read_secret(parsed.config.api_key_file));
  }
  if (parsed.config.api_key.empty() && (program & kWorker) == 0) {
    parsed.config.api_key = api_key_of_environment();
  }
  QUIRE_RETURN_IF_ERROR(check_together(program, parsed.config));
  return parsed;
}

std::string help_text(ProgramMask program, const std::string& usage) {
  std::string out = absl::StrCat("usage: ", usage, "\n");
  const EngineConfig defaults;
  std::string group;
  for (const Option& option : options()) {
    if ((option.programs & program) == 0) continue;
    if (group != option.group) {
      group = option.group;
      absl::StrAppend(&out, "\n", group, ":\n");
    }
    const std::string value = option.get(defaults);
    const bool shown = !value.empty() && value != "-1" && option.value != nullptr;
    absl::StrAppend(
        &out,
        help_line(
            option.value == nullptr ? option.name : absl::StrCat(option.name, " ", option.value),
            absl::StrCat(option.help, shown ? " [" : "", shown ? value : "", shown ? "]" : "")));
  }
  absl::StrAppend(&out, "\nOther:\n",
                  help_line("--config FILE",
                            "YAML file with the same names (max-model-len: 4096); the command line "
                            "wins over it"),
                  help_line("--help", "this text"));
  return out;
}

std::vector<std::string> to_arguments(const EngineConfig& config, ProgramMask program) {
  std::vector<std::string> out;
  const EngineConfig defaults;
  for (const Option& option : options()) {
    if ((option.programs & program) == 0) continue;
    const std::string value = option.get(config);
    if (value != option.get(defaults)) out.push_back(absl::StrCat(option.name, "=", value));
  }
  return out;
}

}  // namespace quire

// `quire serve`: checks what can be checked before anything is started (options, the model's
// headers, the number of ranks), then becomes quire-supervisor.
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>

#include "absl/strings/str_cat.h"
#include "common/config.h"
#include "common/model_file/model_file.h"
#include "common/shard.h"
#include "deploy/quire/commands.h"
#include "deploy/quire/launch.h"

namespace quire {
namespace {

constexpr int kBadModel = 65, kMissingFile = 66;

absl::Status check_ranks(const ModelFile& model, int world) {
  return make_shard_map(model.spec, world, 1).status();
}

std::vector<const char*> c_arguments(const std::vector<std::string>& strings) {
  std::vector<const char*> out;
  for (const std::string& s : strings) out.push_back(s.c_str());
  return out;
}

}  // namespace

int fail(const std::string& command, const std::string& message, int code) {
  std::fprintf(stderr, "quire %s: %s\n", command.c_str(), message.c_str());
  return code;
}

absl::StatusOr<std::string> resolve_model(const std::string& model) {
  if (model.empty()) {
    return absl::InvalidArgumentError(
        "MODEL is missing; give a GGUF file, a Hugging Face folder, or `smollm2`");
  }
  if (model != "smollm2") return model;
  const std::filesystem::path path = demo_model_path();
  if (!std::filesystem::exists(path)) {
    return absl::NotFoundError(absl::StrCat("the demo model is not at ", path.string(),
                                            "; run ./deploy/setup.sh, which fetches it"));
  }
  return path.string();
}

int serve_command(const std::vector<std::string>& arguments) {
  std::vector<std::string> argv = {"quire serve"};
  argv.insert(argv.end(), arguments.begin(), arguments.end());
  auto parsed = parse_config(kServe, c_arguments(argv));
  if (!parsed.ok()) return fail("serve", std::string(parsed.status().message()));
  if (parsed->help) {
    std::fputs(help_text(kServe, "quire serve MODEL [options]").c_str(), stdout);
    return 0;
  }
  EngineConfig& config = parsed->config;
  const std::string alias = config.model;
  auto path = resolve_model(config.model);
  if (!path.ok()) {
    return fail("serve", std::string(path.status().message()), alias.empty() ? 64 : kMissingFile);
  }
  config.model = *path;
  if (config.served_model_name.empty() && alias == "smollm2") config.served_model_name = alias;
  auto model = open_model(config.model, load_format_of(config.load_format));
  if (!model.ok()) {
    const bool a_word =
        alias.find_first_of("/.") == std::string::npos && access(alias.c_str(), F_OK) != 0;
    return fail(
        "serve",
        absl::StrCat(model.status().message(), a_word ? " (the one alias there is: smollm2)" : ""),
        absl::IsNotFound(model.status()) ? kMissingFile : kBadModel);
  }
  if (!config.hostfile.empty() && access(config.hostfile.c_str(), R_OK) != 0) {
    return fail("serve",
                absl::StrCat("--hostfile: cannot read ", config.hostfile, ": ", strerror(errno)),
                kMissingFile);
  }
  if (auto address = address_for_ranks(config, host_name(), "this:0"); !address.ok()) {
    return fail("serve", std::string(address.status().message()));
  }
  if (absl::Status ranks = check_ranks(*model, config.tensor_parallel_size); !ranks.ok()) {
    return fail("serve", std::string(ranks.message()));
  }

  const std::filesystem::path self = std::filesystem::read_symlink("/proc/self/exe");
  std::vector<std::string> next = {(self.parent_path() / "quire-supervisor").string()};
  for (std::string& argument : to_arguments(config, kServe)) next.push_back(std::move(argument));
  if (config.api_key_file.empty() && !config.api_key.empty()) {
    setenv(kApiKeyVariable, config.api_key.c_str(), 1);
  }
  std::vector<char*> raw;
  for (std::string& argument : next) raw.push_back(argument.data());
  raw.push_back(nullptr);
  execv(raw[0], raw.data());
  return fail("serve", absl::StrCat("cannot start ", next[0], ": ", std::strerror(errno)), 127);
}

}  // namespace quire

// quire-worker: one rank. Loads its shard, attaches to the coordinator, runs plans until drained.
#include <signal.h>
#include <sys/prctl.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/config.h"
#include "common/config_file.h"
#include "common/log.h"
#include "common/shard.h"
#include "common/status.h"
#include "common/tls.h"
#include "spdlog/spdlog.h"
#include "worker/session/exit_code.h"
#include "worker/session/process_group.h"
#include "worker/session/session.h"

namespace quire {
namespace {

constexpr const char* kUsage =
    "quire-worker MODEL [options]: one tensor-parallel rank; started by `quire serve` under "
    "mpirun\n"
    "       quire-worker --list-devices: what this machine can compute on";

// One sentence on stderr and the exit code for it.
int complain(Stage stage, const std::string& who, const absl::Status& status) {
  std::fprintf(stderr, "quire-worker%s: %s\n", who.c_str(), std::string(status.message()).c_str());
  return exit_code(stage, status);
}

// The host's cores divided among its ranks.
int threads_per_rank(const EngineConfig& config, const RankPlace& place) {
  if (config.threads_per_rank > 0) return config.threads_per_rank;
  const auto cores = static_cast<int>(std::thread::hardware_concurrency());
  return std::max(1, cores / place.num_on_host());
}

DeviceOptions device_options(const EngineConfig& config, const RankPlace& place) {
  DeviceOptions options;
  options.kind = config.device;
  options.isa = config.isa;
  options.dtype = config.dtype;
  options.kv_dtype = config.kv_cache_dtype;
  options.num_threads = threads_per_rank(config, place);
  options.local_rank = place.index_on_host();
  options.num_local_ranks = place.num_on_host();
  options.deterministic = config.deterministic;
  options.enforce_eager = config.enforce_eager;
  options.gpu_memory_utilization = config.gpu_memory_utilization;
  options.cache_folder = cache_folder();
  return options;
}

absl::StatusOr<SessionOptions> session_options(const EngineConfig& config, const ModelSpec& spec,
                                               const std::string& instance_id) {
  SessionOptions options;
  options.coordinator.host_port = config.coordinator;
  options.coordinator.tls_name = config.grpc_ssl_server_name;
  QUIRE_ASSIGN_OR_RETURN(options.coordinator.tls, read_tls(grpc_files(config), kGrpcTlsNames));
  options.instance_id = instance_id;
  options.block_size = config.block_size;
  options.kv_cache_memory_bytes = config.kv_cache_memory_bytes;
  options.kv_offload_bytes = config.kv_offload_bytes;
  options.kv_offload_path = config.kv_offload_path;
  options.max_num_seqs = config.max_num_seqs;
  options.max_model_len = config.max_model_len == 0
                              ? spec.max_positions
                              : std::min(config.max_model_len, spec.max_positions);
  if (!config.worker_secret_file.empty()) {
    QUIRE_ASSIGN_OR_RETURN(options.secret, read_secret(config.worker_secret_file));
  }
  return options;
}

int work(const EngineConfig& config, ProcessGroup& group) {
  const RankPlace& place = group.place();
  const std::string who = absl::StrCat(" (rank ", place.rank, " of ", place.world, ")");
  absl::StatusOr<ModelFile> file = open_model(config.model, load_format_of(config.load_format));
  if (!file.ok()) return complain(Stage::kModel, who, file.status());
  if (const auto map = make_shard_map(file->spec, place.world, 1); !map.ok()) {
    return complain(Stage::kOptions, who, map.status());
  }
  const absl::StatusOr<SessionOptions> options =
      session_options(config, file->spec, group.instance_id());
  if (!options.ok()) return complain(Stage::kOptions, who, options.status());

  auto device = open_device(device_options(config, place));
  if (!device.ok()) return complain(Stage::kDevice, who, device.status());
  const ProgressFn progress =
      make_progress(place.rank == 0 ? config.progress : "none", "loading weights");
  const auto rank = Rank::load(*std::move(file), *std::move(device), place, progress);
  if (!rank.ok()) return complain(Stage::kModel, who, rank.status());
  spdlog::info("rank {} of {}: {}, {:.1f} MB of weights", place.rank, place.world,
               (*rank)->device().description(),
               static_cast<double>((*rank)->weights().bytes) / 1e6);
  const absl::Status status = run_session(**rank, *options);
  if (!status.ok()) return complain(Stage::kServing, who, status);
  return kExitDrained;
}

int run(int argc, char** argv) {
  if (argc == 2 && std::strcmp(argv[1], "--list-devices") == 0) {
    std::printf("%s", describe_devices().c_str());
    return 0;
  }
  const absl::StatusOr<ParsedConfig> parsed =
      parse_config(kWorker, absl::MakeConstSpan(argv, static_cast<std::size_t>(argc)));
  if (!parsed.ok()) return complain(Stage::kOptions, "", parsed.status());
  if (parsed->help) {
    std::printf("%s", help_text(kWorker, kUsage).c_str());
    return 0;
  }
  start_log("quire-worker", parsed->config.log_level);
  const auto group = ProcessGroup::open(parsed->config);
  if (!group.ok()) return complain(Stage::kOptions, "", group.status());
  const int code = work(parsed->config, **group);
  if (code != kExitDrained) (*group)->abort(code);
  (*group)->finalize();
  return code;
}

}  // namespace
}  // namespace quire

int main(int argc, char** argv) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);  // a worker without its mpirun has nothing to live for
  return quire::run(argc, argv);
}

// Everything that can be set, in one table. Option names are vLLM's where vLLM has one. The same
// table serves `quire serve`, quire-coordinator, quire-worker, --config FILE and --help.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace quire {

struct EngineConfig {
  // model
  std::string model;
  std::string served_model_name;     // default: the model's own name
  std::string load_format = "auto";  // auto, dummy: random weights of the model's shape
  bool skip_tokenizer_init = false;  // token ids in, token ids out
  std::string dtype = "auto";        // auto, float32, bfloat16
  int max_model_len = 0;             // 0 = the model's context
  std::uint64_t seed = 0;            // of requests that bring none: 0 = random
  // parallelism
  int tensor_parallel_size = 1;
  int data_parallel_size = 1;        // worker groups that serve at once
  int data_parallel_size_local = 0;  // of them, that this machine starts; 0: all
  std::string hostfile;              // mpirun's, for ranks on several hosts
  // device and memory
  std::string device = "auto";             // auto, cuda, cpu, reference
  double gpu_memory_utilization = 0.9;     // cuda: of free memory, for the KV cache
  bool deterministic = false;              // cuda: the same bits whatever shares the batch
  bool enforce_eager = false;              // cuda: no graphs
  std::string isa = "auto";                // auto, avx512, avx2
  int threads_per_rank = 0;                // 0 = the host's cores divided among its ranks
  int block_size = 16;                     // 16, 32, 64
  std::string kv_cache_dtype = "auto";     // auto, float32, float16, bfloat16, fp8, int8
  std::int64_t kv_cache_memory_bytes = 0;  // per rank; 0 = what max_num_seqs and memory suggest
  bool no_prefix_caching = false;
  std::int64_t kv_offload_bytes = 0;  // per rank, for blocks that leave the device; 0 = none
  std::string kv_offload_path;        // folder of files for them; empty: memory
  // scheduling
  int max_num_seqs = 128;
  int max_num_batched_tokens = 512;
  int steps_in_flight = 2;                 // 1 for debugging
  std::string scheduling_policy = "auto";  // auto, fcfs, priority, spf, lpm, fair
  int priority_ageing_ms = 10000;          // waiting that is worth one step of priority
  int long_prefill_token_threshold =
      -1;                          // tokens of one prompt per step; 0: no limit; -1: adaptive
  int max_num_queued_reqs = 8192;  // 0 = no limit
  std::int64_t max_num_queued_tokens = 0;   // of prompts; 0 = no limit
  std::string speculative_method = "auto";  // auto, none, ngram
  int num_speculative_tokens = 16;          // guesses per row and step, at most
  int prompt_lookup_max = 4;                // tokens that must repeat, at most
  int prompt_lookup_min = 2;
  // serving
  std::string host = "127.0.0.1";  // of HTTP
  int port = 8000;
  std::string ssl_certfile, ssl_keyfile;  // HTTPS; empty: plain HTTP
  std::string ssl_ca_certs;               // whose client certificates count
  int ssl_cert_reqs = 0;                  // 0 none, 1 optional, 2 required
  std::string grpc_host = "127.0.0.1";
  int grpc_port = 50051;
  std::string journal = "auto";      // a file; auto: one per port in the cache folder; none
  std::string journal_sync = "off";  // off, normal, full
  int resume_grace_s = 30;           // how long an unfinished answer waits for its client
  int drain_timeout = 30;  // seconds that running requests get when the server is told to stop
  // Mutual TLS on the gRPC port, all three or none: what this program presents there, and whose
  // certificates it accepts.
  std::string grpc_ssl_certfile, grpc_ssl_keyfile, grpc_ssl_ca_certs;
  std::string grpc_ssl_server_name;  // in the coordinator's certificate; empty: what is dialled
  bool grpc_insecure_private_network = false;  // plain gRPC beyond loopback, with a worker secret
  std::string api_key;                         // required in Authorization: Bearer for /v1 and gRPC
  std::string api_key_file;  // where it was read from; keeps it out of command lines
  std::string tenants_file;  // keys, names and weights of several users
  std::string log_level = "info";
  std::string progress = "auto";  // auto, bar, lines, none
  // worker (set by the launcher, or by hand where no MPI is)
  std::string coordinator = "127.0.0.1:50051";
  int rank = -1;  // -1 = from MPI
  int world_size = -1;
  int data_parallel_rank = 0;      // which of the groups that its machine starts
  std::string instance_id;         // default: made by rank 0 and spread by MPI
  std::string worker_secret_file;  // shared secret that workers present
};

inline int num_local_groups(const EngineConfig& config) {
  return config.data_parallel_size_local > 0 ? config.data_parallel_size_local
                                             : config.data_parallel_size;
}

// How long a server takes to stop in order, at most: with files for KV blocks the cache is written
// out first. `kSaveWithin` is the part for each of its two ends, coordinator and workers.
inline constexpr int kSaveWithinSeconds = 20;
inline int stop_within_seconds(const EngineConfig& config) {
  return 15 + config.drain_timeout + (config.kv_offload_path.empty() ? 0 : 2 * kSaveWithinSeconds);
}

// Which programs know an option.
enum ProgramMask : unsigned { kServe = 1, kCoordinator = 2, kWorker = 4, kAll = 7 };

// One row of the table.
struct Option {
  const char* name;   // "--max-model-len"
  const char* group;  // heading in --help
  const char* value;  // "TOKENS", shown in --help; null: a flag, true where it is given
  const char* help;
  unsigned programs;  // ProgramMask bits
  absl::Status (*set)(EngineConfig&,
                      const std::string&);  // InvalidArgument names value and range
  std::string (*get)(const EngineConfig&);
};
absl::Span<const Option> options();

// Parses argv (argv[0] skipped; one positional MODEL, the same as --model) over an optional
// --config FILE (YAML: the same names without the leading dashes, with - or _ inside), the command
// line winning. InvalidArgument names option, value and range, and for an unknown option the
// nearest name. `help` is set when --help was asked for; nothing else is checked then.
struct ParsedConfig {
  EngineConfig config;
  bool help = false;
};
absl::StatusOr<ParsedConfig> parse_config(ProgramMask program, absl::Span<const char* const> argv);
std::string help_text(ProgramMask program, const std::string& usage);

// The command line that reproduces `config` for another program: only options that differ from
// their defaults and that the program knows. Never a secret: see kApiKeyVariable.
std::vector<std::string> to_arguments(const EngineConfig& config, ProgramMask program);

// Whether only this machine can reach what listens on `host`, as far as its text tells: a name
// other than localhost counts as one that others reach.
bool is_loopback(const std::string& host);

// $QUIRE_CACHE or ~/.cache/quire (config_environment.cpp, the only place that reads the
// environment): what can be made again.
std::string cache_folder();
// The key that clients must send, where it comes neither by option nor by file: that is also how
// one program hands it to the next, because command lines are for everybody to read. Empty: none.
inline constexpr char kApiKeyVariable[] = "QUIRE_API_KEY";
std::string api_key_of_environment();
// Where deploy/setup.sh keeps the demo model.
std::string demo_model_path();
// The file that --journal means; empty: none. Where auto has no port to go by, none.
std::string journal_path(const EngineConfig& config);

}  // namespace quire

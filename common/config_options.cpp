// The option table. A row's `set` checks one value; what must hold between options is checked by
// parse_config(). Defaults are EngineConfig's initialisers and nowhere else.
#include <algorithm>
#include <limits>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/config.h"

namespace quire {
namespace {

absl::Status refuse(const std::string& value, absl::string_view allowed) {
  return absl::InvalidArgumentError(
      absl::StrCat("the value is '", value, "', but must be ", allowed, "."));
}

template <int EngineConfig::*Field, int Low, int High>
absl::Status set_int(EngineConfig& config, const std::string& value) {
  int parsed = 0;
  if (!absl::SimpleAtoi(value, &parsed) || parsed < Low || parsed > High) {
    return refuse(value, absl::StrCat("an integer in [", Low, ", ", High, "]"));
  }
  config.*Field = parsed;
  return absl::OkStatus();
}

template <int EngineConfig::*Field>
std::string get_int(const EngineConfig& config) {
  return absl::StrCat(config.*Field);
}

template <std::string EngineConfig::*Field>
absl::Status set_text(EngineConfig& config, const std::string& value) {
  if (value.empty()) return refuse(value, "a text that is not empty");
  config.*Field = value;
  return absl::OkStatus();
}

template <std::string EngineConfig::*Field>
std::string get_text(const EngineConfig& config) {
  return config.*Field;
}

constexpr const char* kLoadFormats[] = {"auto", "dummy"};
constexpr const char* kDtypes[] = {"auto", "float32", "bfloat16"};
constexpr const char* kKvDtypes[] = {"auto", "float32", "float16", "bfloat16", "fp8", "int8"};
constexpr const char* kPolicies[] = {"auto", "fcfs", "priority", "spf", "lpm", "fair"};
constexpr const char* kSpeculation[] = {"auto", "none", "ngram"};
constexpr const char* kDevices[] = {"auto", "cuda", "cpu", "reference"};
constexpr const char* kIsas[] = {"auto", "avx512", "avx512-vnni", "avx2"};
constexpr const char* kSyncs[] = {"off", "normal", "full"};
constexpr const char* kLogLevels[] = {"trace", "debug", "info", "warning", "error", "off"};
constexpr const char* kProgress[] = {"auto", "bar", "lines", "none"};

template <std::string EngineConfig::*Field, const auto& Choices>
absl::Status set_choice(EngineConfig& config, const std::string& value) {
  if (std::find(std::begin(Choices), std::end(Choices), value) == std::end(Choices)) {
    return refuse(value, absl::StrCat("one of ", absl::StrJoin(Choices, ", ")));
  }
  config.*Field = value;
  return absl::OkStatus();
}

template <bool EngineConfig::*Field>
absl::Status set_flag(EngineConfig& config, const std::string& value) {
  if (value != "true" && value != "false") return refuse(value, "true or false");
  config.*Field = value == "true";
  return absl::OkStatus();
}
template <bool EngineConfig::*Field>
std::string get_flag(const EngineConfig& config) {
  return config.*Field ? "true" : "false";
}

absl::Status set_utilization(EngineConfig& config, const std::string& value) {
  double parsed = 0.0;
  if (!absl::SimpleAtod(value, &parsed) || !(parsed > 0.0 && parsed <= 1.0)) {
    return refuse(value, "a number above 0, up to 1");
  }
  config.gpu_memory_utilization = parsed;
  return absl::OkStatus();
}
std::string get_utilization(const EngineConfig& config) {
  return absl::StrCat(config.gpu_memory_utilization);
}

absl::Status set_block_size(EngineConfig& config, const std::string& value) {
  int parsed = 0;
  if (!absl::SimpleAtoi(value, &parsed) || (parsed != 16 && parsed != 32 && parsed != 64)) {
    return refuse(value, "16, 32 or 64");
  }
  config.block_size = parsed;
  return absl::OkStatus();
}

// Every start proves the ranks by a prompt of two tokens and one answered: less is no context.
absl::Status set_max_model_len(EngineConfig& config, const std::string& value) {
  int parsed = 0;
  if (!absl::SimpleAtoi(value, &parsed) || (parsed != 0 && parsed < 3) || parsed > (1 << 30)) {
    return refuse(value, "0 or an integer in [3, 1073741824]");
  }
  config.max_model_len = parsed;
  return absl::OkStatus();
}

absl::Status set_seed(EngineConfig& config, const std::string& value) {
  if (absl::SimpleAtoi(value, &config.seed)) return absl::OkStatus();
  return refuse(value, "an integer in [0, 2^64)");
}
std::string get_seed(const EngineConfig& config) {
  return absl::StrCat(config.seed);
}

// "4G", "512MiB", "1073741824": powers of 1024.
template <std::int64_t EngineConfig::*Field>
absl::Status set_bytes(EngineConfig& config, const std::string& value) {
  constexpr const char* kAllowed = "bytes, such as 2147483648, 512M or 4G (at most 64T)";
  const std::size_t digits = std::min(value.find_first_not_of("0123456789"), value.size());
  std::uint64_t number = 0;
  if (!absl::SimpleAtoi(value.substr(0, digits), &number)) return refuse(value, kAllowed);
  const std::string suffix = value.substr(digits);
  const std::size_t power = suffix.empty() ? 0 : std::string("BKMGT").find(suffix[0]);
  const bool known =
      suffix.size() < 2 || (power > 0 && (suffix.substr(1) == "B" || suffix.substr(1) == "iB"));
  if (power == std::string::npos || !known) return refuse(value, kAllowed);
  const std::uint64_t unit = std::uint64_t{1} << (10 * power);
  if (number > (std::uint64_t{1} << 46) / unit) return refuse(value, kAllowed);
  config.*Field = static_cast<std::int64_t>(number * unit);
  return absl::OkStatus();
}
template <std::int64_t EngineConfig::*Field>
std::string get_int64(const EngineConfig& config) {
  return absl::StrCat(config.*Field);
}

absl::Status set_queued_tokens(EngineConfig& config, const std::string& value) {
  if (!absl::SimpleAtoi(value, &config.max_num_queued_tokens) || config.max_num_queued_tokens < 0) {
    return refuse(value, "an integer of at least 0");
  }
  return absl::OkStatus();
}

absl::Status set_api_key(EngineConfig& config, const std::string& value) {
  config.api_key_file.clear();
  if (value.empty()) {
    return absl::InvalidArgumentError("the key is empty; leave the option out to ask for none.");
  }
  config.api_key = value;
  return absl::OkStatus();
}
// Never told: command lines and help texts are for everybody to read.
std::string get_api_key(const EngineConfig&) {
  return "";
}
absl::Status set_api_key_file(EngineConfig& config, const std::string& value) {
  config.api_key.clear();
  return set_text<&EngineConfig::api_key_file>(config, value);
}

absl::Status set_coordinator(EngineConfig& config, const std::string& value) {
  const std::size_t colon = value.rfind(':');
  int port = 0;
  if (colon == std::string::npos || colon == 0 ||
      !absl::SimpleAtoi(value.substr(colon + 1), &port) || port < 1 || port > 65535) {
    return refuse(value, "HOST:PORT with a port in [1, 65535]");
  }
  config.coordinator = value;
  return absl::OkStatus();
}

using C = EngineConfig;
constexpr int kMaxTokens = 1 << 30;
constexpr unsigned kApi = kServe | kCoordinator;  // what clients see
constexpr unsigned kRanks = kServe | kWorker;     // what the ranks do

constexpr Option kOptions[] = {
    {"--model", "Model", "PATH",
     "GGUF file or Hugging Face folder (also as the argument MODEL; quire serve knows the alias "
     "smollm2)",
     kAll, set_text<&C::model>, get_text<&C::model>},
    {"--served-model-name", "Model", "NAME", "name in the APIs (default: the model's own)", kApi,
     set_text<&C::served_model_name>, get_text<&C::served_model_name>},
    {"--load-format", "Model", "HOW",
     "auto reads the checkpoint; dummy makes random weights of the shape that its config.json (or "
     "GGUF header) gives, without reading any: for benchmarks",
     kAll, set_choice<&C::load_format, kLoadFormats>, get_text<&C::load_format>},
    {"--skip-tokenizer-init", "Model", nullptr,
     "serve token ids without a tokenizer: prompts as ids, answers with token_ids and no text",
     kApi, set_flag<&C::skip_tokenizer_init>, get_flag<&C::skip_tokenizer_init>},
    {"--dtype", "Model", "TYPE", "arithmetic: auto (what suits the weights), float32 or bfloat16",
     kRanks, set_choice<&C::dtype, kDtypes>, get_text<&C::dtype>},
    {"--max-model-len", "Model", "TOKENS",
     "longest prompt plus answer; 0 is the model's own context", kAll, set_max_model_len,
     get_int<&C::max_model_len>},
    {"--seed", "Model", "NUMBER", "seed of requests that bring none; 0 draws one for each", kApi,
     set_seed, get_seed},

    {"--tensor-parallel-size", "Parallelism", "N",
     "ranks that share every layer; at most the model's query heads", kApi,
     set_int<&C::tensor_parallel_size, 1, 4096>, get_int<&C::tensor_parallel_size>},
    {"--data-parallel-size", "Parallelism", "N",
     "worker groups that serve at once, each with the whole model; requests go where they are done "
     "first. Above 1 a group that attaches may have any number of ranks",
     kApi, set_int<&C::data_parallel_size, 1, 256>, get_int<&C::data_parallel_size>},
    {"--data-parallel-size-local", "Parallelism", "N",
     "of those groups, how many this machine starts: they share its cores and GPUs; others attach "
     "by themselves. 0: all",
     kRanks, set_int<&C::data_parallel_size_local, 0, 256>, get_int<&C::data_parallel_size_local>},
    {"--hostfile", "Parallelism", "FILE", "mpirun's list of hosts, for ranks on several of them",
     kServe, set_text<&C::hostfile>, get_text<&C::hostfile>},

    {"--device", "Device and memory", "NAME",
     "backend: auto (a GPU where there is one), cuda, cpu, or reference (plain and slow)", kRanks,
     set_choice<&C::device, kDevices>, get_text<&C::device>},
    {"--gpu-memory-utilization", "Device and memory", "SHARE",
     "on GPUs: the most of what the weights leave free that the KV cache may take", kRanks,
     set_utilization, get_utilization},
    {"--deterministic", "Device and memory", nullptr,
     "on GPUs: the same bits whatever shares the batch, at some cost (CPUs always do so)", kRanks,
     set_flag<&C::deterministic>, get_flag<&C::deterministic>},
    {"--enforce-eager", "Device and memory", nullptr,
     "on GPUs: launch every kernel on its own instead of whole steps as CUDA graphs", kRanks,
     set_flag<&C::enforce_eager>, get_flag<&C::enforce_eager>},
    {"--isa", "Device and memory", "NAME",
     "instruction set of the CPU backend: auto, avx512 (with BF16), avx512-vnni, avx2", kRanks,
     set_choice<&C::isa, kIsas>, get_text<&C::isa>},
    {"--threads-per-rank", "Device and memory", "N",
     "threads of each rank; 0 divides the host's cores among its ranks", kRanks,
     set_int<&C::threads_per_rank, 0, 1024>, get_int<&C::threads_per_rank>},
    {"--block-size", "Device and memory", "TOKENS", "positions per KV block: 16, 32 or 64", kAll,
     set_block_size, get_int<&C::block_size>},
    {"--kv-cache-dtype", "Device and memory", "TYPE",
     "how keys and values are stored: auto (what suits the weights), float32, float16, bfloat16, "
     "or "
     "in half as much, with a scale per token and head, fp8 (e4m3, not on CPUs) or int8 (not on "
     "GPUs)",
     kRanks, set_choice<&C::kv_cache_dtype, kKvDtypes>, get_text<&C::kv_cache_dtype>},
    {"--kv-cache-memory-bytes", "Device and memory", "BYTES",
     "KV cache of each rank, such as 512M or 4G; 0 chooses by --max-num-seqs and free memory",
     kRanks, set_bytes<&C::kv_cache_memory_bytes>, get_int64<&C::kv_cache_memory_bytes>},

    {"--no-enable-prefix-caching", "Device and memory", nullptr,
     "compute every prompt in full, also what an earlier one has computed", kApi,
     set_flag<&C::no_prefix_caching>, get_flag<&C::no_prefix_caching>},
    {"--kv-offload-bytes", "Device and memory", "BYTES",
     "room on each rank for KV blocks that leave its cache, such as 4G; 0 drops them", kAll,
     set_bytes<&C::kv_offload_bytes>, get_int64<&C::kv_offload_bytes>},
    {"--kv-offload-path", "Device and memory", "FOLDER",
     "keep those blocks in files there; prefixes are found again after a restart", kAll,
     set_text<&C::kv_offload_path>, get_text<&C::kv_offload_path>},

    {"--max-num-seqs", "Scheduling", "N", "sequences that run at once", kAll,
     set_int<&C::max_num_seqs, 1, 65536>, get_int<&C::max_num_seqs>},
    {"--max-num-batched-tokens", "Scheduling", "TOKENS", "tokens per step, prompts and answers",
     kAll, set_int<&C::max_num_batched_tokens, 2, 1 << 20>, get_int<&C::max_num_batched_tokens>},
    {"--steps-in-flight", "Scheduling", "N", "plans sent before the first result; 1 for debugging",
     kAll, set_int<&C::steps_in_flight, 1, 2>, get_int<&C::steps_in_flight>},
    {"--scheduling-policy", "Scheduling", "NAME",
     "who is next: fcfs, priority, spf (shortest prefill first), lpm (longest prefix match), fair "
     "(equal shares for tenants); auto is fair with several tenants, else fcfs",
     kApi, set_choice<&C::scheduling_policy, kPolicies>, get_text<&C::scheduling_policy>},
    {"--priority-ageing-ms", "Scheduling", "MS", "waiting that makes up for one step of `priority`",
     kApi, set_int<&C::priority_ageing_ms, 1, 86400000>, get_int<&C::priority_ageing_ms>},
    {"--long-prefill-token-threshold", "Scheduling", "TOKENS",
     "tokens that one prompt gets in a step; 0: no limit; -1: by time, about as much of a step as "
     "the streams that run take of it",
     kApi, set_int<&C::long_prefill_token_threshold, -1, 1 << 20>,
     get_int<&C::long_prefill_token_threshold>},
    {"--max-num-queued-reqs", "Scheduling", "N",
     "requests that may wait before others are refused; 0: no limit", kApi,
     set_int<&C::max_num_queued_reqs, 0, 1 << 30>, get_int<&C::max_num_queued_reqs>},
    {"--max-num-queued-tokens", "Scheduling", "TOKENS",
     "prompt tokens that may wait before others are refused; 0: no limit", kApi, set_queued_tokens,
     get_int64<&C::max_num_queued_tokens>},
    {"--speculative-method", "Scheduling", "NAME",
     "guess tokens ahead and check several in one step: ngram (what followed the same tokens "
     "before), none, or auto (ngram where no answer changes by it: on CPUs, and on GPUs with "
     "--deterministic)",
     kApi, set_choice<&C::speculative_method, kSpeculation>, get_text<&C::speculative_method>},
    {"--num-speculative-tokens", "Scheduling", "N", "guesses per sequence and step, at most", kApi,
     set_int<&C::num_speculative_tokens, 1, 16>, get_int<&C::num_speculative_tokens>},
    {"--prompt-lookup-max", "Scheduling", "N", "ngram: tokens that must repeat, at most", kApi,
     set_int<&C::prompt_lookup_max, 1, 16>, get_int<&C::prompt_lookup_max>},
    {"--prompt-lookup-min", "Scheduling", "N", "ngram: tokens that must repeat, at least", kApi,
     set_int<&C::prompt_lookup_min, 1, 16>, get_int<&C::prompt_lookup_min>},

    {"--host", "Serving", "ADDRESS", "address of the HTTP API; 0.0.0.0 lets other machines in",
     kApi, set_text<&C::host>, get_text<&C::host>},
    {"--port", "Serving", "PORT", "HTTP port; 0 takes a free one", kApi,
     set_int<&C::port, 0, 65535>, get_int<&C::port>},
    {"--ssl-certfile", "Serving", "FILE", "PEM certificate (and chain) of the HTTP API: HTTPS",
     kApi, set_text<&C::ssl_certfile>, get_text<&C::ssl_certfile>},
    {"--ssl-keyfile", "Serving", "FILE", "its private key, which only this user may read", kApi,
     set_text<&C::ssl_keyfile>, get_text<&C::ssl_keyfile>},
    {"--ssl-ca-certs", "Serving", "FILE", "authorities whose client certificates are accepted",
     kApi, set_text<&C::ssl_ca_certs>, get_text<&C::ssl_ca_certs>},
    {"--ssl-cert-reqs", "Serving", "N",
     "client certificates over HTTPS: 0 asks for none, 1 checks those that come, 2 requires one",
     kApi, set_int<&C::ssl_cert_reqs, 0, 2>, get_int<&C::ssl_cert_reqs>},
    {"--grpc-host", "Serving", "ADDRESS",
     "address of the gRPC port, for clients and workers; one that other machines reach needs the "
     "three --grpc-ssl options, or --grpc-insecure-private-network",
     kApi, set_text<&C::grpc_host>, get_text<&C::grpc_host>},
    {"--grpc-port", "Serving", "PORT", "gRPC port, for clients and workers; 0 takes a free one",
     kApi, set_int<&C::grpc_port, 0, 65535>, get_int<&C::grpc_port>},
    {"--drain-timeout", "Serving", "SECONDS",
     "what running requests get to finish when the server is told to stop; 0 ends them at once",
     kApi, set_int<&C::drain_timeout, 0, 86400>, get_int<&C::drain_timeout>},
    {"--grpc-ssl-certfile", "Serving", "FILE",
     "PEM certificate that this program presents on the gRPC port: mutual TLS, for clients and "
     "workers alike",
     kAll, set_text<&C::grpc_ssl_certfile>, get_text<&C::grpc_ssl_certfile>},
    {"--grpc-ssl-keyfile", "Serving", "FILE", "its private key, which only this user may read",
     kAll, set_text<&C::grpc_ssl_keyfile>, get_text<&C::grpc_ssl_keyfile>},
    {"--grpc-ssl-ca-certs", "Serving", "FILE",
     "authorities whose certificates are accepted there; every client and worker must have one",
     kAll, set_text<&C::grpc_ssl_ca_certs>, get_text<&C::grpc_ssl_ca_certs>},
    {"--grpc-ssl-server-name", "Serving", "NAME",
     "name in the coordinator's certificate, where workers dial it by another", kRanks,
     set_text<&C::grpc_ssl_server_name>, get_text<&C::grpc_ssl_server_name>},
    {"--grpc-insecure-private-network", "Serving", nullptr,
     "let --grpc-host be an address that other machines reach without TLS, because that network is "
     "private; needs --worker-secret-file",
     kApi, set_flag<&C::grpc_insecure_private_network>,
     get_flag<&C::grpc_insecure_private_network>},
    {"--api-key", "Serving", "KEY",
     "key that clients must send; whoever lists processes just then can read it: prefer "
     "--api-key-file, or QUIRE_API_KEY in the environment",
     kApi, set_api_key, get_api_key},
    {"--api-key-file", "Serving", "FILE", "file that holds the key that clients must send", kApi,
     set_api_key_file, get_text<&C::api_key_file>},
    {"--tenants", "Serving", "FILE",
     "YAML list of the server's users, each with name, key and weight (default 1): their keys are "
     "asked for, and --scheduling-policy fair divides the server by their weights",
     kApi, set_text<&C::tenants_file>, get_text<&C::tenants_file>},
    {"--journal", "Serving", "FILE",
     "where unfinished requests are kept, so that a crash of the coordinator loses none; auto: one "
     "file per port in the cache folder; none",
     kApi, set_text<&C::journal>, get_text<&C::journal>},
    {"--journal-sync", "Serving", "HOW",
     "off: a crash of the process loses nothing; normal, full: nor does one of the machine "
     "(slower)",
     kApi, set_choice<&C::journal_sync, kSyncs>, get_text<&C::journal_sync>},
    {"--resume-grace", "Serving", "SECONDS",
     "how long an unfinished answer that can be resumed waits for its client", kApi,
     set_int<&C::resume_grace_s, 0, 86400>, get_int<&C::resume_grace_s>},
    {"--log-level", "Serving", "LEVEL", "trace, debug, info, warning, error or off", kAll,
     set_choice<&C::log_level, kLogLevels>, get_text<&C::log_level>},
    {"--progress", "Serving", "HOW", "while loading: auto, bar, lines or none", kRanks,
     set_choice<&C::progress, kProgress>, get_text<&C::progress>},

    {"--coordinator", "Workers", "HOST:PORT", "where the worker dials in", kWorker, set_coordinator,
     get_text<&C::coordinator>},
    {"--rank", "Workers", "N", "rank of this worker where no MPI starts it", kWorker,
     set_int<&C::rank, -1, 4095>, get_int<&C::rank>},
    {"--world-size", "Workers", "N", "number of ranks where no MPI starts them", kWorker,
     set_int<&C::world_size, -1, 4096>, get_int<&C::world_size>},
    {"--data-parallel-rank", "Workers", "N",
     "which of the --data-parallel-size-local groups of its machine this rank is of", kWorker,
     set_int<&C::data_parallel_rank, 0, 255>, get_int<&C::data_parallel_rank>},
    {"--instance-id", "Workers", "TEXT",
     "one name for all ranks of a group, where no MPI spreads it", kWorker,
     set_text<&C::instance_id>, get_text<&C::instance_id>},
    {"--worker-secret-file", "Workers", "FILE", "file with the secret that workers present", kAll,
     set_text<&C::worker_secret_file>, get_text<&C::worker_secret_file>},
};

}  // namespace

absl::Span<const Option> options() {
  return kOptions;
}

}  // namespace quire

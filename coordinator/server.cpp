// Starts the parts in the order in which they need each other and stops them in reverse: streams
// end before the engine's users go, workers are drained before gRPC closes.
#include "coordinator/server.h"

#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/health_check_service_interface.h>

#include <atomic>
#include <chrono>
#include <random>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "common/config_file.h"
#include "common/log.h"
#include "common/metrics.h"
#include "common/model_file/model_file.h"
#include "common/shard.h"
#include "common/status.h"
#include "common/tenants.h"
#include "common/tls.h"
#include "coordinator/api/answer_book.h"
#include "coordinator/api/grpc_generate.h"
#include "coordinator/api/http_server.h"
#include "coordinator/api/service.h"
#include "coordinator/engine/engine.h"
#include "coordinator/engine/prefix_file.h"
#include "coordinator/fleet/fleet.h"
#include "coordinator/journal/journal.h"
#include "coordinator/listen.h"
#include "spdlog/spdlog.h"

namespace quire {
namespace {

constexpr absl::Duration kDrainWithin = absl::Seconds(3);
constexpr absl::Duration kSaveWithin = absl::Seconds(kSaveWithinSeconds);
constexpr int kMaxReceiveBytes = 8 << 20;
constexpr int kMaxMetadataBytes = 16 << 10;
constexpr int kMaxStreamsPerConnection = 1024;

// The GGUF file and the Hugging Face folder say nothing about ranks: refused here, with both
// numbers, instead of by every worker.
absl::Status check_ranks(const EngineConfig& config, const ModelSpec& spec) {
  return make_shard_map(spec, config.tensor_parallel_size, 1).status();
}

void set_connection_arguments(grpc::ServerBuilder& builder) {
  // Pings find a peer that vanished without a word; clients may ping as often.
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, 10000);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 5000);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 5000);
  builder.AddChannelArgument(GRPC_ARG_MAX_METADATA_SIZE, kMaxMetadataBytes);
  builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, kMaxStreamsPerConnection);
  // Without this a second coordinator would silently share the port.
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  builder.SetMaxReceiveMessageSize(kMaxReceiveBytes);
}

// Mutual: who has no certificate of the authority never gets as far as HTTP/2.
std::shared_ptr<grpc::ServerCredentials> credentials_of(const TlsPem& tls) {
  if (tls.cert.empty()) return grpc::InsecureServerCredentials();
  grpc::SslServerCredentialsOptions options(
      GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY);
  options.pem_root_certs = tls.ca;
  options.pem_key_cert_pairs = {{tls.key, tls.cert}};
  return grpc::SslServerCredentials(options);
}

}  // namespace

class Server::Impl {
 public:
  Impl(const EngineConfig& config, ServerEvents events)
      : config_(config), events_(std::move(events)) {}
  ~Impl() {
    hurry();
    stop();
  }

  absl::Status start() {
    if (!config_.tenants_file.empty()) {
      QUIRE_ASSIGN_OR_RETURN(tenants_, read_tenants(config_.tenants_file));
    }
    QUIRE_RETURN_IF_ERROR(read_certificates());
    QUIRE_RETURN_IF_ERROR(load_model());
    // Before the journal: a second server on a port hears of the port, not of the port's journal.
    QUIRE_RETURN_IF_ERROR(check_can_listen(config_.host, config_.port, "--host", "--port"));
    QUIRE_RETURN_IF_ERROR(
        check_can_listen(config_.grpc_host, config_.grpc_port, "--grpc-host", "--grpc-port"));
    QUIRE_RETURN_IF_ERROR(open_journal());
    QUIRE_RETURN_IF_ERROR(make_fleet());
    metrics_ =
        std::make_unique<Metrics>(model_.name, model_.max_model_len, config_.data_parallel_size);
    book_ = std::make_unique<AnswerBook>(
        engine_.get(), AnswerBookOptions{.grace = absl::Seconds(config_.resume_grace_s)});
    api_ = {.config = &config_,
            .model = &model_,
            .engine = engine_.get(),
            .metrics = metrics_.get(),
            .tenants = tenants_,
            .book = book_.get(),
            .is_journaled = journal_ != nullptr};
    take_up();
    generation_ = std::make_unique<GenerationService>(api_);
    QUIRE_RETURN_IF_ERROR(start_grpc());
    QUIRE_ASSIGN_OR_RETURN(http_,
                           HttpServer::start(api_, config_.host, config_.port, {}, http_tls_));
    engine_->start(fleet_.get());
    return absl::OkStatus();
  }

  void stop() {
    if (std::exchange(stopped_, true)) return;
    stopping_ = true;
    set_health(false);
    drain();
    const std::uint64_t saved_prefixes = hurried_ ? 0 : save_prefixes();
    if (engine_ != nullptr) engine_->stop();
    if (journal_ != nullptr) journal_->close();
    if (generation_ != nullptr) generation_->stop(absl::Seconds(2));
    if (http_ != nullptr) http_->stop();
    if (fleet_ != nullptr)
      fleet_->shutdown(saved_prefixes != 0 ? kSaveWithin : kDrainWithin, saved_prefixes);
    if (looks_.joinable()) {
      ended_.Notify();
      looks_.join();
    }
    if (grpc_ != nullptr) {
      grpc_->Shutdown(std::chrono::system_clock::now() + std::chrono::seconds(1));
      grpc_->Wait();
    }
  }

  void hurry() {
    hurried_ = true;
    if (engine_ != nullptr) engine_->hurry();
  }

  void fail() {
    spdlog::error("no worker group will come any more: refusing requests");
    hurry();
    engine_->fail();
    set_health(false);
  }

  std::string http_url() const {
    return absl::StrCat(config_.ssl_certfile.empty() ? "http://" : "https://",
                        reachable_address(config_.host, http_->port()));
  }
  std::string grpc_address() const { return reachable_address(config_.grpc_host, grpc_port_); }
  bool ready() const { return engine_->stats().ready; }

 private:
  void drain() {
    if (engine_ == nullptr) return;
    const absl::Duration patience = absl::Seconds(hurried_ ? 0 : config_.drain_timeout);
    if (engine_->drain(patience) || engine_->stats().unfinished == 0) return;
    spdlog::warn("ending {} requests that are not finished", engine_->stats().unfinished);
  }

  absl::Status read_certificates() {
    QUIRE_ASSIGN_OR_RETURN(
        http_tls_.pem, read_tls({config_.ssl_certfile, config_.ssl_keyfile, config_.ssl_ca_certs},
                                {"--ssl-certfile", "--ssl-keyfile", "--ssl-ca-certs"}));
    http_tls_.client_certificates = static_cast<ClientCertificates>(config_.ssl_cert_reqs);
    QUIRE_ASSIGN_OR_RETURN(grpc_tls_, read_tls(grpc_files(config_), kGrpcTlsNames));
    return absl::OkStatus();
  }

  absl::Status load_model() {
    QUIRE_ASSIGN_OR_RETURN(const ModelFile file,
                           open_model(config_.model, load_format_of(config_.load_format)));
    QUIRE_RETURN_IF_ERROR(check_ranks(config_, file.spec));
    QUIRE_ASSIGN_OR_RETURN(model_, make_served_model(config_, file));
    config_.max_model_len = model_.max_model_len;
    model_hash_ = file.hash;
    return absl::OkStatus();
  }

  absl::Status open_journal() {
    const std::string path = journal_path(config_);
    if (path.empty()) return absl::OkStatus();
    JournalOptions options;
    options.path = path;
    options.sync = config_.journal_sync;
    options.model_hash = model_hash_;
    for (const TenantEntry& entry : tenants_) options.tenants.push_back(entry.name);
    QUIRE_ASSIGN_OR_RETURN(journal_, Journal::open(options));
    for (const std::string& problem : journal_->problems()) {
      spdlog::warn("journal {}: {}", path, log_text(problem));
    }
    return absl::OkStatus();
  }

  // What an earlier coordinator had accepted goes on.
  void take_up() {
    if (journal_ == nullptr) return;
    engine_->set_journal(journal_.get());
    engine_->set_first_request(journal_->last_request() + 1);
    std::vector<SavedAnswer> saved = journal_->take_saved();
    const std::size_t num_answers = saved.size();
    if (const int resumed = book_->restore(std::move(saved)); num_answers > 0) {
      spdlog::info("journal: {} answers of an earlier run can be resumed; {} requests go on",
                   num_answers, resumed);
    }
  }

  absl::Status make_fleet() {
    FleetOptions options;
    options.build = QUIRE_VERSION;
    options.num_seats = config_.data_parallel_size;
    if (!config_.worker_secret_file.empty()) {
      QUIRE_ASSIGN_OR_RETURN(options.secret, read_secret(config_.worker_secret_file));
    }
    std::vector<Tenant> tenants;
    for (const TenantEntry& entry : tenants_) {
      tenants.push_back({entry.name, entry.weight, entry.max_requests, entry.max_waiting_tokens});
    }
    engine_ =
        std::make_unique<Engine>(config_, model_.spec, absl::ZeroDuration(), std::move(tenants));
    options.known_saved_prefixes = find_saved_prefixes();
    if (journal_ != nullptr) options.last_epoch = journal_->last_epoch().epoch;
    engine_->set_events({.on_ready =
                             [this] {
                               set_health(true);
                               events_.on_ready();
                             },
                         .on_lost = [this] { set_health(false); },
                         .on_progress =
                             [this](EpochId epoch, const std::string& instance) {
                               events_.on_progress(instance, epoch);
                             }});
    FleetEvents events;
    events.on_ready = [this](const GroupReady& ready) {
      if (journal_ != nullptr) journal_->note_epoch({ready.epoch, ready.numerics});
      events_.on_attached(ready.instance, ready.epoch);
      engine_->on_ready(ready);
    };
    events.on_result = [this](StepResult result) { engine_->on_result(std::move(result)); };
    events.on_lost = [this](EpochId epoch, EndCause cause, const std::string&) {
      engine_->on_lost(epoch, cause);
    };
    events.on_ended = [this](const EndedEpoch& ended) {
      events_.on_lost(ended.instance, ended.epoch, name_of(ended.cause));
    };
    fleet_ = std::make_unique<Fleet>(config_, model_hash_, std::move(events), std::move(options));
    return absl::OkStatus();
  }

  // What the workers' offload stores still hold of an earlier life. A file that cannot be read
  // costs the prefixes, not the start.
  std::uint64_t find_saved_prefixes() {
    if (config_.kv_offload_path.empty()) return 0;
    absl::StatusOr<SavedPrefixes> saved = read_prefix_file(config_.kv_offload_path, model_hash_);
    if (!saved.ok()) {
      spdlog::warn("{}", std::string(saved.status().message()));
      return 0;
    }
    engine_->set_saved_prefixes(std::move(saved->index));
    return saved->id;
  }

  // The id that the workers note; 0: nothing is saved.
  std::uint64_t save_prefixes() {
    if (config_.kv_offload_path.empty() || fleet_ == nullptr || engine_ == nullptr) return 0;
    SavedPrefixes saved;
    saved.index = engine_->save_prefixes(kSaveWithin);
    if (saved.index.empty()) return 0;
    std::random_device random;
    saved.id = (std::uint64_t{random()} << 32 | random()) | 1;
    const absl::Status written = write_prefix_file(config_.kv_offload_path, model_hash_, saved);
    if (!written.ok()) spdlog::warn("{}", std::string(written.message()));
    return written.ok() ? saved.id : 0;
  }

  absl::Status start_grpc() {
    QUIRE_RETURN_IF_ERROR(
        check_can_listen(config_.grpc_host, config_.grpc_port, "--grpc-host", "--grpc-port"));
    grpc::EnableDefaultHealthCheckService(true);
    grpc::reflection::InitProtoReflectionServerBuilderPlugin();
    grpc::ServerBuilder builder;
    set_connection_arguments(builder);
    builder.AddListeningPort(join_host_port(config_.grpc_host, config_.grpc_port),
                             credentials_of(grpc_tls_), &grpc_port_);
    builder.RegisterService(fleet_->service());
    builder.RegisterService(generation_->service());
    grpc_ = builder.BuildAndStart();
    if (grpc_ == nullptr || grpc_port_ == 0) {
      return absl::UnavailableError(absl::StrCat(
          "Cannot listen for gRPC on ", join_host_port(config_.grpc_host, config_.grpc_port),
          "; choose another --grpc-host or --grpc-port."));
    }
    absl::MutexLock lock(&health_mutex_);
    health_ = grpc_->GetHealthCheckService();
    publish_health();
    looks_ = std::thread([this] {
      while (!ended_.WaitForNotificationWithTimeout(kLookEvery)) {
        absl::MutexLock again(&health_mutex_);
        publish_health();
      }
    });
    return absl::OkStatus();
  }

  void set_health(bool serving) {
    absl::MutexLock lock(&health_mutex_);
    serving_ = serving && !stopping_;
    publish_health();
  }

  // "live" says what GET /health says, "ready" what GET /ready says; "" is what clients ask for by
  // default. A worker may be ready while the gRPC server is still starting: then start_grpc
  // publishes.
  void publish_health() ABSL_EXCLUSIVE_LOCKS_REQUIRED(health_mutex_) {
    if (health_ == nullptr) return;
    const bool ready = serving_ && engine_->stats().journal.writable;
    health_->SetServingStatus("live", engine_->check_progress().ok());
    for (const char* service : {"", "ready"}) health_->SetServingStatus(service, ready);
  }

  // Nobody tells when a step is overdue or the journal cannot be written.
  static constexpr absl::Duration kLookEvery = absl::Milliseconds(250);

  EngineConfig config_;
  const ServerEvents events_;
  HttpTls http_tls_;
  TlsPem grpc_tls_;
  std::uint64_t model_hash_ = 0;
  ServedModel model_;
  std::vector<TenantEntry> tenants_;
  std::unique_ptr<Metrics> metrics_;
  Api api_;
  std::unique_ptr<Journal> journal_;
  std::unique_ptr<Engine> engine_;
  std::unique_ptr<AnswerBook> book_;
  std::unique_ptr<Fleet> fleet_;
  std::unique_ptr<GenerationService> generation_;
  std::unique_ptr<grpc::Server> grpc_;
  std::unique_ptr<HttpServer> http_;
  int grpc_port_ = 0;
  absl::Mutex health_mutex_;
  grpc::HealthCheckServiceInterface* health_ ABSL_GUARDED_BY(health_mutex_) = nullptr;
  bool serving_ ABSL_GUARDED_BY(health_mutex_) = false;
  absl::Notification ended_;
  std::thread looks_;
  std::atomic<bool> stopping_ = false, hurried_ = false;
  bool stopped_ = false;
};

absl::StatusOr<std::unique_ptr<Server>> Server::start(const EngineConfig& config,
                                                      ServerEvents events) {
  auto impl = std::make_unique<Impl>(config, std::move(events));
  QUIRE_RETURN_IF_ERROR(impl->start());
  return std::unique_ptr<Server>(new Server(std::move(impl)));
}

Server::Server(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Server::~Server() = default;

std::string Server::http_url() const {
  return impl_->http_url();
}
std::string Server::grpc_address() const {
  return impl_->grpc_address();
}
bool Server::ready() const {
  return impl_->ready();
}
void Server::stop() {
  impl_->stop();
}
void Server::hurry() {
  impl_->hurry();
}
void Server::fail() {
  impl_->fail();
}

}  // namespace quire

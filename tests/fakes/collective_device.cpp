#include "tests/fakes/collective_device.h"

#include <cstring>
#include <map>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "common/status.h"

namespace quire::test {
namespace {

// --- among threads ---

// A meeting point of `world` threads: rounds of "all have come", then "all have taken".
struct Table {
  absl::Mutex mutex;
  int joined = 0;
  int arrivals = 0;  // of all rounds
  bool aborted = false;
  std::vector<const void*> in;
};

class ThreadCollective final : public BlockingCollective {
 public:
  ThreadCollective(CollectiveOptions options, std::shared_ptr<Table> table, bool in_place)
      : options_(std::move(options)), table_(std::move(table)), in_place_(in_place) {}

  std::string description() const override { return "threads"; }
  absl::StatusOr<void*> allocate(std::size_t bytes, const std::string&) override {
    void* const own = memory_.emplace_back(new Line[(bytes + 63) / 64]()).get();
    if (in_place_) {
      QUIRE_RETURN_IF_ERROR(meet(own));
      regions_.push_back({bytes, table_->in});
      QUIRE_RETURN_IF_ERROR(meet(nullptr));
    }
    return own;
  }
  const void* peer(const void* mine, int rank) const override {
    for (const Region& region : regions_) {
      const std::ptrdiff_t offset =
          static_cast<const std::byte*>(mine) -
          static_cast<const std::byte*>(region.at[static_cast<std::size_t>(options_.rank)]);
      if (offset < 0 || offset >= static_cast<std::ptrdiff_t>(region.bytes)) continue;
      return static_cast<const std::byte*>(region.at[static_cast<std::size_t>(rank)]) + offset;
    }
    return nullptr;
  }
  absl::Status meet() override { return meet(nullptr); }
  absl::Status all_gather(const void* in, void* out, std::size_t bytes) override {
    QUIRE_RETURN_IF_ERROR(meet(in));
    for (std::size_t r = 0; r < table_->in.size(); ++r) {
      std::byte* to = static_cast<std::byte*>(out) + r * bytes;
      if (to != table_->in[r]) std::memcpy(to, table_->in[r], bytes);
    }
    return meet(nullptr);
  }
  absl::Status broadcast(void* data, std::size_t bytes, int root) override {
    QUIRE_RETURN_IF_ERROR(meet(data));
    const void* from = table_->in[static_cast<std::size_t>(root)];
    if (from != data) std::memcpy(data, from, bytes);
    return meet(nullptr);
  }
  void abort() override {
    absl::MutexLock lock(&table_->mutex);
    table_->aborted = true;
  }

  // Waits for all to have come once more. `in` is shown to all where it is not null.
  absl::Status meet(const void* in) {
    absl::MutexLock lock(&table_->mutex);
    if (table_->aborted) return absl::AbortedError("given up");
    if (in != nullptr) table_->in[static_cast<std::size_t>(options_.rank)] = in;
    ++table_->arrivals;
    arrivals_due_ += options_.world;
    const auto all = [this] { return table_->aborted || table_->arrivals >= arrivals_due_; };
    if (!table_->mutex.AwaitWithTimeout(absl::Condition(&all),
                                        absl::Milliseconds(options_.deadline_ms))) {
      return absl::DeadlineExceededError("a thread did not come");
    }
    return table_->arrivals < arrivals_due_ ? absl::AbortedError("given up") : absl::OkStatus();
  }

 private:
  struct alignas(64) Line {
    std::byte bytes[64];
  };
  const CollectiveOptions options_;
  struct Region {
    std::size_t bytes;
    std::vector<const void*> at;  // by rank
  };
  const std::shared_ptr<Table> table_;
  const bool in_place_;
  std::vector<Region> regions_;
  int arrivals_due_ = 0;
  std::vector<std::unique_ptr<Line[]>> memory_;
};

struct Tables {
  absl::Mutex mutex;
  int ids = 0;
  std::map<std::string, std::shared_ptr<Table>> by_id;
};

// --- the device ---

class QueuedCollective final : public Collective {
 public:
  QueuedCollective(Device& device, std::unique_ptr<BlockingCollective> inner)
      : device_(device), inner_(std::move(inner)) {}
  std::string description() const override { return inner_->description(); }
  absl::StatusOr<void*> allocate(std::size_t bytes, const std::string& what) override {
    return inner_->allocate(bytes, what);
  }
  void all_gather(const void* in, void* out, std::size_t bytes) override {
    device_.host_task([=, this] { return inner_->all_gather(in, out, bytes); });
  }
  void broadcast(void* data, std::size_t bytes, int root) override {
    device_.host_task([=, this] { return inner_->broadcast(data, bytes, root); });
  }
  const void* peer(const void* mine, int rank) const override { return inner_->peer(mine, rank); }
  void meet() override {
    device_.host_task([this] { return inner_->meet(); });
  }
  void abort() override { inner_->abort(); }

 private:
  Device& device_;
  const std::unique_ptr<BlockingCollective> inner_;
};

class CollectiveDevice final : public Device {
 public:
  CollectiveDevice(std::unique_ptr<Device> inner, CollectiveMaker maker)
      : inner_(std::move(inner)), maker_(std::move(maker)) {}

  std::string description() const override { return inner_->description(); }
  std::string numerics_id() const override { return inner_->numerics_id(); }
  bool one_answer() const override { return inner_->one_answer(); }
  absl::StatusOr<void*> allocate(std::size_t bytes, const std::string& what) override {
    return inner_->allocate(bytes, what);
  }
  absl::StatusOr<void*> allocate_host(std::size_t bytes, const std::string& what) override {
    return inner_->allocate_host(bytes, what);
  }
  void free(void* memory) override { inner_->free(memory); }
  void expect_use(std::byte* begin, std::size_t bytes) override {
    inner_->expect_use(begin, bytes);
  }
  std::int64_t free_bytes() const override { return inner_->free_bytes(); }
  double kv_share() const override { return inner_->kv_share(); }
  Ops& ops() override { return inner_->ops(); }
  void copy(void* to, const void* from, std::size_t bytes) override {
    inner_->copy(to, from, bytes);
  }
  void host_task(std::function<absl::Status()> task) override {
    inner_->host_task(std::move(task));
  }
  std::string collective_kind() const override { return maker_.kind; }
  absl::StatusOr<std::string> make_collective_id() override { return maker_.make_id(); }
  absl::StatusOr<std::unique_ptr<Collective>> open_collective(
      const CollectiveOptions& options) override {
    QUIRE_ASSIGN_OR_RETURN(std::unique_ptr<BlockingCollective> opened, maker_.open(options));
    return std::make_unique<QueuedCollective>(*inner_, std::move(opened));
  }
  absl::Status wait() override { return inner_->wait(); }

 private:
  const std::unique_ptr<Device> inner_;
  const CollectiveMaker maker_;
};

}  // namespace

CollectiveMaker among_threads(bool in_place) {
  static auto* tables = new Tables;
  CollectiveMaker maker;
  maker.kind = "threads";
  maker.make_id = [] {
    absl::MutexLock lock(&tables->mutex);
    return absl::StrCat("table ", ++tables->ids);
  };
  maker.open =
      [in_place](
          const CollectiveOptions& options) -> absl::StatusOr<std::unique_ptr<BlockingCollective>> {
    if (options.id.empty()) return absl::InvalidArgumentError("no id was given");
    std::shared_ptr<Table> table;
    {
      absl::MutexLock lock(&tables->mutex);
      auto& found = tables->by_id[options.id];
      if (found == nullptr) found = std::make_shared<Table>();
      found->in.resize(static_cast<std::size_t>(options.world));
      table = found;
    }
    auto collective = std::make_unique<ThreadCollective>(options, table, in_place);
    QUIRE_RETURN_IF_ERROR(collective->meet(nullptr));
    return collective;
  };
  return maker;
}

std::unique_ptr<Device> with_collective(std::unique_ptr<Device> inner, CollectiveMaker maker) {
  return std::make_unique<CollectiveDevice>(std::move(inner), std::move(maker));
}

}  // namespace quire::test

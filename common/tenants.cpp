// Reading of --tenants; the rules are in tenants.h.
#include "common/tenants.h"

#include <yaml-cpp/yaml.h>

#include <set>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "common/mapped_file.h"
#include "common/status.h"

namespace quire {
namespace {

constexpr std::size_t kMaxFileBytes = 4 << 20;
constexpr std::size_t kMaxNameBytes = 128, kMaxKeyBytes = 4096;
constexpr double kMinWeight = 1e-3, kMaxWeight = 1e6;

class TenantReader {
 public:
  explicit TenantReader(const std::string& file) : file_(file) {}

  absl::Status add(const YAML::Node& entry) {
    at_ = absl::StrCat("entry ", tenants_.size() + 1);
    if (!entry.IsMap()) return refuse("it is not a map with `name` and `key`.");
    TenantEntry tenant;
    std::set<std::string> seen;
    for (const auto& field : entry) {
      if (!field.first.IsScalar()) return refuse("it has a field whose name is not a text.");
      const std::string name = field.first.Scalar();
      if (!seen.insert(name).second) return refuse("`", name, "` is given twice.");
      if (!field.second.IsScalar()) return refuse("`", name, "` has no single value.");
      QUIRE_RETURN_IF_ERROR(set(name, field.second.Scalar(), tenant));
    }
    if (tenant.name.empty()) return refuse("it has no `name`.");
    at_ = absl::StrCat("entry ", tenants_.size() + 1, " (", tenant.name, ")");
    if (tenant.key.empty()) return refuse("it has no `key`.");
    if (!names_.insert(tenant.name).second) return refuse("another entry has the same name.");
    if (!keys_.insert(tenant.key).second) return refuse("another entry has the same key.");
    tenants_.push_back(std::move(tenant));
    return absl::OkStatus();
  }

  template <typename... Reason>
  absl::Status refuse(const Reason&... reason) const {
    return absl::InvalidArgumentError(
        absl::StrCat(file_, ": ", at_, at_.empty() ? "" : ": ", reason...));
  }

  std::vector<TenantEntry> take() { return std::move(tenants_); }

 private:
  template <typename Int>
  absl::Status set_limit(const std::string& field, const std::string& value, Int& limit) {
    if (absl::SimpleAtoi(value, &limit) && limit >= 1) return absl::OkStatus();
    return refuse("`", field, "` is ", value.substr(0, 40),
                  "; it must be an integer of at least 1 (leave it out for no limit).");
  }

  absl::Status set(const std::string& field, const std::string& value, TenantEntry& tenant) {
    if (field == "name") {
      if (value.empty() || value.size() > kMaxNameBytes) {
        return refuse("`name` has ", value.size(), " bytes; it must have 1 to ", kMaxNameBytes,
                      ".");
      }
      tenant.name = value;
    } else if (field == "key") {
      if (value.empty() || value.size() > kMaxKeyBytes) {
        return refuse("`key` has ", value.size(), " bytes; it must have 1 to ", kMaxKeyBytes, ".");
      }
      // A header brings the key without them: such a key could never be matched.
      if (absl::StripAsciiWhitespace(value).size() != value.size()) {
        return refuse("`key` begins or ends with a blank.");
      }
      tenant.key = value;
    } else if (field == "weight") {
      if (!absl::SimpleAtod(value, &tenant.weight) ||
          !(tenant.weight >= kMinWeight && tenant.weight <= kMaxWeight)) {
        return refuse("`weight` is ", value.substr(0, 40), "; it must be a number in [", kMinWeight,
                      ", ", kMaxWeight, "].");
      }
    } else if (field == "max_requests") {
      return set_limit(field, value, tenant.max_requests);
    } else if (field == "max_waiting_tokens") {
      return set_limit(field, value, tenant.max_waiting_tokens);
    } else {
      return refuse("there is no field `", field.substr(0, 40),
                    "`; the fields are name, key, weight, max_requests and max_waiting_tokens.");
    }
    return absl::OkStatus();
  }

  const std::string& file_;
  std::string at_;
  std::set<std::string> names_, keys_;
  std::vector<TenantEntry> tenants_;
};

}  // namespace

absl::StatusOr<std::vector<TenantEntry>> read_tenants(const std::string& file) {
  QUIRE_ASSIGN_OR_RETURN(const MappedFile mapped, MappedFile::open(file));
  TenantReader reader(file);
  if (mapped.bytes().size() > kMaxFileBytes) return reader.refuse("it is longer than 4 MiB.");
  try {
    const YAML::Node root = YAML::Load(std::string(mapped.bytes()));
    if (!root.IsSequence() || root.size() == 0) {
      return reader.refuse("it is not a list of tenants (`- {name: ..., key: ..., weight: ...}`).");
    }
    if (root.size() > kMaxTenants) {
      return reader.refuse("it has ", root.size(), " tenants; at most ", kMaxTenants,
                           " are allowed.");
    }
    for (const YAML::Node& entry : root) QUIRE_RETURN_IF_ERROR(reader.add(entry));
  } catch (const YAML::Exception& error) {
    // Not its message: that may hold text of the file.
    return reader.refuse("it is not valid YAML at line ", error.mark.line + 1, ", column ",
                         error.mark.column + 1, ".");
  }
  return reader.take();
}

}  // namespace quire

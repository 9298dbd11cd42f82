// CPUID leaves 1 and 7 and XCR0 (Intel SDM vol. 2A, CPUID; vol. 1, 13.3): a feature counts only if
// the operating system saves its registers.
#include "kernels/cpu/isa.h"

#include <cpuid.h>

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace quire::cpu {
namespace {

struct Registers {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
};

Registers cpuid(unsigned leaf, unsigned subleaf) {
  Registers r;
  if (!__get_cpuid_count(leaf, subleaf, &r.eax, &r.ebx, &r.ecx, &r.edx)) return {};
  return r;
}

std::uint64_t enabled_state() {
  if (((cpuid(1, 0).ecx >> 27) & 1u) == 0) return 0;  // no OSXSAVE, so no XGETBV
  unsigned low = 0, high = 0;
  __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (static_cast<std::uint64_t>(high) << 32) | low;
}

std::vector<std::string> missing_features(Isa isa) {
  const Registers one = cpuid(1, 0);
  const Registers seven = cpuid(7, 0);
  const Registers seven_one = seven.eax >= 1 ? cpuid(7, 1) : Registers{};
  const std::uint64_t state = enabled_state();
  std::vector<std::string> missing;
  const auto need = [&missing](bool present, const char* name) {
    if (!present) missing.push_back(name);
  };
  const auto bit = [](unsigned reg, int index) { return ((reg >> index) & 1u) != 0; };
  need(bit(seven.ebx, 5), "avx2");
  need(bit(one.ecx, 12), "fma");
  need(bit(one.ecx, 29), "f16c");
  need((state & 0x6) == 0x6, "ymm state saved by the OS");
  if (isa != Isa::kAvx2) {
    need(bit(seven.ebx, 16), "avx512f");
    need(bit(seven.ebx, 30), "avx512bw");
    need(bit(seven.ebx, 17), "avx512dq");
    need(bit(seven.ebx, 31), "avx512vl");
    need(bit(seven.ecx, 11), "avx512_vnni");
    need((state & 0xe6) == 0xe6, "zmm state saved by the OS");
  }
  if (isa == Isa::kAvx512) need(bit(seven_one.eax, 5), "avx512_bf16");
  return missing;
}

constexpr Isa kBestFirst[] = {Isa::kAvx512, Isa::kAvx512Vnni, Isa::kAvx2};

}  // namespace

const char* name_of(Isa isa) {
  switch (isa) {
    case Isa::kAvx512:
      return "avx512";
    case Isa::kAvx512Vnni:
      return "avx512-vnni";
    case Isa::kAvx2:
      return "avx2";
  }
  return "";
}

absl::StatusOr<Isa> choose_isa(const std::string& name) {
  std::vector<std::string> missing;
  bool known = name == "auto";
  for (const Isa isa : kBestFirst) {
    if (name != "auto" && name != name_of(isa)) continue;
    known = true;
    missing = missing_features(isa);
    if (missing.empty()) return isa;
  }
  if (!known) {
    return absl::InvalidArgumentError(
        absl::StrCat("isa \"", name, "\" is unknown; use auto, avx512, avx512-vnni or avx2."));
  }
  if (name == "auto" || name == name_of(Isa::kAvx2)) {
    return absl::NotFoundError(absl::StrCat("this processor cannot run the cpu device: it lacks ",
                                            absl::StrJoin(missing, ", "),
                                            ". Use device reference."));
  }
  return absl::NotFoundError(absl::StrCat("this processor cannot run the ", name,
                                          " path: it lacks ", absl::StrJoin(missing, ", "),
                                          ". Use isa auto, or a path with fewer instructions."));
}

}  // namespace quire::cpu

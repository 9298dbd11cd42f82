// What the linker and compiler were asked for is in the programs: read off their ELF headers.
#include <elf.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <fstream>
#include <iterator>
#include <optional>
#include <string>
#include <vector>

namespace quire {
namespace {

class Elf {
 public:
  explicit Elf(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    bytes_.assign(std::istreambuf_iterator<char>(file), {});
  }
  bool is_elf() const {
    return bytes_.size() > sizeof(Elf64_Ehdr) && std::memcmp(bytes_.data(), ELFMAG, SELFMAG) == 0;
  }
  Elf64_Ehdr header() const { return at<Elf64_Ehdr>(0); }

  std::optional<Elf64_Phdr> segment(std::uint32_t type) const {
    const Elf64_Ehdr head = header();
    for (int i = 0; i < head.e_phnum; ++i) {
      const auto segment = at<Elf64_Phdr>(head.e_phoff + i * sizeof(Elf64_Phdr));
      if (segment.p_type == type) return segment;
    }
    return std::nullopt;
  }

  // Values of the dynamic section's entries with this tag.
  std::uint64_t dynamic(std::int64_t tag) const {
    const auto section = segment(PT_DYNAMIC);
    for (std::size_t i = 0; section && i < section->p_filesz / sizeof(Elf64_Dyn); ++i) {
      const auto entry = at<Elf64_Dyn>(section->p_offset + i * sizeof(Elf64_Dyn));
      if (entry.d_tag == tag) return entry.d_un.d_val;
    }
    return 0;
  }

  // Names that the dynamic linker is asked for.
  bool imports(const std::string& name) const {
    const std::string wanted = '\0' + name + '\0';
    return std::search(bytes_.begin(), bytes_.end(), wanted.begin(), wanted.end()) != bytes_.end();
  }

 private:
  template <typename T>
  T at(std::size_t offset) const {
    T value{};
    if (offset + sizeof value <= bytes_.size()) std::memcpy(&value, &bytes_[offset], sizeof value);
    return value;
  }
  std::vector<char> bytes_;
};

class Hardening : public testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(Programs, Hardening,
                         testing::Values("quire", "quire-supervisor", "quire-coordinator",
                                         "quire-worker"),
                         [](const auto& program) {
                           std::string name = program.param;
                           name.erase(std::remove(name.begin(), name.end(), '-'), name.end());
                           return name;
                         });

TEST_P(Hardening, IsInTheProgram) {
  const Elf elf(std::string(QUIRE_BINARY_DIR "/bin/") + GetParam());
  ASSERT_TRUE(elf.is_elf());
  EXPECT_EQ(elf.header().e_type, ET_DYN) << "loads anywhere";
  EXPECT_TRUE(elf.segment(PT_INTERP).has_value());
  EXPECT_TRUE(elf.dynamic(DT_FLAGS_1) & DF_1_PIE) << "and is a program";
  EXPECT_TRUE(elf.segment(PT_GNU_RELRO).has_value());
  EXPECT_TRUE((elf.dynamic(DT_FLAGS) & DF_BIND_NOW) || (elf.dynamic(DT_FLAGS_1) & DF_1_NOW))
      << "all of the global offset table is read-only once it runs";
  const auto stack = elf.segment(PT_GNU_STACK);
  ASSERT_TRUE(stack.has_value());
  EXPECT_EQ(stack->p_flags & PF_X, 0u) << "no code on the stack";
  EXPECT_TRUE(elf.imports("__stack_chk_fail")) << "stack protector";
}

}  // namespace
}  // namespace quire

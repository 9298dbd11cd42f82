// The list of tenants: what is read, and what is refused by file and entry, without its keys.
#include "common/tenants.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

namespace quire {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

class TenantsTest : public ::testing::Test {
 protected:
  TenantsTest()
      : path_((std::filesystem::temp_directory_path() /
               ("quire_tenants_" + std::to_string(getpid()) + "_" +
                ::testing::UnitTest::GetInstance()->current_test_info()->name()))
                  .string()) {}
  ~TenantsTest() override { std::filesystem::remove(path_); }

  absl::StatusOr<std::vector<TenantEntry>> read(const std::string& text) {
    std::ofstream(path_) << text;
    return read_tenants(path_);
  }
  const std::string path_;
};

TEST_F(TenantsTest, AreReadInOrder) {
  const auto tenants = read(
      "- {name: research, key: r-1, weight: 2.5}\n"
      "- name: shop\n"
      "  key: \"s 2\"\n");
  ASSERT_TRUE(tenants.ok()) << tenants.status();
  ASSERT_EQ(tenants->size(), 2u);
  EXPECT_EQ((*tenants)[0].name, "research");
  EXPECT_EQ((*tenants)[0].key, "r-1");
  EXPECT_EQ((*tenants)[0].weight, 2.5);
  EXPECT_EQ((*tenants)[1].name, "shop");
  EXPECT_EQ((*tenants)[1].key, "s 2");
  EXPECT_EQ((*tenants)[1].weight, 1.0);
}

TEST_F(TenantsTest, MayHaveLimits) {
  const auto tenants = read(
      "- {name: a, key: k, max_requests: 8, max_waiting_tokens: 100000}\n- {name: b, key: l}\n");
  ASSERT_TRUE(tenants.ok()) << tenants.status();
  EXPECT_EQ((*tenants)[0].max_requests, 8);
  EXPECT_EQ((*tenants)[0].max_waiting_tokens, 100000);
  EXPECT_EQ((*tenants)[1].max_requests, 0);
  EXPECT_EQ((*tenants)[1].max_waiting_tokens, 0);
  for (const char* value : {"0", "-1", "1.5", "many", "99999999999"}) {
    const auto bad = read(std::string("- {name: a, key: k, max_requests: ") + value + "}\n");
    EXPECT_THAT(std::string(bad.status().message()), HasSubstr("an integer of at least 1"));
  }
}

TEST_F(TenantsTest, WhatIsWrongIsNamed) {
  const struct {
    std::string text;
    const char* says;
  } cases[] = {
      {"", "not a list of tenants"},
      {"[]", "not a list of tenants"},
      {"name: a\nkey: secret\n", "not a list of tenants"},
      {"- a\n", "entry 1: it is not a map"},
      {"- {name: a, key: secret}\n- {name: b}\n", "entry 2 (b): it has no `key`"},
      {"- {key: secret}\n", "entry 1: it has no `name`"},
      {"- {name: '', key: secret}\n", "`name` has 0 bytes"},
      {"- {name: a, key: ''}\n", "`key` has 0 bytes"},
      {"- {name: a, key: }\n", "`key` has no single value"},
      {"- {name: a, key: [secret]}\n", "`key` has no single value"},
      {"- {name: a, key: ' secret'}\n", "`key` begins or ends with a blank"},
      {"- {name: a, key: secret, weight: 0}\n", "`weight` is 0; it must be a number"},
      {"- {name: a, key: secret, weight: -1}\n", "`weight` is -1"},
      {"- {name: a, key: secret, weight: .nan}\n", "`weight` is .nan"},
      {"- {name: a, key: secret, weight: nan}\n", "`weight` is nan"},
      {"- {name: a, key: secret, weight: inf}\n", "`weight` is inf"},
      {"- {name: a, key: secret, weight: much}\n", "`weight` is much"},
      {"- {name: a, key: secret, wieght: 2}\n",
       "no field `wieght`; the fields are name, key, weight,"},
      {"- {name: a, key: secret, key: secret2}\n", "`key` is given twice"},
      {"- {name: a, key: secret}\n- {name: a, key: x}\n",
       "entry 2 (a): another entry has the same "
       "name"},
      {"- {name: a, key: secret}\n- {name: b, key: secret}\n",
       "entry 2 (b): another entry has the same key"},
      {"- {name: a, key: secret\n- {{\n", "not valid YAML at line 2"},
      {"- {name: a, key: *secret}\n", "not valid YAML at line 1"},
      {"- {name: " + std::string(129, 'n') + ", key: secret}\n", "`name` has 129 bytes"},
  };
  for (const auto& c : cases) {
    const auto tenants = read(c.text);
    ASSERT_EQ(tenants.status().code(), absl::StatusCode::kInvalidArgument) << c.text;
    EXPECT_THAT(std::string(tenants.status().message()),
                AllOf(HasSubstr(path_), HasSubstr(c.says), Not(HasSubstr("secret"))));
  }
  EXPECT_THAT(std::string(read_tenants("/nowhere/tenants").status().message()),
              HasSubstr("/nowhere/tenants"));
}

TEST_F(TenantsTest, ManyButNotTooMany) {
  std::string text;
  for (int i = 0; i < kMaxTenants; ++i) {
    text += "- {name: n" + std::to_string(i) + ", key: k" + std::to_string(i) + "}\n";
  }
  EXPECT_EQ(read(text)->size(), static_cast<std::size_t>(kMaxTenants));
  EXPECT_THAT(std::string(read(text + "- {name: n, key: k}\n").status().message()),
              HasSubstr("4097 tenants"));
}

}  // namespace
}  // namespace quire

// Every code point, every pair of bytes, and the edges of the standard's table.
#include "common/utf8.h"

#include <gtest/gtest.h>

#include "common/log.h"

namespace quire::utf8 {
namespace {

std::string encoded(char32_t code) {
  std::string out;
  append(code, &out);
  return out;
}

TEST(Utf8Test, EveryScalarValueRoundTrips) {
  for (char32_t code = 0; code <= 0x10ffff; ++code) {
    if (code >= 0xd800 && code < 0xe000) continue;
    const std::string text = encoded(code);
    const Decoded decoded = decode(text);
    bool right = decoded.size == static_cast<int>(text.size()) && decoded.code == code &&
                 first_invalid(text) == npos && complete_prefix(text) == text.size();
    for (std::size_t cut = 1; cut < text.size(); ++cut) {
      const std::string part = "ab" + text.substr(0, cut);
      right = right && decode(text.substr(0, cut)).incomplete && complete_prefix(part) == 2 &&
              first_invalid(part) == 2;
    }
    ASSERT_TRUE(right) << std::hex << std::uint32_t{code};
  }
}

TEST(Utf8Test, WhatIsNoScalarValueBecomesTheReplacement) {
  EXPECT_EQ(encoded(0xd800), "\xef\xbf\xbd");
  EXPECT_EQ(encoded(0xdfff), "\xef\xbf\xbd");
  EXPECT_EQ(encoded(0x110000), "\xef\xbf\xbd");
}

TEST(Utf8Test, InvalidFormsAreFoundAtTheirOffset) {
  const char* bad[] = {
      "\x80",
      "\xbf",
      "\xc0\x80",
      "\xc1\xbf",
      "\xe0\x80\x80",
      "\xe0\x9f\xbf",
      "\xed\xa0\x80",
      "\xed\xbf\xbf",
      "\xf0\x80\x80\x80",
      "\xf0\x8f\xbf\xbf",
      "\xf4\x90\x80\x80",
      "\xf5\x80\x80\x80",
      "\xff",
      "\xfe",
      "\xc3(",
      "\xe2\x82(",
      "\xf0\x9f\x98(",
  };
  for (const char* text : bad) {
    for (const std::string before : {"", "abc", "0123456789abcdef", "h\xc3\xa9"}) {
      EXPECT_EQ(first_invalid(before + text), before.size()) << before;
      EXPECT_EQ(first_invalid(before + text + "tail of more than eight"), before.size());
    }
    EXPECT_FALSE(decode(text).incomplete);
  }
}

TEST(Utf8Test, OnlyAPossibleCharacterIsHeldBack) {
  EXPECT_EQ(complete_prefix(""), 0u);
  EXPECT_EQ(complete_prefix("abc"), 3u);
  EXPECT_EQ(complete_prefix("a\xf0\x9f\x98"), 1u);
  EXPECT_EQ(complete_prefix("a\xe2\x82"), 1u);
  EXPECT_EQ(complete_prefix("a\xc3"), 1u);
  EXPECT_EQ(complete_prefix("a\x80"), 2u);      // can never become valid
  EXPECT_EQ(complete_prefix("a\xed\xa0"), 3u);  // a surrogate
  EXPECT_EQ(complete_prefix("a\xff"), 2u);
  EXPECT_EQ(complete_prefix("\x80\x80\x80\x80"), 4u);
}

TEST(Utf8Test, ToValidReplacesMaximalParts) {
  EXPECT_EQ(to_valid("h\xc3\xa9llo"), "h\xc3\xa9llo");
  EXPECT_EQ(to_valid("a\x80z"), "a\xef\xbf\xbdz");
  EXPECT_EQ(to_valid("a\xf0\x9f\x98z"), "a\xef\xbf\xbdz");  // one part, one replacement
  EXPECT_EQ(to_valid("\xed\xa0\x80"), "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd");
  EXPECT_EQ(to_valid("a\xe2\x82"), "a\xef\xbf\xbd");
  for (int a = 0; a < 256; ++a) {
    for (int b = 0; b < 256; ++b) {
      const std::string text = {static_cast<char>(a), static_cast<char>(b)};
      ASSERT_EQ(first_invalid(to_valid(text)), npos);
      ASSERT_EQ(to_valid(text) == text, first_invalid(text) == npos);
    }
  }
}

TEST(LogTest, TextFromOutsideCannotForgeLines) {
  EXPECT_EQ(log_text("a\nb\x1b[2J"), "a\\nb\\x1b[2J");
  EXPECT_EQ(log_text("h\xc3\xa9"), "h\xc3\xa9");
  EXPECT_EQ(log_text("\xff"), "\\xff");
  EXPECT_EQ(log_text(std::string(600, 'x')), std::string(512, 'x') + "...");
}

}  // namespace
}  // namespace quire::utf8

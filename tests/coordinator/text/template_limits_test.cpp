// Hostile and broken templates: each ends with an error that says where and why, and nothing else.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "coordinator/text/chat_template.h"
#include "nlohmann/json.hpp"

namespace quire {
namespace {

using nlohmann::ordered_json;
using ::testing::HasSubstr;

std::string repeat(const std::string& text, int count) {
  std::string out;
  for (int i = 0; i < count; ++i) out += text;
  return out;
}

std::string parse_error(const std::string& source) {
  const auto chat_template = ChatTemplate::parse(source);
  return chat_template.ok() ? "no error" : std::string(chat_template.status().message());
}

std::string render_error(const std::string& source, const ordered_json& variables = {}) {
  const auto chat_template = ChatTemplate::parse(source);
  if (!chat_template.ok()) return "parse: " + std::string(chat_template.status().message());
  const auto text = chat_template->render(variables, 0.0);
  return text.ok() ? "rendered: " + *text : std::string(text.status().message());
}

std::string render(const std::string& source, const ordered_json& variables = {}) {
  const auto chat_template = ChatTemplate::parse(source);
  EXPECT_TRUE(chat_template.ok()) << chat_template.status();
  if (!chat_template.ok()) return "";
  const auto text = chat_template->render(variables, 0.0);
  EXPECT_TRUE(text.ok()) << text.status();
  return text.ok() ? *text : "";
}

TEST(TemplateLimits, ParserRecursionIsBounded) {
  for (const char* bracket : {"(", "[", "{1:", "-", "not ", "f(", "a[", "x if x else "}) {
    EXPECT_THAT(parse_error("{{ " + repeat(bracket, 6000) + " }}"), HasSubstr("line 1")) << bracket;
  }
  EXPECT_THAT(parse_error(repeat("{% if x %}", 6000)), HasSubstr("nested"));
  EXPECT_THAT(parse_error(repeat("{% for x in y %}", 6000)), HasSubstr("nested"));
  EXPECT_THAT(parse_error("{{ x" + repeat(".a", 6000) + " }}"), HasSubstr("nested"));
  EXPECT_THAT(parse_error("{{ x" + repeat("|trim", 6000) + " }}"), HasSubstr("nested"));
  EXPECT_THAT(parse_error("{{ x" + repeat("()", 6000) + " }}"), HasSubstr("nested"));
  EXPECT_THAT(parse_error("{{ 1" + repeat(" ** 1", 6000) + " }}"), HasSubstr("nested"));
  EXPECT_THAT(parse_error("{% set " + repeat("(", 6000) + repeat(")", 6000) + " %}"),
              HasSubstr("nested"));
}

TEST(TemplateLimits, LongChainsAreNotNested) {
  EXPECT_EQ(render("{{ 0" + repeat(" + 1", 6000) + " }}"), "6000");
  EXPECT_EQ(render("{{ ''" + repeat(" ~ 'a'", 6000) + " }}"), repeat("a", 6000));
  EXPECT_EQ(render("{% if x %}" + repeat("{% elif x %}", 6000) + "{% else %}no{% endif %}"), "no");
  EXPECT_EQ(render("{{ false" + repeat(" or false", 6000) + " }}"), "False");
}

TEST(TemplateLimits, WorkAndOutputAreBounded) {
  EXPECT_THAT(render_error("{% for i in range(10**9) %}x{% endfor %}"), HasSubstr("range()"));
  EXPECT_THAT(render_error("{{ 'a' * 10**9 }}"), HasSubstr("1048576 bytes"));
  EXPECT_THAT(render_error("{{ [0] * 10**9 }}"), HasSubstr("steps"));
  EXPECT_THAT(render_error("{{ 10**10**10 }}"), HasSubstr("64 bits"));
  EXPECT_THAT(render_error("{% set r = range(100000) %}{% for a in r %}{% for b in r %}"
                           "{% endfor %}{% endfor %}"),
              HasSubstr("steps"));
  EXPECT_THAT(render_error("{% for i in range(99999) %}aaaaaaaaaaaaaaaaaaaa{% endfor %}"),
              HasSubstr("bytes"));
  EXPECT_THAT(render_error("{{ '%5000d' % 1 }}"), HasSubstr("format"));
  EXPECT_THAT(render_error("{{ ''.ljust(10**12) }}"), HasSubstr("bytes"));
  EXPECT_THAT(render_error("{{ ('a' * 100000).replace('a', 'b' * 100000) }}"), HasSubstr("bytes"));
  EXPECT_THAT(render_error("{{ 'x'|indent(10**12) }}"), HasSubstr("rendered"));  // one line only
  EXPECT_THAT(render_error("{{ 'x\ny'|indent(10**12) }}"), HasSubstr("bytes"));
  EXPECT_THAT(render_error("{% set ns = namespace(s=['a' * 1000000]) %}"
                           "{% for i in range(99999) %}{% set ns.s = ns.s + [ns.s[0] ~ i] %}"
                           "{% endfor %}"),
              HasSubstr("steps"));
}

TEST(TemplateLimits, RecursionOfMacrosAndValuesIsBounded) {
  EXPECT_THAT(render_error("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}"),
              HasSubstr("nested more than 100 deep"));
  EXPECT_THAT(render_error("{% macro f(x) %}" + repeat("{% if x %}", 20) + "{{ f(x) }}" +
                           repeat("{% endif %}", 20) + "{% endmacro %}{{ f(1) }}"),
              HasSubstr("nested"));
  EXPECT_THAT(render_error("{% set ns = namespace(x=[]) %}"
                           "{% for i in range(99999) %}{% set ns.x = [ns.x] %}{% endfor %}"),
              HasSubstr("nested"));
  // Every list is shared, none is copied: a tree of 2^90 leaves if someone walks it.
  const std::string wide =
      "{% set ns = namespace(x=[1]) %}"
      "{% for i in range(90) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}";
  EXPECT_THAT(render_error(wide + "{{ ns.x }}"), HasSubstr("bytes"));
  EXPECT_THAT(render_error(wide + "{{ ns.x|tojson }}"), HasSubstr("bytes"));
  EXPECT_THAT(render_error(wide + "{{ ns.x == ns.x }}"), HasSubstr("steps"));
}

TEST(TemplateLimits, CirclesAndChainsAreFreed) {
  EXPECT_EQ(render("{% set ns = namespace() %}{% set ns.me = ns %}ok"), "ok");
  EXPECT_EQ(render("{% set ns = namespace(x=0) %}"
                   "{% for i in range(50000) %}{% set ns.x = namespace(x=ns.x) %}{% endfor %}ok"),
            "ok");
  EXPECT_EQ(render("{% set ns = namespace(f=0) %}{% for i in range(20000) %}{% set old = ns.f %}"
                   "{% macro g() %}{{ old }}{% endmacro %}{% set ns.f = g %}{% endfor %}ok"),
            "ok");
}

TEST(TemplateLimits, NothingOfTheHostIsReachable) {
  for (const char* source :
       {"{{ ''.__class__.__mro__ }}", "{{ x.__globals__.os }}", "{{ f.__globals__.os }}",
        "{{ range.__self__.x }}", "{{ namespace().__init__.__globals__ }}",
        "{{ {}['__class__'].x }}", "{{ [].__class__() }}"}) {
    EXPECT_THAT(render_error(source, {{"x", nullptr}}), HasSubstr("failed in line 1")) << source;
  }
  for (const char* source : {"{{ [1].append(2) }}", "{{ {}.update({}) }}", "{{ [1].pop() }}"}) {
    EXPECT_THAT(render_error(source), HasSubstr("unsafe")) << source;
  }
}

TEST(TemplateLimits, BrokenTemplatesNameTheLine) {
  EXPECT_THAT(parse_error("a\nb {{ x"), HasSubstr("line 2"));
  EXPECT_THAT(parse_error("a\n\n{% if x %}"), HasSubstr("endif"));
  EXPECT_THAT(parse_error("{% include 'x' %}"), HasSubstr("'include' is not supported"));
  EXPECT_THAT(parse_error("{% endfor %}"), HasSubstr("'endfor'"));
  EXPECT_THAT(parse_error("{% break %}"), HasSubstr("outside of a loop"));
  EXPECT_THAT(parse_error("{{ 'abc }}"), HasSubstr("not closed"));
  EXPECT_THAT(parse_error("{# abc"), HasSubstr("not closed"));
  EXPECT_THAT(parse_error("{% raw %} abc"), HasSubstr("endraw"));
  EXPECT_THAT(parse_error("{{ 99999999999999999999 }}"), HasSubstr("out of range"));
  EXPECT_THAT(parse_error("{{ f(*a) }}"), HasSubstr("not supported"));
  EXPECT_THAT(parse_error("{% for x in y recursive %}{% endfor %}"), HasSubstr("recursive"));
  EXPECT_THAT(render_error("\n\n{{ x|frobnicate }}"), HasSubstr("line 3"));
  EXPECT_THAT(render_error("{{ x is frobnicated }}"), HasSubstr("no test named 'frobnicated'"));
  EXPECT_EQ(render_error("{{ raise_exception('Say it so.') }}"), "Say it so.");
}

// Any bytes at all: an error or a rendering.
TEST(TemplateLimits, CutTemplatesNeverCrash) {
  const std::string source =
      "{%- set ns = namespace(a=[1, 'b', {'c': 2.5}]) -%}{% for x in ns.a[::-1] if x is defined %}"
      "{{ loop.index ~ x|string|upper }}{% if not x == 1 and 'b' in [x] %}{% raw %}{{{% endraw %}"
      "{% elif x %}{# c #}{% endif %}{% endfor %}{% macro m(a, b=1) %}{{ a.get('c', b) }}"
      "{% endmacro %}{% call m({'c': '\\u00e9%s' % 'x'}) %}y{% endcall %}{{ '{}'.format(1) }}";
  for (std::size_t i = 0; i < source.size(); ++i) {
    render_error(source.substr(0, i));
    render_error(source.substr(i));
    std::string changed = source;
    changed[i] = static_cast<char>(changed[i] ^ 0x85);
    render_error(changed);
  }
  EXPECT_THAT(render_error(source), HasSubstr("rendered"));
}

}  // namespace
}  // namespace quire

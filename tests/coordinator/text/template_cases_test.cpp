// Small templates with the texts that jinja2 3.1 gives under Hugging Face's environment.
#include <gtest/gtest.h>

#include "coordinator/text/chat_template.h"
#include "nlohmann/json.hpp"

namespace quire {
namespace {

struct Case {
  const char* source;
  const char* expected;
};

constexpr char kVariables[] =
    R"J({"s": "Hello World", "u": "h\u00e9llo w\u00f6rld \u00df \u1f00", "n": 5, "f": 2.5, "t": true, "no": null, "l": [3, 1, 2], "d": {"b": 1, "a": 2, "items": 3}, "dl": [{"n": "x", "v": 2}, {"n": "Y", "v": 1}, {"n": "z"}], "nest": {"a": [1, {"b": [2, 3]}]}, "q": "it's \"q\"\n\t\\ \u00a0\u200b", "ml": "a\nb\n\nc\n"})J";

// clang-format off
constexpr Case kCases[] = {
    {R"J({{ s|join }})J",
     "Hello World"},
    {R"J({{ d|join(',') }})J",
     "b,a,items"},
    {R"J({{ d|list }})J",
     "['b', 'a', 'items']"},
    {R"J({{ s|map('upper')|join('-') }})J",
     "H-E-L-L-O- -W-O-R-L-D"},
    {R"J({{ '-'.join(s) }})J",
     "H-e-l-l-o- -W-o-r-l-d"},
    {R"J({{ s|sort|join }})J",
     " deHllloorW"},
    {R"J({{ s|select('in', 'lo')|list }})J",
     "['l', 'l', 'o', 'o', 'l']"},
    {R"J({{ u|reverse }} {{ u|upper }} {{ u[1:4] }})J",
     "ἀ ß dlröw olléh HÉLLO WÖRLD SS Ἀ éll"},
    {R"J({{ '  x  y '.rsplit(none, 1) }} {{ '  x  y '.split(none, 1) }})J",
     "['  x', 'y'] ['x', 'y ']"},
    {R"J({{ '{0:>5}|{0:<5}|{0:^5}|{0:05d}|{1:.2f}|{1:,.1f}|{2!r}|{a}'.format(42, 1234.567, 'q', a='z') }})J",
     "   42|42   | 42  |00042|1234.57|1,234.6|'q'|z"},
    {R"J({{ '%s|%d|%5.2f|%-5s|%05d|%x|%r|%%' % ('a', 3, 2.345, 'b', 42, 255, 'q') }})J",
     "a|3| 2.35|b    |00042|ff|'q'|%"},
    {R"J({{ 1234|round(-2) }} {{ 2.5|round }} {{ 42.1|round(1, 'ceil') }} {{ 5|round }})J",
     "1200 2.0 42.1 5"},
    {R"J({{ 7 // -2 }} {{ 7 % -2 }} {{ -7.5 % 2 }} {{ -2 ** 2 }} {{ 2 ** -1 }})J",
     "-4 -1 0.5 4 0.5"},
    {R"J({{ 10.0 ** 16 }} {{ 1e-5 }} {{ 0.0001 }} {{ 1 / 3 }} {{ 10.0 ** 15 }})J",
     "1e+16 1e-05 0.0001 0.3333333333333333 1000000000000000.0"},
    {R"J({{ [q] }})J",
     "['it\\'s \"q\"\\n\\t\\\\ \\xa0\\u200b']"},
    {R"J({{ nest|tojson(indent=2) }})J",
     "{\n  \"a\": [\n    1,\n    {\n      \"b\": [\n        2,\n        3\n      ]\n    }\n  ]\n}"},
    {R"J({{ {1: 2, none: 3, true: 4, 1.5: 6}|tojson }})J",
     "{\"1\": 4, \"null\": 3, \"1.5\": 6}"},
    {R"J({% macro m(a, b=2) %}{{ a }}-{{ b }}-{{ varargs }}-{{ kwargs }}{% endmacro %}{{ m(1) }}|{{ m(1, 3, 4, 5) }}|{{ m(b=1, z=2) }})J",
     "1-2-()-{}|1-3-(4, 5)-{}|-1-()-{'z': 2}"},
    {R"J({% macro m() %}{{ x }}{% endmacro %}{% set x = 1 %}{{ m() }}{% set x = 2 %}{{ m() }})J",
     "12"},
    {R"J({% macro m(a) %}[{{ caller(a) }}]{% endmacro %}{% call(x) m(5) %}x={{ x }}{% endcall %})J",
     "[x=5]"},
    {R"J({% for i in l %}{% if i == 1 %}{% continue %}{% endif %}{{ i }}{% if i == 2 %}{% break %}{% endif %}{% endfor %})J",
     "32"},
    {R"J({% for a, (b, c) in [(1, (2, 3))] %}{{ a }}{{ b }}{{ c }}{% endfor %})J",
     "123"},
    {R"J({% for i in l if i > 1 %}{{ loop.index }}/{{ loop.length }}:{{ i }} {% endfor %})J",
     "1/2:3 2/2:2 "},
    {R"J({% set x | upper | replace('A', '_') %}abc{{ n }}{% endset %}{{ x }})J",
     "_BC5"},
    {R"J({% set ns = namespace(a=1) %}{% for i in l %}{% set ns.a = ns.a + i %}{% endfor %}{{ ns.a }})J",
     "7"},
    {R"J({% generation %}x{% set zz = 1 %}{% endgeneration %}{{ zz }})J",
     "x"},
    {"  {%- if t +%}\n x\n  {%+ endif %}\ny",
     "\n x\n  y"},
    {"a\n{% raw -%}\n {{ x }} \n{%- endraw %}\nb",
     "a\n{{ x }}b"},
    {"x\n  {# c #}\ny",
     "x\ny"},
    {R"J({{ dl[:2]|selectattr('v', 'gt', 1)|map(attribute='n')|list }} {{ no|selectattr('v')|list }})J",
     "['x'] []"},
    {R"J({{ dl|map(attribute='v', default=9)|list }})J",
     "[2, 1, 9]"},
    {R"J({{ d|dictsort(by='value', reverse=true) }})J",
     "[('items', 3), ('a', 2), ('b', 1)]"},
    {R"J({{ '<a>'|e }}{{ '<a>'|safe + '<b>' }})J",
     "&lt;a&gt;<a>&lt;b&gt;"},
    {R"J({{ ml|indent(2, first=true, blank=true) }})J",
     "  a\n  b\n  \n  c\n  "},
    {R"J({{ s|truncate(8, false, '..', 0) }})J",
     "Hello.."},
    {R"J({{ "\u00e9\n\x41\101\q" }})J",
     "é\nAA\\q"},
    {R"J({{ 1 < 2 < 3 }} {{ 1 < 3 < 2 }} {{ not 1 == 2 }})J",
     "True False True"},
    {R"J({{ (1 if false) is undefined }}{{ 'x' in d }}{{ 'b' in d }}{{ 'lo' in s }})J",
     "TrueFalseTrueTrue"},
    {R"J({{ strftime_now('%d %b %Y %H:%M') }})J",
     "14 Mar 2025 15:09"},
    {R"J({{ 'it\'s a-b (c)'|title }} {{ "it's".title() }} {{ 'a_b c-d'|wordcount }})J",
     "It's A-B (C) It'S 3"},
    {R"J({{ d.items()|list }} {{ d['items'] }} {{ d.get('zz', 1) }})J",
     "[('b', 1), ('a', 2), ('items', 3)] 3 1"},
    {R"J({{ (l|map('string'))|list|length }} {% set g = l|select %}{{ g|list }}{{ g|list }})J",
     "3 [3, 1, 2][]"},
};
// clang-format on

TEST(TemplateCases, EqualJinja2) {
  const auto variables = nlohmann::ordered_json::parse(kVariables);
  for (const Case& c : kCases) {
    const auto chat_template = ChatTemplate::parse(c.source);
    ASSERT_TRUE(chat_template.ok()) << c.source << ": " << chat_template.status();
    const auto text = chat_template->render(variables, 1741964966);
    ASSERT_TRUE(text.ok()) << c.source << ": " << text.status();
    EXPECT_EQ(*text, c.expected) << c.source;
  }
}

}  // namespace
}  // namespace quire

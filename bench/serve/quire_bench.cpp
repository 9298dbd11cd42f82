// quire-bench: what `quire bench` becomes. A program of its own, since prompts are cut by the
// coordinator's tokenizer, which the `quire` command does not link.
#include <cstdio>
#include <string>
#include <vector>

#include "bench/serve/serve.h"

int main(int argc, char** argv) {
  const std::string name = argc > 1 ? argv[1] : "";
  if (name == "serve") {
    return quire::bench::serve_main(std::vector<std::string>(argv + 2, argv + argc));
  }
  const bool help = name == "--help" || name == "-h";
  if (!help && !name.empty())
    std::fprintf(stderr, "quire bench: there is no `%s`\n\n", name.c_str());
  std::fputs("usage: quire bench serve [options]\n\n`quire bench serve --help` tells more.\n",
             help ? stdout : stderr);
  return help ? 0 : 64;
}

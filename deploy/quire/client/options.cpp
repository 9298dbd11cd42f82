#include "deploy/quire/client/options.h"

#include <fstream>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "common/config.h"

namespace quire {
namespace {

using Set = absl::Status (*)(ClientCommand&, const std::string&);

absl::Status bad(const char* option, const std::string& value, const char* allowed) {
  return absl::InvalidArgumentError(
      absl::StrCat(option, " is `", value, "`; it must be ", allowed));
}

absl::Status set_key_file(ClientCommand& c, const std::string& path) {
  std::ifstream file(path);
  if (!std::getline(file, c.client.api_key)) {
    return absl::InvalidArgumentError(
        absl::StrCat("--api-key-file: cannot read a key from ", path));
  }
  return absl::OkStatus();
}

template <std::string TlsFiles::*File>
absl::Status set_tls_file(ClientCommand& c, const std::string& path) {
  c.tls_files.*File = path;
  return absl::OkStatus();
}

absl::Status read_certificates(ClientCommand& c) {
  const TlsFiles& files = c.tls_files;
  if (files.ca.empty() && (!files.cert.empty() || !c.client.server_name.empty())) {
    return absl::InvalidArgumentError(
        "--cert, --key and --server-name are of TLS: give --ca, the authorities that the server's "
        "certificate may be from, too");
  }
  absl::StatusOr<TlsPem> pem = read_tls(files, {"--cert", "--key", "--ca"});
  if (pem.ok()) c.client.tls = *std::move(pem);
  return pem.status();
}

struct Row {
  const char* name;
  const char* value;  // null for a flag
  const char* help;
  bool generate_only;
  Set set;
};

const Row kRows[] = {
    {"--server", "HOST:PORT", "the server's gRPC address (default 127.0.0.1:50051)", false,
     [](ClientCommand& c, const std::string& v) {
       c.client.server = v;
       return absl::OkStatus();
     }},
    {"--wait", "SECONDS", "keep trying until the server is ready (default 0)", false,
     [](ClientCommand& c, const std::string& v) {
       return absl::SimpleAtoi(v, &c.client.wait_seconds) && c.client.wait_seconds >= 0
                  ? absl::OkStatus()
                  : bad("--wait", v, "a number of seconds");
     }},
    {"--api-key", "KEY", "if the server asks for one; better in the environment, as QUIRE_API_KEY",
     false,
     [](ClientCommand& c, const std::string& v) {
       c.client.api_key = v;
       return absl::OkStatus();
     }},
    {"--api-key-file", "FILE", "read the key from the first line of a file", false, set_key_file},
    {"--ca", "FILE", "use TLS; whose certificates the server may have", false,
     set_tls_file<&TlsFiles::ca>},
    {"--cert", "FILE", "our certificate, if the server asks for one (mutual TLS)", false,
     set_tls_file<&TlsFiles::cert>},
    {"--key", "FILE", "its private key", false, set_tls_file<&TlsFiles::key>},
    {"--server-name", "NAME", "name in the server's certificate, if it is not the host's", false,
     [](ClientCommand& c, const std::string& v) {
       c.client.server_name = v;
       return absl::OkStatus();
     }},
    {"--system", "TEXT", "a system message", false,
     [](ClientCommand& c, const std::string& v) {
       c.system = v;
       return absl::OkStatus();
     }},
    {"--max-tokens", "TOKENS", "the longest answer (default: what the context leaves)", false,
     [](ClientCommand& c, const std::string& v) {
       return absl::SimpleAtoi(v, &c.prompt.max_tokens) && c.prompt.max_tokens >= 1
                  ? absl::OkStatus()
                  : bad("--max-tokens", v, "1 or more");
     }},
    {"--temperature", "T", "0 is greedy (default 1)", false,
     [](ClientCommand& c, const std::string& v) {
       return absl::SimpleAtof(v, &c.prompt.temperature)
                  ? absl::OkStatus()
                  : bad("--temperature", v, "a number from 0 to 2");
     }},
    {"--top-p", "P", "keep the smallest set of tokens of this mass (default 1)", false,
     [](ClientCommand& c, const std::string& v) {
       return absl::SimpleAtof(v, &c.prompt.top_p) ? absl::OkStatus()
                                                   : bad("--top-p", v, "a number above 0, up to 1");
     }},
    {"--seed", "N", "the same seed gives the same answer", false,
     [](ClientCommand& c, const std::string& v) {
       c.prompt.has_seed = true;
       return absl::SimpleAtoi(v, &c.prompt.seed) ? absl::OkStatus()
                                                  : bad("--seed", v, "an integer from 0");
     }},
    {"--timeout", "SECONDS", "end the answer after so long, with what there is", false,
     [](ClientCommand& c, const std::string& v) {
       double seconds = 0;
       if (!absl::SimpleAtod(v, &seconds) || !(seconds >= 0.001 && seconds <= 1e6)) {
         return bad("--timeout", v, "a number of seconds from 0.001 to 1000000");
       }
       c.prompt.timeout_ms = static_cast<int>(seconds * 1000);
       return absl::OkStatus();
     }},
    {"--priority", "N", "smaller is earlier, if the server orders by priority (default 0)", false,
     [](ClientCommand& c, const std::string& v) {
       return absl::SimpleAtoi(v, &c.prompt.priority)
                  ? absl::OkStatus()
                  : bad("--priority", v, "an integer from -1000 to 1000");
     }},
    {"--best-of", "N", "make so many answers and show the likeliest", false,
     [](ClientCommand& c, const std::string& v) {
       return absl::SimpleAtoi(v, &c.prompt.best_of) && c.prompt.best_of >= 1
                  ? absl::OkStatus()
                  : bad("--best-of", v, "1 or more");
     }},
    {"--beams", "N", "search the likeliest answer with so many beams", false,
     [](ClientCommand& c, const std::string& v) {
       return absl::SimpleAtoi(v, &c.prompt.beams) && c.prompt.beams >= 1
                  ? absl::OkStatus()
                  : bad("--beams", v, "1 or more");
     }},
    {"--raw", nullptr, "send the prompt as it is, without the model's chat template", true,
     [](ClientCommand& c, const std::string&) {
       c.raw = true;
       return absl::OkStatus();
     }},
    {"--show-prompt", nullptr, "print the prompt before the answer", true,
     [](ClientCommand& c, const std::string&) {
       c.show_prompt = true;
       return absl::OkStatus();
     }},
};

const Row* find(const std::string& name, bool takes_prompt) {
  for (const Row& row : kRows) {
    if (name == row.name && (takes_prompt || !row.generate_only)) return &row;
  }
  return nullptr;
}

}  // namespace

absl::StatusOr<ClientCommand> parse_client(const std::vector<std::string>& arguments,
                                           bool takes_prompt) {
  ClientCommand command;
  command.client.api_key = api_key_of_environment();
  bool has_text = false;
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    std::string name = arguments[i];
    if (name == "--help" || name == "-h") {
      command.help = true;
      return command;
    }
    const bool literal = name == "--" && i + 1 < arguments.size();  // what follows is no option
    if (literal) name = arguments[++i];
    if (literal || name.rfind("--", 0) != 0) {
      if (!takes_prompt || has_text) {
        return absl::InvalidArgumentError(absl::StrCat("`", name, "` is one argument too many",
                                                       takes_prompt ? "; quote the prompt" : ""));
      }
      command.text = name;
      has_text = true;
      continue;
    }
    std::string value;
    bool has_value = false;
    if (const std::size_t equals = name.find('='); equals != std::string::npos) {
      value = name.substr(equals + 1);
      name.resize(equals);
      has_value = true;
    }
    const Row* row = find(name, takes_prompt);
    if (row == nullptr) {
      return absl::InvalidArgumentError(
          absl::StrCat("there is no option `", name, "`; --help lists them"));
    }
    if (row->value != nullptr && !has_value) {
      if (i + 1 == arguments.size()) {
        return absl::InvalidArgumentError(absl::StrCat(name, " needs a value (", row->value, ")"));
      }
      value = arguments[++i];
    }
    if (absl::Status status = row->set(command, value); !status.ok()) return status;
  }
  if (command.prompt.beams > 0 && command.prompt.best_of > 1) {
    return absl::InvalidArgumentError("--beams and --best-of are two ways to choose; give one");
  }
  if (absl::Status status = read_certificates(command); !status.ok()) return status;
  if (takes_prompt && !has_text) {
    return absl::InvalidArgumentError(
        "the prompt is missing: quire generate \"prompt\", or `-` to read it from standard input");
  }
  return command;
}

std::string client_help(bool takes_prompt) {
  std::string help = takes_prompt ? "usage: quire generate [options] \"prompt\"\n"
                                    "The prompt `-` is read from standard input.\n\n"
                                  : "usage: quire chat [options]\n\n";
  for (const Row& row : kRows) {
    if (row.generate_only && !takes_prompt) continue;
    std::string left = absl::StrCat("  ", row.name, " ", row.value != nullptr ? row.value : "");
    left.resize(std::max<std::size_t>(left.size() + 2, 26), ' ');
    absl::StrAppend(&help, left, row.help, "\n");
  }
  return help;
}

}  // namespace quire

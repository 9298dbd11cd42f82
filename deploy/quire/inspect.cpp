// `quire inspect MODEL`: architecture, parameters, quantization, and what each rank would hold.
// Reads headers only.
#include <cstdio>
#include <map>
#include <string>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "common/model_file/model_file.h"
#include "common/shard.h"
#include "common/status.h"
#include "deploy/quire/commands.h"
#include "worker/model/arch/arch.h"

namespace quire {
namespace {

constexpr double kMiB = 1024.0 * 1024.0;
constexpr char kUsage[] =
    "usage: quire inspect MODEL [--tensor-parallel-size N] [--load-format dummy]\n\n"
    "MODEL is a GGUF file, a Hugging Face folder, or `smollm2`. N is 1 unless given. dummy: a\n"
    "config.json is enough.\n";

std::uint64_t elements(const TensorInfo& tensor) {
  std::uint64_t n = 1;
  for (std::int64_t d : tensor.shape) n *= static_cast<std::uint64_t>(d);
  return n;
}

std::string describe_formats(const ModelFile& model) {
  struct Sum {
    int tensors = 0;
    std::uint64_t bytes = 0;
  };
  std::map<std::string, Sum> sums;
  for (const TensorInfo& tensor : model.tensors) {
    Sum& sum = sums[traits(tensor.format).name];
    ++sum.tensors;
    sum.bytes += tensor.bytes;
  }
  std::vector<std::string> out;
  for (const auto& [name, sum] : sums) {
    out.push_back(absl::StrFormat("%s: %d tensors, %.1f MiB", name, sum.tensors,
                                  static_cast<double>(sum.bytes) / kMiB));
  }
  return absl::StrJoin(out, "; ");
}

std::string describe_rope(const RopeSpec& rope) {
  const char* scaling = rope.scaling == RopeScaling::kLinear   ? ", linear scaling"
                        : rope.scaling == RopeScaling::kLlama3 ? ", llama3 scaling"
                        : rope.scaling == RopeScaling::kYarn   ? ", yarn scaling"
                                                               : "";
  return absl::StrFormat("theta %g over %d dimensions%s", rope.theta, rope.dims, scaling);
}

void print_model(const ModelFile& model) {
  const ModelSpec& s = model.spec;
  std::uint64_t parameters = 0;
  for (const TensorInfo& tensor : model.tensors) parameters += elements(tensor);
  std::printf("model         %s\n", s.name.c_str());
  std::printf("file          %s (%s, %.1f MiB of tensors)\n", model.path.c_str(),
              model.dummy  ? "made-up weights"
              : model.gguf ? "GGUF"
                           : "Hugging Face",
              static_cast<double>(model.total_bytes()) / kMiB);
  std::printf("architecture  %s, %d layers\n", s.architecture.c_str(), s.num_layers);
  std::printf("parameters    %.1f M\n", static_cast<double>(parameters) / 1e6);
  std::printf("shape         hidden %d, ffn %d, %d query heads and %d KV heads of %d\n", s.hidden,
              s.ffn, s.num_heads, s.num_kv_heads, s.head_dim);
  std::printf("vocabulary    %d tokens, %s embeddings\n", s.vocab,
              s.tied_embeddings ? "tied" : "separate");
  std::printf("context       %d positions, rope %s\n", s.max_positions,
              describe_rope(s.rope).c_str());
  const std::string method = model.quantization.empty() ? "" : model.quantization + ", held as ";
  std::printf("quantization  %s%s\n", method.c_str(), describe_formats(model).c_str());
}

absl::Status print_ranks(const ModelFile& model, int world) {
  QUIRE_ASSIGN_OR_RETURN(const Arch* arch, find_arch(model.spec.architecture));
  QUIRE_RETURN_IF_ERROR(verify_tensors(model, *arch));
  QUIRE_ASSIGN_OR_RETURN(const int block, row_parallel_block(model, *arch));
  QUIRE_ASSIGN_OR_RETURN(const ShardMap map, make_shard_map(model.spec, world, block));
  std::printf("\nover %d rank%s (the most is %d)\n", world, world == 1 ? "" : "s",
              model.spec.num_heads);
  for (int rank = 0; rank < world; ++rank) {
    const RankShard& shard = map.ranks[static_cast<std::size_t>(rank)];
    QUIRE_ASSIGN_OR_RETURN(const std::uint64_t bytes, owned_bytes(model, *arch, shard));
    const double kv_heads = 2.0 * shard.kv_heads.size() * model.spec.num_layers;  // K and V
    const double kv_elements = kv_heads * model.spec.head_dim;
    std::printf(
        "  rank %-2d  query heads %d-%d, KV heads %d-%d, ffn %d, vocabulary %d: "
        "weights %.1f MiB, KV of a token %.1f KiB in 16 bits, %.1f in int8\n",
        rank, shard.heads.begin, shard.heads.end - 1, shard.kv_heads.begin, shard.kv_heads.end - 1,
        shard.ffn.size(), shard.vocab.size(), static_cast<double>(bytes) / kMiB,
        kv_elements * 2 / 1024, (kv_elements + kv_heads * sizeof(float)) / 1024);
  }
  return absl::OkStatus();
}

// Of made-up weights the tensors follow from the shape.
absl::StatusOr<ModelFile> open_with_tensors(const std::string& path, LoadFormat load_format) {
  QUIRE_ASSIGN_OR_RETURN(ModelFile model, open_model(path, load_format));
  if (!model.dummy) return model;
  QUIRE_ASSIGN_OR_RETURN(const Arch* arch, find_arch(model.spec.architecture));
  QUIRE_RETURN_IF_ERROR(add_dummy_tensors(*arch, &model));
  return model;
}

}  // namespace

int inspect_command(const std::vector<std::string>& arguments) {
  std::string name;
  int world = 1;
  LoadFormat load_format = LoadFormat::kAuto;
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    const std::string& argument = arguments[i];
    if (argument == "--help" || argument == "-h") {
      std::fputs(kUsage, stdout);
      return 0;
    }
    if (argument == "--tensor-parallel-size") {
      if (++i == arguments.size() || !absl::SimpleAtoi(arguments[i], &world) || world < 1) {
        return fail("inspect", "--tensor-parallel-size needs a number of ranks, 1 or more");
      }
    } else if (argument == "--load-format") {
      if (++i == arguments.size() || (arguments[i] != "auto" && arguments[i] != "dummy")) {
        return fail("inspect", "--load-format is auto or dummy");
      }
      load_format = load_format_of(arguments[i]);
    } else if (argument.rfind("-", 0) == 0) {
      return fail("inspect", absl::StrCat("there is no option `", argument, "`\n", kUsage));
    } else if (!name.empty()) {
      return fail("inspect", absl::StrCat("`", argument, "` is one argument too many\n", kUsage));
    } else {
      name = argument;
    }
  }
  auto path = resolve_model(name);
  if (!path.ok())
    return fail("inspect", std::string(path.status().message()), name.empty() ? 64 : 66);
  auto model = open_with_tensors(*path, load_format);
  if (!model.ok()) {
    return fail("inspect", std::string(model.status().message()),
                absl::IsNotFound(model.status()) ? 66 : 65);
  }
  print_model(*model);
  if (const auto map = make_shard_map(model->spec, world, 1); !map.ok()) {
    return fail("inspect", std::string(map.status().message()));
  }
  if (absl::Status status = print_ranks(*model, world); !status.ok()) {
    return fail("inspect", std::string(status.message()), 65);
  }
  return 0;
}

}  // namespace quire

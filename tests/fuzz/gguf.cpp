// A GGUF file of a stranger: headers, metadata, tensor table, its tokenizer and chat template, and
// what the ranks compute from its numbers before they read a weight.
#include "common/model_file/gguf.h"

#include "coordinator/text/text.h"
#include "tests/fuzz/fuzz.h"
#include "worker/model/arch/arch.h"

namespace quire::fuzz {
namespace {

void plan_ranks(const ModelFile& model) {
  const auto arch = find_arch(model.spec.architecture);
  QUIRE_CHECK(arch.ok());
  if (!verify_tensors(model, **arch).ok()) return;
  const auto block = row_parallel_block(model, **arch);
  if (!block.ok() || !dominant_format(model, **arch).ok()) return;
  for (const int world : {1, 2, 3}) {
    const auto shards = make_shard_map(model.spec, world, *block);
    if (!shards.ok()) continue;
    for (const RankShard& shard : shards->ranks) {
      const auto bytes = owned_bytes(model, **arch, shard);
      QUIRE_CHECK(bytes.ok());
      QUIRE_CHECK_LE(*bytes, model.total_bytes());
    }
  }
}

}  // namespace
}  // namespace quire::fuzz

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace quire;
  static fuzz::MemoryFile file;
  file.assign(fuzz::view(data, size));
  const auto model = open_gguf(file.path());
  if (!model.ok()) {
    QUIRE_CHECK(!model.status().message().empty());
    return 0;
  }
  for (const TensorInfo& tensor : model->tensors) {
    QUIRE_CHECK_LE(tensor.offset, size);
    QUIRE_CHECK_LE(tensor.bytes, size - tensor.offset);
  }
  fuzz::plan_ranks(*model);
  const auto text = make_text(*model);
  if (!text.ok()) return 0;
  const auto ids = text->tokenizer->encode("Hello, world: 12345 \xE2\x82\xAC", true, true);
  if (ids.ok()) text->tokenizer->decode(*ids, false);
  return 0;
}

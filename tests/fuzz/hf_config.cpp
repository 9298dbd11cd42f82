// config.json and, behind a NUL, generation_config.json of a stranger; then what the numbers are
// good for: cuts of the model for several ranks.
#include "common/model_file/hf_config.h"

#include "common/model_file/hf_quant.h"
#include "common/model_file/json_file.h"
#include "common/model_file/spec_check.h"
#include "common/shard.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace quire;
  const auto [config_text, generation_text] = fuzz::halves(fuzz::view(data, size));
  const auto config = parse_json_object("config.json", config_text);
  if (!config.ok()) return 0;
  const auto quant = read_hf_quant("config.json", *config);
  if (quant.ok() && quant->method != HfQuant::Method::kNone) {
    QUIRE_CHECK(quant->bits == 4 || quant->bits == 8);
    QUIRE_CHECK_EQ(quant->group_size % 32, 0);
    QUIRE_CHECK(quant->format() != Format::kBf16);
  }
  static_cast<void>(read_hf_dtype("config.json", *config));
  auto spec = read_hf_config("config.json", *config);
  if (!spec.ok()) return 0;
  if (const auto json = parse_json_object("generation_config.json", generation_text); json.ok()) {
    if (!read_hf_token_ids("generation_config.json", *json, &*spec).ok()) return 0;
  }
  if (!check_spec("config.json", *spec).ok()) return 0;
  for (const int world : {1, 2, 3, 7}) {
    const auto map = make_shard_map(*spec, world, 32);
    if (!map.ok()) continue;
    int heads = 0, ids = 0;
    for (const RankShard& shard : map->ranks) {
      QUIRE_CHECK_EQ(shard.heads.begin, heads);
      QUIRE_CHECK_EQ(shard.vocab.begin, ids);
      heads = shard.heads.end;
      ids = shard.vocab.end;
    }
    QUIRE_CHECK_EQ(heads, spec->num_heads);
    QUIRE_CHECK_EQ(ids, spec->vocab);
  }
  return 0;
}

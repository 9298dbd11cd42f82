// What the one-answer contract costs matrix products: all of a model in their order of use with the
// sums behind o and down (without the norm), three ways in turn (contract_step.h). q4_1 has a q8_0
// vocabulary. Attention, whose tiles and splits are fixed too, is not measured.
//
// Medians of rounds; "of the faster" is leaves / the faster of whole and split, with the quartiles
// of the rounds' own ratios. Then the sums where ranks meet: the contract's partial sums of all
// ranks against one a rank. Every rank sums all rows, so what that takes longer is also shown as a
// share of a rank's own matrices: of "leaves" divided by the ranks, each with as many threads.
//
//   bench_contract [--shapes=smollm2] [--formats=q4_1,bf16] [--tokens=1,16,64,512] [--threads=N]
//                  [--samples=15] [--isa=..] [--cpu-time] [--split-below=512]
//   --split-below: K is divided among threads where N gives each fewer rows than this
#include <algorithm>
#include <array>
#include <cstdio>
#include <functional>
#include <memory>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "bench/kernels/contract_step.h"
#include "bench/kernels/linear_options.h"
#include "worker/comm/comm.h"

namespace quire::bench {
namespace {

struct Options : LinearOptions {
  int split_below = 512;
};

constexpr double kSampleSeconds = 0.03;

double at_share(std::vector<double> values, double share) {
  std::sort(values.begin(), values.end());
  return values[static_cast<std::size_t>(share * static_cast<double>(values.size() - 1) + 0.5)];
}
double median(const std::vector<double>& values) {
  return at_share(values, 0.5);
}

// Seconds of each of `works`, by round, in turn from another one each round.
using Work = std::function<void(int thread, Team& team)>;
std::vector<std::vector<double>> alternate(const std::vector<Work>& works, const Options& options,
                                           Team& team) {
  const auto seconds = [&](const Work& work, int times) {
    const double start = clock_seconds(options.cpu_time);
    team.run([&](int thread, Team& all) {
      for (int i = 0; i < times; ++i) work(thread, all);
    });
    return (clock_seconds(options.cpu_time) - start) / times;
  };
  double once = 0;
  for (const Work& work : works) once = std::max(once, seconds(work, 1));
  const int times = std::clamp(static_cast<int>(kSampleSeconds / once), 1, 100000);
  std::vector<std::vector<double>> samples(works.size());
  for (int round = 0; round < options.samples; ++round) {
    for (std::size_t i = 0; i < works.size(); ++i) {
      const std::size_t turn = (i + static_cast<std::size_t>(round)) % works.size();
      samples[turn].push_back(seconds(works[turn], times));
    }
  }
  return samples;
}

// The median time of the contract's way.
double products(const std::array<ContractStep*, 3>& ways, const char* format, int tokens,
                const Options& options, Team& team) {
  std::vector<float> out;
  for (const ContractStep* way : ways) out.resize(std::max(out.size(), way->most_floats(tokens)));
  std::vector<Work> works;
  for (ContractStep* way : ways) {
    way->set_tokens(tokens, out.data());
    works.push_back([way](int thread, Team& all) { way->run(thread, all); });
  }
  const auto samples = alternate(works, options, team);
  const double leaves = median(samples[0]), whole = median(samples[1]), split = median(samples[2]);
  const std::vector<double>& faster = samples[split < whole ? 2 : 1];
  std::vector<double> ratios;
  for (std::size_t i = 0; i < faster.size(); ++i) ratios.push_back(samples[0][i] / faster[i]);
  std::printf("%-5s %4d %11.0f %11.0f %11.0f %13.3f %13.3f   (%.3f to %.3f)\n", format, tokens,
              leaves * 1e6, whole * 1e6, split * 1e6, leaves / whole,
              leaves / std::min(whole, split), at_share(ratios, 0.25), at_share(ratios, 0.75));
  std::fflush(stdout);
  return leaves;
}

ModelSpec spec_of(const LinearModel& model) {
  const LinearShape& o = model.layer[1];
  ModelSpec spec;
  spec.num_layers = model.layers;
  spec.hidden = o.rows;
  spec.num_kv_heads = o.kv_groups;
  spec.num_heads = o.kv_groups * o.heads_per_group;
  spec.head_dim = o.columns / spec.num_heads;
  spec.ffn = model.layer[3].columns;
  spec.vocab = model.vocabulary.rows;
  return spec;
}

struct Sum {
  std::vector<int> program;
  int partials = 0;
};

// The contract's sums of a layer, after attention and after the ffn.
std::array<Sum, 2> contract_sums(const ShardMap& shards) {
  std::vector<Range> heads, leaves;
  for (const RankShard& rank : shards.ranks) {
    heads.push_back(rank.heads);
    leaves.push_back(rank.ffn_leaves);
  }
  std::array<Sum, 2> sums;
  const MeetPlan plans[] = {make_meet_plan(shards.attention, heads),
                            make_meet_plan(shards.ffn, leaves)};
  for (std::size_t i = 0; i < 2; ++i) {
    sums[i] = {plans[i].program, static_cast<int>(plans[i].sources.size())};
  }
  return sums;
}

// One partial sum a rank, added in order.
std::array<Sum, 2> free_sums(int ranks) {
  Sum sum{{0}, ranks};
  for (int rank = 1; rank < ranks; ++rank) sum.program.insert(sum.program.end(), {rank, -1});
  return {sum, sum};
}

// All meetings of a step, as one rank sums them.
Work meetings(const std::array<Sum, 2>& sums, const LinearModel& model, int tokens, cpu::Isa isa,
              const std::vector<const float*>& partials, float* residual) {
  return [=](int thread, Team& team) {
    for (int i = 0; i < 2 * model.layers; ++i) {
      const Sum& sum = sums[static_cast<std::size_t>(i % 2)];
      cpu::CombineJob job;
      job.program = sum.program.data();
      job.program_size = static_cast<int>(sum.program.size());
      job.partials = partials.data();
      job.columns = model.layer[1].rows;
      job.residual = residual;
      const Range mine = cpu::share_of(tokens, thread, team.size());
      for (int t = mine.begin; t < mine.end; ++t) cpu::vector_ops(isa).combine_row(job, t);
      team.meet();
    }
  };
}

void sums_of_ranks(const LinearModel& model, Format format, int tokens, double step,
                   const Options& options, Team& team) {
  for (const int ranks : {2, 3, 4}) {
    const auto shards = make_shard_map(spec_of(model), ranks, traits(format).block);
    if (!shards.ok()) continue;
    const std::array<Sum, 2> ours = contract_sums(*shards);
    const std::size_t size =
        static_cast<std::size_t>(tokens) * static_cast<std::size_t>(model.layer[1].rows);
    const int most = std::max({ours[0].partials, ours[1].partials, ranks});
    const std::vector<float> values(size * static_cast<std::size_t>(most));
    std::vector<float> residual(size);
    std::vector<const float*> partials;
    for (int i = 0; i < most; ++i) {
      partials.push_back(values.data() + size * static_cast<std::size_t>(i));
    }
    const auto samples = alternate(
        {meetings(ours, model, tokens, options.isa, partials, residual.data()),
         meetings(free_sums(ranks), model, tokens, options.isa, partials, residual.data())},
        options, team);
    const double contract = median(samples[0]), one_each = median(samples[1]);
    std::printf("%-5s %4d %5d %8d + %d %11.1f %11.1f %11.2f%%\n", traits(format).name, tokens,
                ranks, ours[0].partials, ours[1].partials, contract * 1e6, one_each * 1e6,
                100 * ranks * (contract - one_each) / step);
    std::fflush(stdout);
  }
}

void run(const LinearModel& model, const Options& options) {
  std::printf("\n%s, %d threads, %s, %d rounds\n", model.name.c_str(), options.threads,
              cpu::name_of(options.isa), options.samples);
  std::printf("%-5s %4s %11s %11s %11s %13s %13s   %s\n", "fmt", "M", "leaves us", "whole us",
              "split us", "of whole", "of the faster", "(half of the rounds)");
  Team team(options.threads);
  std::vector<std::vector<double>> steps;  // by format, by number of tokens
  for (const Format format : options.formats) {
    SharedBytes bytes;
    const auto make = [&](Way way) {
      return std::make_unique<ContractStep>(model, format, way, options.isa, options.threads,
                                            options.split_below, bytes);
    };
    const auto leaves = make(Way::kLeaves), whole = make(Way::kWhole), split = make(Way::kSplit);
    steps.emplace_back();
    for (const int tokens : options.tokens) {
      steps.back().push_back(products({leaves.get(), whole.get(), split.get()}, traits(format).name,
                                      tokens, options, team));
    }
  }
  std::printf("\n%-5s %4s %5s %12s %11s %11s %12s\n", "fmt", "M", "ranks", "partials",
              "contract us", "one each us", "of a rank's");
  for (std::size_t f = 0; f < steps.size(); ++f) {
    for (std::size_t t = 0; t < options.tokens.size(); ++t) {
      sums_of_ranks(model, options.formats[f], options.tokens[t], steps[f][t], options, team);
    }
  }
}

int run_all(int argc, char** argv) {
  Options options;
  options.shapes = "smollm2";
  options.formats = {Format::kQ4_1, Format::kBf16};
  options.tokens = {1, 16, 64, 512};
  options.samples = 15;
  const auto own = [&](const std::string& name, const std::string& value) {
    return name == "--split-below" && absl::SimpleAtoi(value, &options.split_below);
  };
  const auto common = parse_linear_options(argc, argv, options, own);
  if (!common.ok()) {
    std::fprintf(stderr, "bench_contract: %s\n", std::string(common.status().message()).c_str());
    return 64;
  }
  static_cast<LinearOptions&>(options) = *common;
  for (const LinearModel& model : linear_models()) {
    if (absl::StrContains(model.name, options.shapes)) run(model, options);
  }
  return 0;
}

}  // namespace
}  // namespace quire::bench

int main(int argc, char** argv) {
  return quire::bench::run_all(argc, argv);
}

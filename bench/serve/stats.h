// What was seen of the requests of a run, and what is said about it: the definitions of
// `vllm bench serve`. Everything here is arithmetic on samples; nobody waits or sends.
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace quire::bench {

// One answered request, in seconds.
struct Timing {
  double sent_at_s = 0;              // of the steady clock, just before the request is written
  double ttft_s = 0;                 // from there to the first chunk with choices
  double end_s = 0;                  // from there to the last chunk with choices
  std::vector<double> chunk_gaps_s;  // between successive chunks with choices
  int output_tokens = 0;             // usage.completion_tokens; without a usage, the chunks
};

// One request of a run. Those that failed count in `failed` and nowhere else.
struct Outcome {
  Timing timing;
  int input_tokens = 0;
  double queued_s = 0;  // waited in the client for --max-concurrency, before it was sent
  std::string error;    // not empty: it failed, and why
};

// Limits in milliseconds that a good request meets, all of them; 0 is none.
struct Goals {
  double ttft_ms = 0, tpot_ms = 0, e2el_ms = 0;
  bool any() const { return ttft_ms > 0 || tpot_ms > 0 || e2el_ms > 0; }
};

// The value below which a share `p` (0 to 1) of `values` lies, between neighbours by a straight
// line; 0 of none.
double percentile(std::vector<double> values, double p);

struct Spread {
  double mean = 0, median = 0, std = 0;                // std: of the values themselves, over n
  std::vector<std::pair<double, double>> percentiles;  // (percent, value)
};
Spread spread_of(const std::vector<double>& values, const std::vector<double>& percents);

// Each in milliseconds; one value a request, but for `itl`: one a gap.
struct Latencies {
  std::vector<double> ttft, tpot, itl, e2el;
};

struct Summary {
  double duration_s = 0;
  int completed = 0, failed = 0, good = 0;
  long input_tokens = 0, output_tokens = 0;  // of completed requests
  double request_throughput = 0, output_throughput = 0, total_throughput = 0;  // a second
  double goodput = 0;           // good requests a second
  double peak_output = 0;       // chunks in the busiest second
  int peak_concurrent = 0;      // requests that overlap the fullest second
  double median_queued_ms = 0;  // wait for --max-concurrency
  Latencies latencies;
};

// (end - first) / (tokens - 1), in milliseconds; 0 where one token makes it undefined.
double tpot_ms(const Timing& timing);
bool meets(const Timing& timing, const Goals& goals);
Summary summarize(const std::vector<Outcome>& outcomes, double duration_s, const Goals& goals);

}  // namespace quire::bench

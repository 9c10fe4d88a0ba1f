#pragma once

#include "actors/gradient_exchanger/unit_values.hpp"

#include <caf/expected.hpp>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

/// The aggregate of one set of contributions (spec/training.md sections 6 and 8). Equal inputs give equal
/// bits on every machine and in every order of arrival: f32 arithmetic without contracted multiply-add, in
/// ascending node id or ascending value, weights divided in f64 and rounded once, norms and distances in f64
/// over blocks of 4,096 elements of the flattened unit. Plain functions, single threaded.
namespace neuroshard {

enum class aggregation_strategy : uint8_t { mean, median, trimmed_mean, krum, multi_krum, geometric_median };
std::optional<aggregation_strategy> parse_aggregation(std::string_view name);
const char* to_string(aggregation_strategy strategy) noexcept;

struct aggregation_rules {
  aggregation_strategy strategy = aggregation_strategy::trimmed_mean;
  double trim_fraction = 0.1;
};

/// One contribution of the set; `values` outlives the call and is only read.
struct contribution {
  std::string node_id;
  uint64_t batches = 0;
  int64_t created_unix_ms = 0;
  const value_source* values = nullptr;
};

/// A sum in f64 over blocks of 4,096 terms, the sums of blocks added in order.
class block_sum {
public:
  void add(double term) noexcept {
    block_ += term;
    if (++in_block_ == 4'096) {
      total_ += block_;
      block_ = 0;
      in_block_ = 0;
    }
  }
  double value() const noexcept { return in_block_ == 0 ? total_ : total_ + block_; }

private:
  double total_ = 0;
  double block_ = 0;
  size_t in_block_ = 0;
};

/// By age at the time of the set: under 1 h 1.0, under 1 day 0.9, under 7 days 0.7, else 0.3.
double freshness_of(int64_t age_ms) noexcept;

/// How many of n are dropped at each end.
size_t trim_count(size_t n, double fraction) noexcept;
/// How many of n >= 3 liars Krum allows for: min(floor(0.2 n), floor((n - 3) / 2)).
size_t krum_tolerance(size_t n) noexcept;

/// The median of values[n], n >= 1, which are reordered; n even: the mean of the two middle ones.
float median_of(std::span<float> values) noexcept;

/// dbar of at least one contribution, none twice; with fewer than 3 every strategy is the mean. Holds one
/// tensor of every contribution, the result, and n^2 distances with Krum. Reads every contribution once; Krum
/// twice; geometric_median at most 102 times. Refusals: invalid_request without contributions, with a node
/// twice or a value that is not finite; what a source refuses.
caf::expected<unit_values> aggregate(const unit_layout& layout, std::vector<contribution> set,
                                     const aggregation_rules& rules, int64_t set_unix_ms);

} // namespace neuroshard

#pragma once

#include "bench/kernels/kernel_cases.hpp"

#include <string>
#include <vector>

namespace neuroshard::bench {

/// Rates over the rounds, in GFLOP/s or GB/s.
struct spread {
  double median = 0;
  double deviation = 0; ///< median absolute deviation
  double low = 0;
  double high = 0;
};
spread spread_of(std::vector<double> rates);

struct measured {
  const bench_case* what = nullptr;
  spread rate;
  double microseconds = 0;  ///< one call, median
  double peak = 0;          ///< of the bound
  double library = 0;       ///< median of oneDNN alone, 0 where there is none
  double library_share = 0; ///< median over the rounds of ours / oneDNN
  spread ceiling;           ///< GB/s of a plain copy or read beside the operation; 0 for products
  double ceiling_share = 0; ///< median over the rounds of ours / ceiling
  spread places_ceiling;    ///< likewise of the same rows or blocks, see places_ceiling()
  double places_share = 0;
  double error = -1; ///< max |a - b| / max |b| against the reference; -1 when there is nothing to compare
};

void print_heading(const machine_peaks& peaks, const std::string& processor, int threads);
void print_row(const measured& m);
/// False when the file could not be written.
bool write_json(const std::string& path, const machine_peaks& peaks, const std::string& processor,
                int threads, const std::vector<measured>& rows);

} // namespace neuroshard::bench

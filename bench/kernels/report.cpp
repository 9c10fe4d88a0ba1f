#include "bench/kernels/report.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>

namespace neuroshard::bench {

namespace {

double median_of(std::vector<double>& values) {
  if (values.empty())
    return 0;
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

const char* unit_of(const bench_case& one) {
  return one.limit == bound::matrix ? "GFLOP/s" : "GB/s";
}

const char* limit_name(const bench_case& one) {
  switch (one.limit) {
  case bound::matrix:
    return "matrix";
  case bound::copy:
    return "copy";
  case bound::read:
    break;
  }
  return "read";
}

} // namespace

spread spread_of(std::vector<double> rates) {
  spread s;
  s.median = median_of(rates);
  s.low = rates.empty() ? 0 : rates.front();
  s.high = rates.empty() ? 0 : rates.back();
  for (double& r : rates)
    r = std::abs(r - s.median);
  s.deviation = median_of(rates);
  return s;
}

void print_heading(const machine_peaks& peaks, const std::string& processor, int threads) {
  std::printf("%s, %d threads. Peaks: bf16 %.1f GFLOP/s, f32 %.1f GFLOP/s (oneDNN 2048^3), copy %.1f GB/s, "
              "read %.1f GB/s\n\n",
              processor.c_str(), threads, peaks.bf16, peaks.f32, peaks.copy, peaks.read);
  std::printf("%-23s %-36s %-4s %8s %6s %8s %8s %-7s %5s %8s %6s %11s %9s %7s %8s\n", "operation", "shape",
              "type", "median", "MAD", "min", "max", "unit", "peak", "beside", "share", "same places", "us",
              "oneDNN", "error");
}

namespace {

std::string percent(double share) {
  char text[16] = "";
  if (share > 0)
    std::snprintf(text, sizeof text, "%.0f%%", share * 100);
  return text;
}

} // namespace

void print_row(const measured& m) {
  const bench_case& one = *m.what;
  char error[16] = "";
  if (m.error >= 0)
    std::snprintf(error, sizeof error, "%.1e", m.error);
  char beside[16] = "";
  if (m.ceiling_share > 0)
    std::snprintf(beside, sizeof beside, "%.1f", m.ceiling.median);
  char rows[24] = "";
  if (m.places_share > 0)
    std::snprintf(rows, sizeof rows, "%.1f %4.0f%%", m.places_ceiling.median, m.places_share * 100);
  std::printf("%-23s %-36s %-4s %8.1f %6.1f %8.1f %8.1f %-7s %4.0f%% %8s %6s %11s %9.1f %7s %8s\n",
              one.op.c_str(), one.shape.c_str(), one.type == dtype::bf16 ? "bf16" : "f32", m.rate.median,
              m.rate.deviation, m.rate.low, m.rate.high, unit_of(one), m.rate.median / m.peak * 100, beside,
              percent(m.ceiling_share).c_str(), rows, m.microseconds, percent(m.library_share).c_str(),
              error);
  std::fflush(stdout);
}

bool write_json(const std::string& path, const machine_peaks& peaks, const std::string& processor,
                int threads, const std::vector<measured>& rows) {
  std::FILE* file = std::fopen(path.c_str(), "w");
  if (file == nullptr)
    return false;
  std::fprintf(file,
               "{\n  \"bench\": \"kernel_bench\",\n  \"processor\": \"%s\",\n  \"threads\": %d,\n  "
               "\"peaks\": {\"bf16_gflops\": %.1f, "
               "\"f32_gflops\": %.1f, \"copy_gb_s\": %.1f, \"read_gb_s\": %.1f},\n  \"results\": [",
               processor.c_str(), threads, peaks.bf16, peaks.f32, peaks.copy, peaks.read);
  const char* separator = "\n";
  for (const measured& m : rows) {
    const bench_case& one = *m.what;
    std::fprintf(file,
                 "%s    {\"op\": \"%s\", \"shape\": \"%s\", \"type\": \"%s\", \"unit\": \"%s\", \"median\": "
                 "%.2f, \"mad\": %.2f, "
                 "\"min\": %.2f, \"max\": %.2f, \"us\": %.2f, \"bound\": \"%s\", \"share_of_peak\": %.4f",
                 separator, one.op.c_str(), one.shape.c_str(), one.type == dtype::bf16 ? "bf16" : "f32",
                 unit_of(one), m.rate.median, m.rate.deviation, m.rate.low, m.rate.high, m.microseconds,
                 limit_name(one), m.rate.median / m.peak);
    if (m.library > 0)
      std::fprintf(file, ", \"onednn_gflops\": %.2f, \"share_of_onednn\": %.4f", m.library, m.library_share);
    if (m.ceiling_share > 0)
      std::fprintf(file, ", \"ceiling_gb_s\": %.2f, \"share_of_ceiling\": %.4f", m.ceiling.median,
                   m.ceiling_share);
    if (m.places_share > 0)
      std::fprintf(file, ", \"same_places_gb_s\": %.2f, \"share_of_same_places\": %.4f",
                   m.places_ceiling.median, m.places_share);
    if (m.error >= 0)
      std::fprintf(file, ", \"error\": %.3e", m.error);
    std::fputc('}', file);
    separator = ",\n";
  }
  std::fprintf(file, "\n  ]\n}\n");
  return std::fclose(file) == 0;
}

} // namespace neuroshard::bench

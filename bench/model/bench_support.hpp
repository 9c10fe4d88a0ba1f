#pragma once

#include "kernels/core/backend.hpp"
#include "kernels/model/stage.hpp"

#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace neuroshard::bench {

/// Shape S: 6 layers, 256 wide; shape M: 12 layers, 768 wide. Vocabulary 32,000.
model::architecture shape_named(std::string_view name, bool tied);

/// Median, median absolute deviation, least and most of several rounds.
struct spread {
  double median = 0, deviation = 0, low = 0, high = 0;
};
spread spread_of(std::vector<double> values);
/// The value below which `share` of all lie.
double percentile(std::vector<double> values, double share);

double seconds_of(const std::function<void()>& work);
/// GFLOP/s of a square product of the library with all threads, best of three; cheap enough for every round.
double product_peak(kernels::dtype type, int threads);
/// GB/s at which all threads together read memory, best of several.
double read_bandwidth(int threads);

/// Most resident bytes of this process so far.
uint64_t peak_resident_bytes();
std::string processor_name();
/// Prints what is wrong and ends the program.
[[noreturn]] void die(const std::string& what);
kernels::device_ptr open_cpu(int threads);

/// A flat JSON object in the making.
class json_object {
public:
  json_object& add(std::string_view key, double value);
  json_object& add(std::string_view key, std::string_view value);
  json_object& add_raw(std::string_view key, std::string_view json);
  std::string text() const { return "{" + body_ + "}"; }

private:
  std::string body_;
};

/// Command line of a bench: --json FILE, --threads N, --corpus PATH, --quick, and what is left.
struct bench_options {
  std::string json;
  std::string corpus;
  int threads = 0;
  bool quick = false;
  std::vector<std::string> rest;
};
bench_options parse_options(int argc, char** argv, std::string_view usage);
void write_file(const std::string& path, const std::string& text);

} // namespace neuroshard::bench

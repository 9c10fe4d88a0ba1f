#pragma once

#include "kernels/core/backend.hpp"

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

/// Every operation, stated once: shapes, types, tolerance, how to call it and what it means in double
/// precision. The same cases test the reference backend against the mathematics and every other backend
/// against the reference.
namespace neuroshard::kernels::testing {

/// Seeded numbers for inputs: the same seed gives the same case anywhere.
class numbers {
public:
  explicit numbers(uint64_t seed) : seed_(seed) {}
  double uniform(double low, double high);
  int64_t below(int64_t n);
  std::vector<double> many(int64_t count, double low = -1, double high = 1);

private:
  uint64_t seed_;
  uint64_t drawn_ = 0;
};

/// The seed of this run: NEUROSHARD_TEST_SEED, otherwise a fixed one.
uint64_t test_seed();

enum class role {
  input,
  output,      ///< filled with NaN before the call
  accumulated, ///< read and written
};

/// One operand of a case. Values are those of a row-major tensor without gaps, already rounded to the type.
struct operand {
  std::string name;
  dtype type = dtype::f32;
  std::vector<int64_t> shape;
  role is = role::input;
  std::vector<double> values; ///< unless `output`
  double tolerance = 0;       ///< of what is written: max |a - b| / max |b|
  int64_t gap = 0;   ///< NaN elements before the first and after each row; tests strides and odd addresses
  int alias_of = -1; ///< works in place on the memory of that operand

  int64_t elements() const;
};

using values = std::vector<std::vector<double>>; ///< of each operand of a case

/// What `run` of a case gets: the operands in device memory, in order.
struct call {
  queue& on;
  std::vector<tensor> operands;
  std::vector<buffer_ptr> kept;

  const backend& ops() const { return on.ops(); }
  void* device() const { return on.on()->impl(); }
  const tensor& operator[](size_t i) const { return operands[i]; }
  /// Scratch of that many bytes, full of NaN; an empty view for 0.
  tensor scratch(uint64_t bytes);
  /// The prepared form of a weight.
  result<tensor> prepared(const tensor& weight, dtype act, weight_use use);
};

struct op_case {
  std::string name;
  std::vector<operand> operands;
  std::function<status(call&)> run;
  /// Computes what is written from what is read, in double; none where that would take too long.
  std::function<void(values&)> oracle;
};

/// All cases, with inputs drawn from the seed.
std::vector<op_case> all_cases(uint64_t seed);

// Parts of all_cases, one source file each.
void add_linear_cases(std::vector<op_case>& to, uint64_t seed);
void add_rowwise_cases(std::vector<op_case>& to, uint64_t seed);
void add_norm_cases(std::vector<op_case>& to, uint64_t seed);
void add_attention_cases(std::vector<op_case>& to, uint64_t seed);
void add_paged_attention_cases(std::vector<op_case>& to, uint64_t seed);
void add_loss_cases(std::vector<op_case>& to, uint64_t seed);
void add_optimizer_cases(std::vector<op_case>& to, uint64_t seed);

/// What came out of a case: decoded values and raw bytes of every operand.
struct outcome {
  status done;
  values read;
  std::vector<std::vector<uint8_t>> raw;
  bool gaps_intact = true;
};

/// Runs a case on a device.
outcome run(const device_ptr& on, const op_case& one);

/// The oracle's answer; inputs as given, outputs computed.
values expected(const op_case& one);

/// max |a - b| / max |b| (absolute where b is all zero); NaN in `a` shows as NaN.
double distance(const std::vector<double>& a, const std::vector<double>& b);

/// A value as the type holds it.
double rounded(double value, dtype type);
std::vector<double> rounded(std::vector<double> many, dtype type);

/// An operand that is read, its values rounded to the type.
operand input(std::string name, dtype type, std::vector<int64_t> shape, std::vector<double> v,
              int64_t gap = 0);
operand output(std::string name, dtype type, std::vector<int64_t> shape, double tolerance, int64_t gap = 0);
operand accumulated(std::string name, dtype type, std::vector<int64_t> shape, std::vector<double> v,
                    double tolerance, int64_t gap = 0);

/// d(sum of upstream * f(x)) / dx by central differences in double.
std::vector<double> numeric_gradient(const std::function<std::vector<double>(const std::vector<double>&)>& f,
                                     std::vector<double> x, const std::vector<double>& upstream);

const char* name_of(dtype type);

} // namespace neuroshard::kernels::testing

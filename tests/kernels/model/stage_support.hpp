#pragma once

#include "kernels/core/backend.hpp"
#include "kernels/model/stage.hpp"
#include "tests/support/test.hpp"

#include <map>
#include <random>
#include <string>
#include <vector>

/// What the tests of the stage share: tiny models on every backend that was built.
namespace neuroshard::test {

using namespace neuroshard::model;
using neuroshard::kernels::code;
using neuroshard::kernels::dtype;

/// Names of the backends to run on: "reference", and "cpu" where it was built.
std::vector<std::string> backends();
/// A device of a backend, with so many threads.
kernels::device_ptr open_device(const std::string& backend, int threads = 0);

/// 2 layers, 32 wide, 4 heads, 2 kv heads, ffn 48, 64 rows, context 64.
architecture tiny_shape();
/// Holds all of a model, trains micro-batches up to 64 tokens, serves from a pool of 40 blocks.
stage_options whole_options(const architecture& a, dtype compute = dtype::f32);
std::unique_ptr<stage> make_stage(const kernels::device_ptr& on, const architecture& a,
                                  const stage_options& o, uint64_t seed = 7);

/// The seed of random tests: NEUROSHARD_TEST_SEED, else fixed; printed by the caller through INFO.
uint64_t test_seed();
std::vector<int32_t> random_ids(std::mt19937_64& random, size_t count, int32_t below);

train_input whole_batch(const architecture& a, int64_t sequences, int64_t positions, uint64_t seed);
std::vector<float> read_all(stage& s, const std::string& name, parameter_part part);
/// All parameters of a stage, by name.
std::map<std::string, std::vector<float>> read_parts(stage& s, parameter_part part);
/// sqrt(sum (a-b)^2 / sum b^2); 0 when both are zero.
double relative_l2(const std::vector<float>& a, const std::vector<float>& b);
double relative_l2(const std::vector<float>& a, const std::vector<double>& b);
/// max |a - b| / max(1, max |b|), the measure of model.md section 4.
double logit_difference(std::span<const float> a, std::span<const float> b);

/// Logits of the last position of one sequence with the newest serving copy, without a cache.
std::vector<float> logits_without_cache(stage& s, const std::vector<int32_t>& ids);
/// One row of a call.
infer_row row_of(std::string session, uint32_t position, int64_t count);

} // namespace neuroshard::test

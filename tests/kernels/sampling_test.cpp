#include "kernels/core/sampling.hpp"
#include "tests/support/test.hpp"

#include <cmath>
#include <limits>
#include <map>
#include <vector>

using namespace neuroshard::kernels;

namespace {

constexpr float infinity = std::numeric_limits<float>::infinity();
constexpr float not_a_number = std::numeric_limits<float>::quiet_NaN();

sample_params params_for(const std::vector<float>& logits) {
  sample_params p;
  p.valid_vocab = static_cast<uint32_t>(logits.size());
  return p;
}

sampled draw(const std::vector<float>& logits, const sample_params& p) {
  std::vector<candidate> scratch(logits.size());
  return sample_row(logits, p, scratch);
}

std::map<int32_t, int> histogram(const std::vector<float>& logits, sample_params p, int draws) {
  std::map<int32_t, int> counts;
  for (int i = 0; i < draws; ++i) {
    p.step = static_cast<uint64_t>(i);
    ++counts[draw(logits, p).id];
  }
  return counts;
}

std::vector<int32_t> support(const std::vector<float>& logits, const sample_params& p, int draws = 3000) {
  std::vector<int32_t> ids;
  for (const auto& [id, count] : histogram(logits, p, draws))
    ids.push_back(id);
  return ids;
}

using ids = std::vector<int32_t>;

} // namespace

TEST_CASE("temperature 0 takes the largest logit, the lowest id on ties") {
  const std::vector<float> logits{9, 9, 1, 9, 5, 7, 7, 2};
  auto p = params_for(logits);
  p.temperature = 0;
  CHECK_EQ(draw(logits, p).id, 5);
  p.valid_vocab = 5;
  CHECK_EQ(draw(logits, p).id, 4);
  p.valid_vocab = 3;
  CHECK_EQ(draw(logits, p).id, 2);
  CHECK_EQ(draw(logits, p).logprob, 0.0F);
}

TEST_CASE("PAD, BOS, UNK and ids past the vocabulary are never drawn") {
  const std::vector<float> logits{50, 50, 0, 50, 0, 0, 50, 50};
  auto p = params_for(logits);
  p.valid_vocab = 6;
  CHECK(support(logits, p) == ids{2, 4, 5});
}

TEST_CASE("draws follow the softmax at any temperature") {
  const std::vector<float> logits{0, 0, 1, 0, 0.5F, -1, 2, 0.25F, -3};
  constexpr int draws = 40000;
  for (const float temperature : {0.5F, 1.0F, 2.0F}) {
    auto p = params_for(logits);
    p.temperature = temperature;
    p.seed = 77;
    std::map<int32_t, double> weights;
    double total = 0;
    for (size_t id : {2, 4, 5, 6, 7, 8})
      total += weights[static_cast<int32_t>(id)] =
          std::exp(static_cast<double>(logits[id]) / static_cast<double>(temperature));
    auto counts = histogram(logits, p, draws);
    double chi_square = 0;
    for (const auto& [id, weight] : weights) {
      const double mean = draws * weight / total;
      chi_square += (counts[id] - mean) * (counts[id] - mean) / mean;
    }
    CAPTURE(temperature);
    CHECK(chi_square < 20.5); // 5 degrees of freedom: passed by chance once in a thousand
  }
}

TEST_CASE("top-k keeps k, ties at the edge by lower id") {
  const std::vector<float> logits{0, 0, 1, 0, 3, 2, 2, 2, 1};
  auto p = params_for(logits);
  p.top_k = 1;
  CHECK(support(logits, p) == ids{4});
  p.top_k = 3;
  CHECK(support(logits, p) == ids{4, 5, 6});
  p.top_k = 100;
  CHECK_EQ(support(logits, p).size(), 6U);
}

TEST_CASE("top-p keeps the smallest prefix that reaches p, at least one token") {
  // Probabilities 0.5, 0.25, 0.125, 0.125 for ids 4, 5, 6, 7.
  const std::vector<float> logits{0, 0, -infinity, 0, std::log(4.0F), std::log(2.0F), 0, 0};
  auto p = params_for(logits);
  const auto kept = [&](float top_p) {
    p.top_p = top_p;
    return support(logits, p);
  };
  CHECK(kept(0) == ids{4});
  CHECK(kept(0.4F) == ids{4});
  CHECK(kept(0.6F) == ids{4, 5});
  CHECK(kept(0.74F) == ids{4, 5});
  CHECK(kept(0.8F) == ids{4, 5, 6}); // of two equals the lower id
  CHECK(kept(0.99F) == ids{4, 5, 6, 7});
}

TEST_CASE("top-p counts what top-k has left") {
  const std::vector<float> logits{0, 0, -infinity, 0, std::log(4.0F), std::log(2.0F), 0, 0};
  auto p = params_for(logits);
  p.top_k = 2;
  p.top_p = 0.6F; // 4/6 of what is left is enough
  CHECK(support(logits, p) == ids{4});
}

TEST_CASE("top-p reaches deep into a flat distribution") {
  const std::vector<float> logits(5000, 0.5F);
  auto p = params_for(logits);
  p.top_p = 0.5F;
  int32_t largest = 0;
  for (const int32_t id : support(logits, p, 2000))
    largest = std::max(largest, id);
  CHECK(largest <= 2 + 2500);
  CHECK(largest > 2400); // of 2000 draws, one is all but sure to be near the edge
}

TEST_CASE("the same seed and step give the same id, another step another draw") {
  const std::vector<float> logits(300, 0.0F);
  auto p = params_for(logits);
  p.seed = 5;
  p.step = 9;
  const int32_t first = draw(logits, p).id;
  CHECK_EQ(draw(logits, p).id, first);
  CHECK(support(logits, p, 50).size() > 30);
}

TEST_CASE("the log-probability is that of the unmodified distribution") {
  const std::vector<float> logits{0, 0, 1, 0, 3, 2};
  auto p = params_for(logits);
  p.temperature = 0.1F;
  p.top_k = 1;
  const auto got = draw(logits, p);
  CHECK_EQ(got.id, 4);
  const double total = std::exp(1.0) + std::exp(3.0) + std::exp(2.0);
  CHECK(static_cast<double>(got.logprob) == doctest::Approx(3 - std::log(total)).epsilon(1e-5));
}

TEST_CASE("no logits give a NaN or an id that may not be drawn") {
  const std::vector<std::vector<float>> rows{
      {not_a_number, not_a_number, not_a_number, not_a_number, not_a_number, not_a_number},
      {0, 0, not_a_number, 0, 1, not_a_number},
      {0, 0, -infinity, 0, -infinity, -infinity},
      {0, 0, infinity, 0, infinity, 1},
      {0, 0, 3e38F, 0, -3e38F, 0},
      {infinity, infinity, 0, infinity, 1, 2},
  };
  for (const auto& logits : rows)
    for (const float temperature : {0.0F, 1e-45F, 1e-3F, 1.0F, 3e38F})
      for (const uint32_t top_k : {0U, 2U})
        for (const float top_p : {0.0F, 0.5F, 1.0F}) {
          auto p = params_for(logits);
          p.temperature = temperature;
          p.top_k = top_k;
          p.top_p = top_p;
          const auto got = draw(logits, p);
          CHECK_FALSE(std::isnan(got.logprob));
          CHECK((got.id == 2 || got.id == 4 || got.id == 5));
          if (&logits == &rows[1])
            CHECK_EQ(got.id, 4);
        }
}

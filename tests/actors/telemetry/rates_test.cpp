#include "actors/telemetry/rates.hpp"
#include "tests/support/test.hpp"

#include <numeric>
#include <vector>

using namespace neuroshard;

TEST_CASE("a windowed rate is the growth of a counter over the window") {
  windowed_rate rate{60'000'000};
  CHECK(rate.growth() == 0);
  for (int64_t t = 0; t <= 120; ++t)
    rate.observe(t * 1'000'000, static_cast<uint64_t>(2 * t));
  CHECK(rate.growth() == 120);
  for (int64_t t = 121; t <= 181; ++t)
    rate.observe(t * 1'000'000, 240);
  CHECK(rate.growth() == 0);
}

TEST_CASE("a window that is not full yet counts from its first sample") {
  windowed_rate rate{60'000'000};
  rate.observe(0, 100);
  rate.observe(5'000'000, 130);
  CHECK(rate.growth() == 30);
}

TEST_CASE("observations closer than a second share a sample, so that memory stays bounded") {
  windowed_rate rate{60'000'000};
  for (int64_t t = 0; t < 10'000; ++t)
    rate.observe(t * 1000, static_cast<uint64_t>(t));
  CHECK(rate.growth() == 9'999);
}

TEST_CASE("latencies are summed up by mean and nearest-rank percentile") {
  CHECK(summarize({}).p99_ms == 0);
  const std::vector<uint32_t> one{1500};
  CHECK(summarize(one).mean_ms == doctest::Approx(1.5));
  CHECK(summarize(one).p99_ms == doctest::Approx(1.5));
  std::vector<uint32_t> hundred(100);
  std::iota(hundred.begin(), hundred.end(), 1U);
  for (auto& us : hundred)
    us *= 1000;
  CHECK(summarize(hundred).mean_ms == doctest::Approx(50.5));
  CHECK(summarize(hundred).p99_ms == doctest::Approx(99));
}

#include "actors/proof_keeper/gradient_commitment.hpp"

#include "tests/support/test.hpp"

#include <cmath>
#include <limits>
#include <set>

using namespace neuroshard;

namespace {

gradient_preimage sample_preimage() {
  gradient_preimage made;
  made.model_hash = kernels::sha256::of(std::string_view("weights"));
  made.data_hash = kernels::sha256::of(std::string_view("batch"));
  made.unit_norms_e6 = {{"embed", 1'000'000}, {"layer.0", 2'500'000}, {"head", 700'000}};
  for (size_t i = 0; i < gradient_samples; ++i)
    made.values.push_back(std::sin(static_cast<float>(i)) / 100);
  made.loss_e6 = 5'000'000;
  made.batch_size = 8;
  made.seq_len = 256;
  return made;
}

} // namespace

TEST_CASE("a preimage reads back bit for bit and its hash is the commitment to every part of it") {
  const auto made = sample_preimage();
  const std::string bytes = encode_preimage(made);
  const auto read = decode_preimage(bytes);
  REQUIRE(read);
  CHECK(encode_preimage(*read) == bytes);
  CHECK(read->values == made.values);
  auto changed = made;
  changed.values[1'023] = std::nextafter(changed.values[1'023], 1.0f);
  CHECK(commitment_of(encode_preimage(changed)) != commitment_of(bytes));
  changed = made;
  changed.unit_norms_e6[2].second += 1;
  CHECK(commitment_of(encode_preimage(changed)) != commitment_of(bytes));
}

TEST_CASE("what is not a whole preimage is none") {
  const std::string bytes = encode_preimage(sample_preimage());
  for (size_t size = 0; size < bytes.size(); size += 7)
    REQUIRE_FALSE(decode_preimage(std::string_view(bytes).substr(0, size)));
  CHECK_FALSE(decode_preimage(bytes + "\n"));
  auto short_one = sample_preimage();
  short_one.values.pop_back();
  CHECK_FALSE(decode_preimage(encode_preimage(short_one)));
  auto not_finite = sample_preimage();
  not_finite.values[3] = std::numeric_limits<float>::quiet_NaN();
  CHECK_FALSE(decode_preimage(encode_preimage(not_finite)));
  std::string many = bytes;
  many.replace(many.find("units=3"), 7, "units=9999999999");
  CHECK_FALSE(decode_preimage(many));
}

TEST_CASE("the sampled draws are spread over any gradient, and another batch has others") {
  const auto data = kernels::sha256::of(std::string_view("batch"));
  const auto draws = sampled_draws(data);
  REQUIRE(draws.size() == gradient_samples);
  std::set<uint64_t> places;
  for (const uint64_t draw : draws)
    places.insert(draw % 8'000'000);
  CHECK(places.size() > 1'000);
  CHECK(*places.rbegin() - *places.begin() > 7'000'000);
  CHECK(sampled_draws(data) == draws);
  CHECK(sampled_draws(kernels::sha256::of(std::string_view("other"))) != draws);
}

TEST_CASE("a repeated step agrees bit for bit or within the tolerance, whatever was committed") {
  const auto made = sample_preimage();
  CHECK(compare_gradients(made, made, agreement::exact) == "");
  auto close = made;
  for (float& value : close.values)
    value *= 1.04f;
  CHECK(compare_gradients(close, made, agreement::exact) == "not_equal");
  CHECK(compare_gradients(close, made, agreement::within_tolerance) == "");
  for (float& value : close.values)
    value *= 1.02f;
  CHECK(compare_gradients(close, made, agreement::within_tolerance) == "gradient");
  auto huge = made; // A committed gradient cannot buy tolerance by its own length.
  for (float& value : huge.values)
    value *= 1e20f;
  CHECK(compare_gradients(huge, made, agreement::within_tolerance) == "gradient");
  auto norm = made;
  norm.unit_norms_e6[1].second = 2'700'000;
  CHECK(compare_gradients(norm, made, agreement::within_tolerance) == "gradient_norm");
  auto loss = made;
  loss.loss_e6 = 5'050'000;
  CHECK(compare_gradients(loss, made, agreement::within_tolerance) == "");
  loss.loss_e6 = 5'050'001;
  CHECK(compare_gradients(loss, made, agreement::within_tolerance) == "loss");
  auto other = made;
  other.model_hash[0] ^= 1;
  CHECK(compare_gradients(other, made, agreement::exact) == "other_weights");
  other = made;
  other.data_hash[0] ^= 1;
  CHECK(compare_gradients(other, made, agreement::within_tolerance) == "other_batch");
  other = made;
  other.unit_norms_e6[0].first = "layer.9";
  CHECK(compare_gradients(other, made, agreement::within_tolerance) == "other_units");
}

TEST_CASE("a preimage is put together from a sampled gradient, rounded to six decimals") {
  const auto model = kernels::sha256::of(std::string_view("weights"));
  const auto data = kernels::sha256::of(std::string_view("batch"));
  std::vector<std::pair<std::string, double>> norms{{"embed", 1.0}, {"layer.0", 2.4999996}, {"head", 0}};
  std::vector<float> values(gradient_samples, 0.25f);
  const auto put_together = [&](double loss) {
    return preimage_of(norms, values, loss, model, data, 8, 256);
  };
  const auto made = put_together(5.5555554);
  REQUIRE(made);
  CHECK(made->loss_e6 == 5'555'555);
  CHECK(made->unit_norms_e6 == std::vector<std::pair<std::string, uint64_t>>{
                                   {"embed", 1'000'000}, {"layer.0", 2'500'000}, {"head", 0}});
  CHECK(made->values == values);
  CHECK(made->model_hash == model);
  CHECK(made->data_hash == data);
  CHECK(made->batch_size == 8);
  CHECK(made->seq_len == 256);
  CHECK(decode_preimage(encode_preimage(*made)));

  const double nan = std::numeric_limits<double>::quiet_NaN();
  for (const double loss : {nan, -0.5, 1e13, std::numeric_limits<double>::infinity()})
    CHECK_FALSE(put_together(loss));
  norms[1].second = nan;
  CHECK_FALSE(put_together(5));
  norms[1].second = -1;
  CHECK_FALSE(put_together(5));
  norms[1].second = 1;
  values[7] = std::numeric_limits<float>::infinity();
  CHECK_FALSE(put_together(5));
  values.pop_back();
  values[7] = 0;
  CHECK_FALSE(put_together(5));
}

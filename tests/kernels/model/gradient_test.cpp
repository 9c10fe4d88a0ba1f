#include "tests/kernels/model/oracle.hpp"
#include "tests/kernels/model/stage_support.hpp"

#include <cmath>

using namespace neuroshard;
using namespace neuroshard::test;

namespace {

/// Larger weights than a fresh model's, so that no gradient is lost in rounding; norms away from 1.
void scatter_weights(stage& s, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::normal_distribution<float> normal;
  for (const unit& u : s.units())
    for (const parameter& p : u.parameters) {
      std::vector<float> values(static_cast<size_t>(p.count));
      for (float& v : values)
        v = p.shape.size() == 2 ? 0.2F * normal(random) : 1 + 0.2F * normal(random);
      REQUIRE(s.write(p.name, parameter_part::weight, 0, values).ok());
    }
  REQUIRE(s.refresh_weights().run().ok());
}

oracle oracle_of(stage& s) {
  oracle o;
  o.shape = s.shape();
  for (auto& [name, values] : read_parts(s, parameter_part::weight))
    o.parameters[name].assign(values.begin(), values.end());
  return o;
}

oracle::batch batch_of(const train_input& in, int64_t valid_vocab) {
  oracle::batch b;
  b.sequences = in.sequences;
  b.positions = in.positions_per_sequence;
  b.ids = in.token_ids;
  b.labels = in.labels;
  b.lengths = in.lengths;
  b.rope_positions = in.positions;
  b.valid_vocab = valid_vocab;
  return b;
}

/// Compares the gradient of every tensor with central differences at random places; relative L2 over the
/// places.
void compare(stage& s, const train_input& in, int64_t valid_vocab, double tolerance, double loss_tolerance) {
  oracle o = oracle_of(s);
  const oracle::batch b = batch_of(in, valid_vocab);
  auto out = s.forward_train(in).run();
  INFO(out.status().message());
  REQUIRE(out.ok());
  CHECK(std::abs(out->loss - o.loss(b)) < loss_tolerance);
  std::mt19937_64 random(test_seed());
  double worst = 0;
  for (const auto& [name, gradient] : read_parts(s, parameter_part::gradient)) {
    std::vector<float> ours;
    std::vector<double> theirs;
    for (int i = 0; i < 12; ++i) {
      size_t at = random() % gradient.size();
      if (name == "embed.weight") // a row that occurs
        at = static_cast<size_t>(in.token_ids[random() % in.token_ids.size()]) * 32 + random() % 32;
      ours.push_back(gradient[at]);
      theirs.push_back(o.derivative(b, name, at) * static_cast<double>(in.loss_scale));
    }
    const double difference = relative_l2(ours, theirs);
    INFO(name << " differs by " << difference);
    CHECK(difference < tolerance);
    worst = std::max(worst, difference);
  }
  MESSAGE("largest relative difference of a gradient from central differences in double: " << worst);
}

} // namespace

TEST_CASE("the gradients of a whole model equal central differences in double") {
  INFO("seed " << test_seed());
  for (const std::string& backend : backends()) {
    const auto device = open_device(backend);
    for (bool tied : {false, true})
      for (bool recompute : {false, true}) {
        INFO((backend + (tied ? " tied" : " untied") + (recompute ? " recompute" : "")));
        architecture a = tiny_shape();
        a.tie_embeddings = tied;
        stage_options o = whole_options(a);
        o.recompute = recompute;
        const auto s = make_stage(device, a, o);
        scatter_weights(*s, test_seed());
        train_input in = whole_batch(a, 3, 7, test_seed());
        in.labels[3] = -100;
        in.loss_scale = 0.75F;
        compare(*s, in, 0, 2e-4, 1e-5);
      }
  }
}

TEST_CASE("padding, explicit positions and a vocabulary in use smaller than the rows are in the gradients") {
  INFO("seed " << test_seed());
  for (const std::string& backend : backends()) {
    INFO(backend);
    const architecture a = tiny_shape();
    const auto s = make_stage(open_device(backend), a, whole_options(a));
    scatter_weights(*s, test_seed() + 1);
    REQUIRE(s->set_valid_vocab(50).ok());
    train_input in = whole_batch(a, 2, 9, test_seed());
    in.lengths = {9, 4};
    for (size_t t = 0; t < in.labels.size(); ++t) {
      in.labels[t] %= 50;
      in.positions.push_back(static_cast<int32_t>(t % 9 * 3 + 5));
      if (t >= 9 + 4)
        in.labels[t] = -100;
    }
    compare(*s, in, 50, 2e-4, 1e-5);
    // Rows of the head that are no tokens get no gradient.
    const auto head = read_all(*s, "head.weight", parameter_part::gradient);
    for (size_t i = 50 * 32; i < head.size(); ++i)
      CHECK(head[i] == 0);
  }
}

TEST_CASE("odd batch sizes and head tiles that do not divide give the same gradients") {
  for (const std::string& backend : backends()) {
    const architecture a = tiny_shape();
    for (int64_t tile : {1, 5, 16, 64}) {
      INFO(backend << " tile " << tile);
      stage_options o = whole_options(a);
      o.head_tile_rows = tile;
      o.slice_flops = 2000; // a slice after every product, and products cut into panels
      const auto s = make_stage(open_device(backend), a, o);
      scatter_weights(*s, test_seed() + 2);
      compare(*s, whole_batch(a, 1, 17, test_seed()), 0, 2e-4, 1e-5);
    }
  }
}

TEST_CASE("bf16 gradients stay within the published distance of f32 ones") {
  for (const std::string& backend : backends()) {
    INFO(backend);
    const architecture a = tiny_shape();
    const auto device = open_device(backend);
    const auto f32 = make_stage(device, a, whole_options(a));
    const auto bf16 = make_stage(device, a, whole_options(a, dtype::bf16));
    const train_input in = whole_batch(a, 4, 16, test_seed());
    const auto loss_f32 = f32->forward_train(in).run();
    const auto loss_bf16 = bf16->forward_train(in).run();
    REQUIRE(loss_f32.ok());
    REQUIRE(loss_bf16.ok());
    CHECK(std::abs(loss_f32->loss - loss_bf16->loss) < 2e-2);
    const auto expected = read_parts(*f32, parameter_part::gradient);
    for (const auto& [name, gradient] : read_parts(*bf16, parameter_part::gradient)) {
      const double difference = relative_l2(gradient, expected.at(name));
      INFO(name << " differs by " << difference);
      CHECK(difference < 3e-2);
    }
  }
}

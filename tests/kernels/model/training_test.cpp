#include "tests/kernels/model/stage_support.hpp"

#include <cmath>
#include <limits>

using namespace neuroshard;
using namespace neuroshard::test;

namespace {

optimizer_step rate(float learning_rate) {
  optimizer_step step;
  step.learning_rate = learning_rate;
  return step;
}

double train_step(stage& s, const train_input& in, float learning_rate) {
  auto out = s.forward_train(in).run();
  INFO(out.status().message());
  REQUIRE(out.ok());
  auto applied = s.apply(rate(learning_rate)).run();
  INFO(applied.status().message());
  REQUIRE(applied.ok());
  return out->loss;
}

bool same_state(stage& a, stage& b) {
  for (auto part : {parameter_part::weight, parameter_part::first_moment, parameter_part::second_moment})
    if (read_parts(a, part) != read_parts(b, part))
      return false;
  return a.optimizer_t() == b.optimizer_t();
}

} // namespace

TEST_CASE("one batch can be learned by heart") {
  for (const std::string& backend : backends())
    for (dtype compute : {dtype::f32, dtype::bf16}) {
      INFO((backend + (compute == dtype::bf16 ? " bf16" : " f32")));
      const architecture a = tiny_shape();
      const auto s = make_stage(open_device(backend), a, whole_options(a, compute));
      const train_input in = whole_batch(a, 2, 8, 3);
      const double first = train_step(*s, in, 1e-2F);
      CHECK(std::abs(first - std::log(64.0)) < 0.2);
      double last = first;
      for (int step = 0; step < 150; ++step)
        last = train_step(*s, in, 1e-2F);
      CHECK(last < 0.02);
    }
}

TEST_CASE("the same seed and data give the same weights bit for bit, on one thread or two, sliced or not") {
  for (const std::string& backend : backends())
    for (dtype compute : {dtype::f32, dtype::bf16}) {
      INFO((backend + (compute == dtype::bf16 ? " bf16" : " f32")));
      const architecture a = tiny_shape();
      const auto one = make_stage(open_device(backend, 1), a, whole_options(a, compute));
      const auto two = make_stage(open_device(backend, 2), a, whole_options(a, compute));
      for (int step = 0; step < 5; ++step) {
        const train_input in = whole_batch(a, 4, 16, static_cast<uint64_t>(step));
        CHECK(train_step(*one, in, 1e-2F) == train_step(*two, in, 1e-2F));
      }
      CHECK(same_state(*one, *two));
    }
}

TEST_CASE("micro-batches with their loss scale add up to the gradient of the batch") {
  const architecture a = tiny_shape();
  const auto device = open_device("reference");
  const auto whole = make_stage(device, a, whole_options(a));
  const auto parts = make_stage(device, a, whole_options(a));
  train_input in = whole_batch(a, 4, 8, 1);
  in.labels[2] = in.labels[30] = -100;
  REQUIRE(whole->forward_train(in).run().ok());
  const float counts[] = {15, 15};
  for (uint32_t m = 0; m < 2; ++m) {
    train_input part = in;
    part.key.microbatch = m;
    part.sequences = 2;
    part.token_ids.assign(in.token_ids.begin() + 16 * m, in.token_ids.begin() + 16 * (m + 1));
    part.labels.assign(in.labels.begin() + 16 * m, in.labels.begin() + 16 * (m + 1));
    part.loss_scale = counts[m] / 30;
    const auto out = parts->forward_train(part).run();
    REQUIRE(out.ok());
    CHECK(out->label_count == 15);
  }
  const auto expected = read_parts(*whole, parameter_part::gradient);
  for (const auto& [name, gradient] : read_parts(*parts, parameter_part::gradient))
    CHECK(relative_l2(gradient, expected.at(name)) < 1e-5);
}

TEST_CASE("a stage that is written from another one's snapshot continues byte for byte") {
  for (const std::string& backend : backends())
    for (dtype compute : {dtype::f32, dtype::bf16}) {
      INFO(backend);
      const architecture a = tiny_shape();
      const auto device = open_device(backend);
      const auto first = make_stage(device, a, whole_options(a, compute));
      for (uint64_t step = 0; step < 4; ++step)
        train_step(*first, whole_batch(a, 2, 16, step), 3e-3F);
      const auto second = make_stage(device, a, whole_options(a, compute), 999);
      for (const unit& u : first->units())
        for (const parameter& p : u.parameters)
          for (auto part :
               {parameter_part::weight, parameter_part::first_moment, parameter_part::second_moment}) {
            std::vector<float> values(static_cast<size_t>(p.count));
            REQUIRE(first->read(p.name, part, 0, values).ok());
            REQUIRE(second->write(p.name, part, 0, values).ok());
          }
      second->set_optimizer_t(first->optimizer_t());
      REQUIRE(second->refresh_weights().run().ok());
      CHECK(*first->unit_hashes().run() == *second->unit_hashes().run());
      for (uint64_t step = 4; step < 8; ++step) {
        const train_input in = whole_batch(a, 2, 16, step);
        CHECK(train_step(*first, in, 3e-3F) == train_step(*second, in, 3e-3F));
      }
      CHECK(same_state(*first, *second));
    }
}

TEST_CASE("the optimizer clips to the norm, decays matrices only and counts its steps") {
  const architecture a = tiny_shape();
  const auto s = make_stage(open_device("reference"), a, whole_options(a));
  const auto before = read_parts(*s, parameter_part::weight);
  REQUIRE(s->forward_train(whole_batch(a, 2, 8, 1)).run().ok());
  const auto gradient = read_parts(*s, parameter_part::gradient);
  double squares = 0;
  for (const auto& [name, values] : gradient)
    for (float g : values)
      squares += double{g} * g;
  const auto norm_sq = s->gradient_norm_sq().run();
  REQUIRE(norm_sq.ok());
  CHECK(std::abs(*norm_sq / squares - 1) < 1e-9);
  const auto applied = s->apply(rate(0.01F)).run();
  REQUIRE(applied.ok());
  CHECK(applied->t == 1);
  CHECK(applied->grad_norm_sq == *norm_sq);
  const double clip = std::min(1.0, 1 / std::sqrt(squares));
  CHECK(std::abs(applied->clip_factor - clip) < 1e-6);
  for (const unit& u : s->units())
    for (const parameter& p : u.parameters) {
      const auto after = read_all(*s, p.name, parameter_part::weight);
      for (size_t i = 0; i < after.size(); i += 7) {
        const double g = double{gradient.at(p.name)[i]} * clip;
        const double w = before.at(p.name)[i];
        // On the first step the corrected moments are g and g^2.
        const double expected = w - 0.01 * (g / (std::abs(g) + 1e-8) + double{p.weight_decay} * w);
        if (std::abs(g) > 1e-6) {
          INFO(p.name << " " << i);
          CHECK(std::abs(after[i] - expected) < 1e-5);
        }
      }
    }
  for (const auto& [name, values] : read_parts(*s, parameter_part::gradient))
    CHECK(values == std::vector<float>(values.size(), 0.0F));
  CHECK_FALSE(s->holds_gradient());
  CHECK(s->apply(rate(0.01F)).run().status().why() == code::invalid_argument); // nothing to apply
}

TEST_CASE("a discarded step leaves no trace and can be redone") {
  const architecture a = tiny_shape();
  const auto device = open_device("reference");
  const auto s = make_stage(device, a, whole_options(a));
  const auto undisturbed = make_stage(device, a, whole_options(a));
  const train_input in = whole_batch(a, 2, 8, 1);
  REQUIRE(s->forward_train(whole_batch(a, 2, 8, 2)).run().ok());
  CHECK(s->holds_gradient());
  REQUIRE(s->discard().run().ok());
  CHECK_FALSE(s->holds_gradient());
  train_step(*s, in, 1e-3F);
  train_step(*undisturbed, in, 1e-3F);
  CHECK(same_state(*s, *undisturbed));
}

TEST_CASE("a value that is not finite is reported and changes neither weights nor moments") {
  for (const std::string& backend : backends()) {
    INFO(backend);
    const architecture a = tiny_shape();
    const auto s = make_stage(open_device(backend), a, whole_options(a));
    train_step(*s, whole_batch(a, 2, 8, 1), 1e-3F);
    REQUIRE(s->forward_train(whole_batch(a, 2, 8, 2)).run().ok());
    const float nan = std::numeric_limits<float>::quiet_NaN();
    REQUIRE(s->write("layers.0.attn.v.weight", parameter_part::gradient, 5, std::span(&nan, 1)).ok());
    const auto weights = read_parts(*s, parameter_part::weight);
    const auto moments = read_parts(*s, parameter_part::second_moment);
    CHECK(s->apply(rate(1e-3F)).run().status().why() == code::not_finite);
    CHECK(read_parts(*s, parameter_part::weight) == weights);
    CHECK(read_parts(*s, parameter_part::second_moment) == moments);
    CHECK(s->optimizer_t() == 1);
    REQUIRE(s->discard().run().ok());
    train_step(*s, whole_batch(a, 2, 8, 2), 1e-3F);

    // A weight that is not finite makes the loss so.
    REQUIRE(s->write("norm.weight", parameter_part::weight, 0, std::span(&nan, 1)).ok());
    CHECK(s->forward_train(whole_batch(a, 2, 8, 2)).run().status().why() == code::not_finite);
    CHECK(s->forward_train(whole_batch(a, 2, 8, 2)).run().status().why() == code::invalid_argument);
    REQUIRE(s->discard().run().ok());
  }
}

TEST_CASE("training work that is cancelled after any slice leaks nothing and can be discarded") {
  const architecture a = tiny_shape();
  const auto device = open_device("reference");
  stage_options o = whole_options(a);
  o.slice_flops = 2000;
  const auto undisturbed = make_stage(device, a, o);
  const train_input in = whole_batch(a, 2, 16, 1);
  train_step(*undisturbed, in, 1e-3F);
  const auto s = make_stage(device, a, o);
  int slices = 1;
  {
    auto work = s->forward_train(in);
    while (!work.resume())
      ++slices;
  }
  CHECK(slices > 20);
  REQUIRE(s->discard().run().ok());
  const uint64_t allocated = device->allocated();
  for (int after = 0; after < slices; after += 3) {
    auto work = s->forward_train(in);
    for (int i = 0; i < after; ++i)
      CHECK_FALSE(work.resume());
    // While it is under way nothing else of its kind starts.
    if (after > 0)
      CHECK(s->apply(rate(1e-3F)).run().status().why() == code::invalid_argument);
    work.reset();
    CHECK(s->saved_microbatches() == 0);
    REQUIRE(s->discard().run().ok());
  }
  CHECK(device->allocated() == allocated);
  train_step(*s, in, 1e-3F);
  CHECK(same_state(*s, *undisturbed));
  // An optimizer step that is cancelled leaves weights that must be set anew.
  REQUIRE(s->forward_train(in).run().ok());
  {
    auto work = s->apply(rate(1e-3F));
    for (int i = 0; i < 8; ++i)
      (void)work.resume();
    CHECK_FALSE(work.done());
  }
  REQUIRE(s->discard().run().ok());
  CHECK(s->forward_train(in).run().status().why() == code::invalid_argument);
  REQUIRE(s->initialize(7).run().ok());
  CHECK(s->forward_train(in).run().ok());
}

TEST_CASE("a serving copy and an optimizer step exclude each other from their first slices to their last") {
  const architecture a = tiny_shape();
  stage_options o = whole_options(a);
  o.slice_flops = 1; // a slice ends wherever one can
  const auto s = make_stage(open_device("reference"), a, o);
  const train_input in = whole_batch(a, 2, 8, 1);
  REQUIRE(s->forward_train(in).run().ok());
  {
    auto applying = s->apply(rate(0.1F));
    REQUIRE_FALSE(applying.resume()); // it measures the gradient yet: no weight has changed
    CHECK(s->make_serving_copy(1, false).run().status().why() == code::invalid_argument);
    while (!applying.resume()) {
    }
    REQUIRE(applying.take().ok());
  }
  REQUIRE(s->make_serving_copy(1, false).run().ok());
  CHECK(s->newest()->id() == 1);
  REQUIRE(s->forward_train(in).run().ok());
  {
    auto copying = s->make_serving_copy(2, false);
    REQUIRE_FALSE(copying.resume());
    CHECK(s->apply(rate(0.1F)).run().status().why() == code::invalid_argument);
    while (!copying.resume()) {
    }
    REQUIRE(copying.take().ok());
  }
  REQUIRE(s->apply(rate(0.1F)).run().ok());
}

TEST_CASE("steady training allocates no device memory") {
  for (const std::string& backend : backends()) {
    const architecture a = tiny_shape();
    const auto device = open_device(backend);
    const auto s = make_stage(device, a, whole_options(a, dtype::bf16));
    train_step(*s, whole_batch(a, 2, 16, 1), 1e-3F);
    const uint64_t allocated = device->allocated();
    for (uint64_t step = 0; step < 3; ++step)
      train_step(*s, whole_batch(a, 2, 16, step), 1e-3F);
    CHECK(device->allocated() == allocated);
    CHECK(s->planned().total() == allocated);
  }
}

TEST_CASE("malformed training input is refused before anything is touched") {
  const architecture a = tiny_shape();
  const auto s = make_stage(open_device("reference"), a, whole_options(a));
  const auto refused = [&](auto change) {
    train_input in = whole_batch(a, 2, 8, 1);
    change(in);
    return s->forward_train(std::move(in)).run().status().why() == code::invalid_argument;
  };
  CHECK(refused([](train_input& in) { in.token_ids[3] = 64; }));
  CHECK(refused([](train_input& in) { in.token_ids[3] = -1; }));
  CHECK(refused([](train_input& in) { in.token_ids.pop_back(); }));
  CHECK(refused([](train_input& in) { in.labels.clear(); }));
  CHECK(refused([](train_input& in) { in.labels[0] = 64; }));
  CHECK(refused([](train_input& in) { in.labels[0] = -1; }));
  CHECK(refused([](train_input& in) { in.sequences = 0; }));
  CHECK(refused([](train_input& in) { in.sequences = -2; }));
  CHECK(refused([](train_input& in) { in.sequences = int64_t{1} << 62U; }));
  CHECK(refused([](train_input& in) { in.positions_per_sequence = 65; }));
  CHECK(refused([](train_input& in) { in.lengths = {8, 9}; }));
  CHECK(refused([](train_input& in) { in.lengths = {8, 0}; }));
  CHECK(refused([](train_input& in) { in.positions.assign(16, 64); }));
  CHECK(refused([](train_input& in) { in.positions.assign(15, 0); }));
  CHECK(refused([](train_input& in) { in.loss_scale = 0; }));
  CHECK(refused([](train_input& in) { in.loss_scale = std::numeric_limits<float>::quiet_NaN(); }));
  CHECK(refused([](train_input& in) { in.loss_scale = 1.5F; }));
  CHECK(refused([&](train_input& in) { in = whole_batch(a, 9, 8, 1); })); // 72 tokens of at most 64
  CHECK_FALSE(s->holds_gradient());
  CHECK(s->backward({"session", 1, 0}, {}, dtype::f32).run().status().why() == code::invalid_argument);
  CHECK(s->read("layers.9.attn.q.weight", parameter_part::weight, 0, {}).why() == code::invalid_argument);
  std::vector<float> two(2);
  CHECK(s->read("norm.weight", parameter_part::weight, 31, two).why() == code::invalid_argument);
  CHECK(s->read("norm.weight", parameter_part::weight, -1, two).why() == code::invalid_argument);
  CHECK(s->set_valid_vocab(65).why() == code::invalid_argument);
  CHECK(s->set_valid_vocab(0).why() == code::invalid_argument);
}

TEST_CASE("a batch whose labels are all ignored has no loss and no gradient") {
  const architecture a = tiny_shape();
  const auto s = make_stage(open_device("reference"), a, whole_options(a));
  train_input in = whole_batch(a, 2, 8, 1);
  in.labels.assign(16, -100);
  const auto out = s->forward_train(in).run();
  REQUIRE(out.ok());
  CHECK(out->label_count == 0);
  CHECK(out->loss == 0);
  CHECK(*s->gradient_norm_sq().run() == 0);
}

#include "tests/kernels/model/stage_support.hpp"

#include <cmath>
#include <limits>

using namespace neuroshard;
using namespace neuroshard::test;

namespace {

struct pipeline {
  std::unique_ptr<stage> front, back;
};

pipeline split(const kernels::device_ptr& device, const architecture& a, dtype compute) {
  stage_options front = whole_options(a, compute);
  front.head = false;
  front.layer_end = 1;
  stage_options back = whole_options(a, compute);
  back.embed = false;
  back.layer_begin = 1;
  return {make_stage(device, a, front), make_stage(device, a, back)};
}

train_input part_of(const train_input& in, uint32_t microbatch) {
  train_input part = in;
  part.key.microbatch = microbatch;
  part.sequences = in.sequences / 2;
  const auto half = static_cast<std::ptrdiff_t>(in.token_ids.size() / 2);
  const auto m = static_cast<std::ptrdiff_t>(microbatch);
  part.token_ids.assign(in.token_ids.begin() + half * m, in.token_ids.begin() + half * (m + 1));
  part.labels.assign(in.labels.begin() + half * m, in.labels.begin() + half * (m + 1));
  part.loss_scale = 0.5F;
  return part;
}

} // namespace

TEST_CASE("two stages give the gradients of one bit for bit") {
  for (const std::string& backend : backends()) {
    INFO(backend);
    const architecture a = tiny_shape();
    const auto device = open_device(backend);
    const auto whole = make_stage(device, a, whole_options(a));
    const pipeline two = split(device, a, dtype::f32);
    const train_input batch = whole_batch(a, 4, 8, 5);
    // Both forwards before the first backward, and the backwards in another order: as a 1F1B pipeline may.
    double losses[2];
    activations hidden[2];
    for (uint32_t m = 0; m < 2; ++m) {
      const train_input part = part_of(batch, m);
      losses[m] = whole->forward_train(part).run()->loss;
      train_input first = part;
      first.labels.clear();
      hidden[m] = two.front->forward_train(first).run()->hidden;
    }
    CHECK(two.front->saved_microbatches() == 2);
    for (uint32_t m = 0; m < 2; ++m) {
      train_input second = part_of(batch, m);
      second.token_ids.clear();
      second.hidden = hidden[m];
      const auto out = two.back->forward_train(second).run();
      INFO(out.status().message());
      REQUIRE(out.ok());
      CHECK(out->loss == losses[m]);
      CHECK_FALSE(out->grad_input); // kept
    }
    CHECK(two.back->saved_microbatches() == 2);
    for (uint32_t m = 0; m < 2; ++m) {
      const microbatch_key key{"session", 1, m};
      auto gradient = two.back->backward(key, {}, dtype::unspecified).run();
      REQUIRE(gradient.ok());
      const auto end = two.front->backward(key, *gradient, dtype::unspecified).run();
      INFO(end.status().message());
      REQUIRE(end.ok());
      CHECK_FALSE(*end);
    }
    CHECK(two.front->saved_microbatches() + two.back->saved_microbatches() == 0);
    auto gradients = read_parts(*two.front, parameter_part::gradient);
    gradients.merge(read_parts(*two.back, parameter_part::gradient));
    CHECK(gradients == read_parts(*whole, parameter_part::gradient));
    // Each clips to its share of the parameters.
    const auto front = two.front->apply({.learning_rate = 1e-3F}).run();
    REQUIRE(front.ok());
    const double share = static_cast<double>(two.front->parameters()) / static_cast<double>(a.parameters());
    const double clip = std::min(1.0, std::sqrt(share / front->grad_norm_sq));
    CHECK(std::abs(front->clip_factor - clip) < 1e-6);
  }
}

TEST_CASE("a head stage returns the gradient at once when it is not to be kept") {
  const architecture a = tiny_shape();
  const pipeline two = split(open_device("reference"), a, dtype::bf16);
  const train_input batch = whole_batch(a, 2, 8, 5);
  train_input first = batch;
  first.labels.clear();
  first.reply = dtype::f32;
  const auto hidden = two.front->forward_train(first).run();
  REQUIRE(hidden.ok());
  CHECK(hidden->hidden.view.type == dtype::f32);
  train_input second = batch;
  second.token_ids.clear();
  second.hidden = hidden->hidden;
  second.keep_input_gradient = false;
  const auto out = two.back->forward_train(second).run();
  REQUIRE(out.ok());
  REQUIRE(static_cast<bool>(out->grad_input));
  CHECK(out->grad_input.view.type == dtype::bf16);
  CHECK(two.back->saved_microbatches() == 0);
  CHECK(two.back->backward(batch.key, {}, dtype::f32).run().status().why() == code::invalid_argument);
  CHECK(two.front->backward(batch.key, out->grad_input, dtype::f32).run().ok());
}

TEST_CASE("bf16 stages and wires stay within the published distance of one f32 node") {
  const architecture a = tiny_shape();
  const auto device = open_device("reference");
  const auto whole = make_stage(device, a, whole_options(a));
  const pipeline two = split(device, a, dtype::bf16);
  const train_input batch = whole_batch(a, 4, 8, 5);
  REQUIRE(whole->forward_train(batch).run().ok());
  train_input first = batch;
  first.labels.clear();
  const auto hidden = two.front->forward_train(first).run();
  REQUIRE(hidden.ok());
  CHECK(hidden->hidden.view.type == dtype::bf16);
  train_input second = batch;
  second.token_ids.clear();
  second.hidden = hidden->hidden;
  REQUIRE(two.back->forward_train(second).run().ok());
  const auto gradient = two.back->backward(batch.key, {}, dtype::unspecified).run();
  REQUIRE(gradient.ok());
  REQUIRE(two.front->backward(batch.key, *gradient, dtype::unspecified).run().ok());
  const auto expected = read_parts(*whole, parameter_part::gradient);
  for (stage* s : {two.front.get(), two.back.get()})
    for (const auto& [name, values] : read_parts(*s, parameter_part::gradient)) {
      INFO(name);
      CHECK(relative_l2(values, expected.at(name)) < 3e-2);
    }
}

TEST_CASE(
    "a stage refuses a gradient that is malformed, not finite or too large, and keeps the activations") {
  const architecture a = tiny_shape();
  const pipeline two = split(open_device("reference"), a, dtype::f32);
  train_input in = whole_batch(a, 1, 4, 5);
  in.labels.clear();
  REQUIRE(two.front->forward_train(in).run().ok());
  std::vector<float> values(4 * 32, 0.01F);
  activations gradient;
  gradient.view = kernels::make_tensor(values.data(), dtype::f32, {4, 32});
  const auto refused = [&] {
    return two.front->backward(in.key, gradient, dtype::f32).run().status().why() == code::invalid_argument;
  };
  values[5] = std::numeric_limits<float>::infinity();
  CHECK(refused());
  values[5] = std::numeric_limits<float>::quiet_NaN();
  CHECK(refused());
  values[5] = 10001;
  CHECK(refused());
  values[5] = 0;
  gradient.view = kernels::make_tensor(values.data(), dtype::f32, {3, 32});
  CHECK(refused());
  gradient.view = kernels::make_tensor(values.data(), dtype::i32, {4, 32});
  CHECK(refused());
  gradient.view = {};
  CHECK(refused());
  CHECK(two.front->forward_train(in).run().status().why() == code::invalid_argument); // the key is held
  gradient.view = kernels::make_tensor(values.data(), dtype::f32, {4, 32});
  CHECK(two.front->backward(in.key, gradient, dtype::f32).run().ok());
  // Room for four micro-batches, as planned.
  for (uint32_t m = 0; m < 5; ++m) {
    in.key.microbatch = m;
    const auto out = two.front->forward_train(in).run();
    CHECK(out.ok() == (m < 4));
    if (m == 4)
      CHECK(out.status().why() == code::out_of_memory);
  }
  REQUIRE(two.front->discard().run().ok());
  CHECK(two.front->saved_microbatches() == 0);
}

TEST_CASE("an embedding alone and a head alone are stages too") {
  const architecture a = tiny_shape();
  const auto device = open_device("reference");
  stage_options embed = whole_options(a);
  embed.layer_end = 0;
  embed.head = false;
  stage_options layers = whole_options(a);
  layers.embed = false;
  layers.head = false;
  stage_options head = whole_options(a);
  head.embed = false;
  head.layer_begin = 2;
  const auto e = make_stage(device, a, embed);
  const auto l = make_stage(device, a, layers);
  const auto h = make_stage(device, a, head);
  const auto whole = make_stage(device, a, whole_options(a));
  CHECK(e->parameters() + l->parameters() + h->parameters() == a.parameters());
  train_input in = whole_batch(a, 2, 8, 9);
  const auto expected = whole->forward_train(in).run();
  train_input at_embed = in;
  at_embed.labels.clear();
  train_input at_layers = at_embed;
  at_layers.token_ids.clear();
  at_layers.hidden = e->forward_train(at_embed).run()->hidden;
  train_input at_head = in;
  at_head.token_ids.clear();
  at_head.hidden = l->forward_train(at_layers).run()->hidden;
  const auto out = h->forward_train(at_head).run();
  REQUIRE(out.ok());
  CHECK(out->loss == expected->loss);
  auto gradient = h->backward(in.key, {}, dtype::f32).run();
  REQUIRE(gradient.ok());
  gradient = l->backward(in.key, *gradient, dtype::f32).run();
  REQUIRE(gradient.ok());
  REQUIRE(e->backward(in.key, *gradient, dtype::f32).run().ok());
  CHECK(read_all(*e, "embed.weight", parameter_part::gradient) ==
        read_all(*whole, "embed.weight", parameter_part::gradient));
  CHECK(read_all(*h, "norm.weight", parameter_part::gradient) ==
        read_all(*whole, "norm.weight", parameter_part::gradient));
}

TEST_CASE("stages that cannot be are refused") {
  const architecture a = tiny_shape();
  const auto device = open_device("reference");
  const auto refused = [&](auto change) {
    architecture shape = a;
    stage_options o = whole_options(a);
    change(shape, o);
    return stage::make(device, shape, o).status().why() == code::invalid_argument;
  };
  CHECK(refused([](architecture&, stage_options& o) { o.layer_end = 3; }));
  CHECK(refused([](architecture&, stage_options& o) { o.layer_begin = 1; })); // with the embedding
  CHECK(refused([](architecture&, stage_options& o) { o.layer_end = 1; }));   // with the head
  CHECK(refused([](architecture&, stage_options& o) { o.embed = o.head = false, o.layer_end = 0; }));
  CHECK(refused([](architecture& s, stage_options& o) { s.tie_embeddings = true, o.embed = false; }));
  CHECK(refused([](architecture&, stage_options& o) { o.compute = dtype::i8; }));
  CHECK(refused([](architecture&, stage_options& o) { o.train_tokens_max = 0; }));
  CHECK(refused([](architecture&, stage_options& o) { o.kv_pool_bytes = 10; }));
  CHECK(refused([](architecture&, stage_options& o) { o.prefill_rows_max = 4; }));
  CHECK(refused([](architecture& s, stage_options&) { s.num_kv_heads = 3; }));
  stage_options o = whole_options(a);
  o.train = false;
  o.train_tokens_max = 0;
  auto serving_only = stage::make(device, a, o);
  REQUIRE(serving_only.ok());
  REQUIRE((*serving_only)->initialize(1).run().ok());
  CHECK((*serving_only)->planned().gradients == 0);
  CHECK((*serving_only)->forward_train(whole_batch(a, 1, 4, 1)).run().status().why() ==
        code::invalid_argument);
  CHECK((*serving_only)->make_serving_copy(0, false).run().ok());
  CHECK(make_stage(device, a, whole_options(a))->release_masters().why() == code::invalid_argument);
  kernels::device_options small;
  small.memory_bytes = 100'000;
  auto cramped = kernels::device::open(*kernels::reference_backend(), small);
  REQUIRE(cramped.ok());
  CHECK(stage::make(*cramped, a, whole_options(a)).status().why() == code::out_of_memory);
}

TEST_CASE("a stage that only serves holds its serving copy and no f32 weights, and can load others") {
  const architecture a = tiny_shape();
  const auto device = open_device("reference");
  const auto trains = make_stage(device, a, whole_options(a));
  const uint64_t before = device->allocated();
  stage_options o = whole_options(a);
  o.train = false;
  const auto s = make_stage(device, a, o);
  CHECK(s->release_masters().why() == code::invalid_argument); // nothing to serve from yet
  REQUIRE(s->make_serving_copy(1, false).run().ok());
  const auto infer = [&] {
    infer_input in;
    in.rows.push_back({"a", 0, 4, true, {}, false});
    in.token_ids = {1, 2, 3, 4};
    in.want = infer_result::logits;
    auto out = s->infer(std::move(in), true).run();
    REQUIRE(out.ok());
    const auto* first = out->logits.view.as<const float>();
    return std::vector<float>(first, first + a.vocab_capacity);
  };
  const auto expected = infer();
  REQUIRE(s->release_masters().ok());
  CHECK_FALSE(s->holds_masters());
  const memory_use use = s->planned();
  CHECK(use.master + use.gradients + use.moments + use.weights + use.activations == 0);
  CHECK(device->allocated() - before == use.total());
  CHECK(use.total() * 3 < trains->planned().total() + use.kv_pool * 2);
  CHECK(infer() == expected);
  CHECK(s->make_serving_copy(2, false).run().status().why() == code::invalid_argument);
  float one = 0;
  CHECK(s->read("norm.weight", parameter_part::weight, 0, std::span(&one, 1)).why() ==
        code::invalid_argument);
  CHECK(s->unit_hashes().run().status().why() == code::invalid_argument);
  REQUIRE(s->initialize(99).run().ok());
  REQUIRE(s->make_serving_copy(2, false).run().ok());
  CHECK(infer() != expected);
}

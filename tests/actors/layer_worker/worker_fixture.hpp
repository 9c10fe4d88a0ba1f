#pragma once

#include "actors/layer_worker/layer_worker.hpp"
#include "tests/support/ask.hpp"
#include "tests/support/deterministic_fixture.hpp"
#include "tests/support/manual_clock.hpp"
#include "tests/support/tiny_model.hpp"

#include <vector>

namespace neuroshard::test {

inline tensor_handle integers(std::vector<int32_t> values, int64_t rows, int64_t columns) {
  REQUIRE(values.size() == static_cast<size_t>(rows * columns));
  auto owner = std::make_shared<std::vector<int32_t>>(std::move(values));
  tensor_handle handle;
  handle.view = kernels::make_tensor(owner->data(), kernels::dtype::i32, {rows, columns});
  handle.owner = std::move(owner);
  return handle;
}

/// A layer worker with the real model on the reference backend, undetached.
struct worker_fixture : deterministic<caf::id_block::neuroshard_common, caf::id_block::neuroshard_status,
                                      caf::id_block::neuroshard_layer_worker> {
  std::shared_ptr<manual_clock> clock = std::make_shared<manual_clock>();
  layer_worker_options options;
  layer_worker_actor worker;

  explicit worker_fixture(bool start = true) {
    options.architecture_id = model::architecture_id(tiny_architecture());
    options.seed = 7;
    options.valid_vocab = 266;
    options.optimizer = {1e-2, 10, 1000};
    options.detached_hashing = false;
    if (start)
      worker = make();
  }
  layer_worker_actor make() { return make(tiny_stage()); }
  layer_worker_actor make(std::unique_ptr<model::stage> stage) {
    return keep(sys.spawn(layer_worker, hand_over(std::move(stage)), options, time_source_ptr{clock}));
  }

  forward_request forward(forward_mode mode, std::string session = "trainer") {
    forward_request r;
    r.header.request_id = "r";
    r.header.session_id = std::move(session);
    r.header.architecture_id = options.architecture_id;
    r.mode = mode;
    r.layer_end = 2;
    return r;
  }
  forward_request train(uint64_t step, uint32_t microbatch = 0, bool last = true, float scale = 1) {
    auto r = forward(forward_mode::train);
    std::vector<int32_t> ids;
    std::vector<int32_t> labels;
    for (int i = 0; i < 16; ++i) {
      ids.push_back(i == 0 || i == 8 ? 1 : 20 + (i * 7 + static_cast<int>(microbatch) * 3) % 100);
      labels.push_back(20 + (i * 5 + static_cast<int>(microbatch)) % 100);
    }
    r.token_ids = integers(ids, 2, 8);
    r.labels = integers(labels, 2, 8);
    r.step = step;
    r.microbatch_id = microbatch;
    r.last_microbatch = last;
    r.loss_scale = scale;
    r.apply_head = true;
    r.omit_tensors = true;
    return r;
  }
  backward_request backward(backward_action action, uint64_t step, std::string session = "trainer") {
    backward_request r;
    r.header.request_id = "b";
    r.header.session_id = std::move(session);
    r.layer_end = 2;
    r.step = step;
    r.action = action;
    return r;
  }
  void bind(uint64_t last_committed = 0) {
    auto r = forward(forward_mode::bind);
    r.step = last_committed;
    REQUIRE(ask<forward_reply>(*this, worker, r));
  }
  forward_request prompt(std::string session, std::vector<int32_t> ids, bool sample = true) {
    auto r = forward(forward_mode::prefill);
    r.header.session_id.clear();
    const auto n = static_cast<int64_t>(ids.size());
    r.token_ids = integers(std::move(ids), 1, n);
    r.rows.push_back({std::move(session), 0, std::nullopt, "inf", false});
    r.apply_head = sample;
    r.omit_tensors = !sample;
    if (sample)
      r.rows.back().sample = greedy();
    return r;
  }
  forward_request decode(std::string session, int32_t token, uint32_t position) {
    auto r = forward(forward_mode::decode);
    r.header.session_id.clear();
    r.token_ids = integers({token}, 1, 1);
    r.rows.push_back({std::move(session), position, greedy(), "inf", false});
    r.apply_head = true;
    return r;
  }
  static sample_spec greedy() {
    sample_spec s;
    s.temperature = 0;
    s.valid_vocab = 266;
    s.want_logprob = true;
    return s;
  }
  void refresh(uint64_t version = 0, uint64_t step = 0) {
    REQUIRE(ask<serving_info>(*this, worker, refresh_serving{version, step}));
  }
};

} // namespace neuroshard::test

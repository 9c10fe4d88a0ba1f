#pragma once

#include "actors/gradient_exchanger/gradient_exchanger.hpp"
#include "actors/layer_worker/layer_worker.hpp"
#include "bench/model/bench_support.hpp"
#include "kernels/text/data_loader.hpp"
#include "kernels/text/dataset.hpp"
#include "tests/support/ask.hpp"
#include "tests/support/deterministic_fixture.hpp"
#include "tests/support/manual_clock.hpp"

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace neuroshard::bench {

/// How every variant trains.
struct training_plan {
  model::architecture shape;
  kernels::dtype compute = kernels::dtype::f32;
  uint64_t seed = 1; ///< of the initial weights
  uint32_t rows = 4; ///< of one replica's batch
  uint32_t seq = 128;
  optimizer_settings optimizer;
  uint64_t steps = 1'000;
  int threads = 1;
};

/// Real layer workers on the processor, in one thread and on a clock that a bench moves: a run depends on
/// nothing but its plan.
class training_bed
    : public test::deterministic<caf::id_block::neuroshard_common, caf::id_block::neuroshard_status,
                                 caf::id_block::neuroshard_layer_worker,
                                 caf::id_block::neuroshard_peer_manager, caf::id_block::neuroshard_peer_link,
                                 caf::id_block::neuroshard_gradient_exchanger,
                                 caf::id_block::neuroshard_exchange_link> {
public:
  /// A model in training. Its step has a micro-batch of each of its data orders.
  struct learner {
    layer_worker_actor worker;
    std::vector<text::data_loader> orders;
    std::vector<text::data_cursor> cursors;
  };

  training_bed(training_plan plan, const text::dataset& data);

  /// A worker with fresh weights, which draws its data as each of these nodes does.
  learner make_learner(const std::vector<std::string>& node_ids);
  /// As a driver does at the begin and at the end of a round.
  void bind(const learner& whom, uint64_t last_step);
  void release(const learner& whom);
  /// One optimizer step; the mean loss over its labels.
  double step(learner& whom, uint64_t number);
  /// Loss on the held-out windows of the corpus, of the weights as they are.
  double validate(const learner& whom);
  /// Sets the weights to those of another, which share no moments.
  void copy_weights(const learner& from, const learner& to);
  /// Moves the clock, and every timer with it.
  void pass_ms(int64_t ms);

  uint64_t tokens_per_step() const { return uint64_t{plan.rows} * plan.seq; }

  template <class Reply, class Actor, class... Ts>
  Reply must_ask(const Actor& whom, Ts&&... message) {
    auto got = test::ask<Reply>(*this, whom, std::forward<Ts>(message)...);
    if (!got)
      die(problem_of(got.refused).message);
    return std::move(*got);
  }

  const training_plan plan;
  const text::dataset& data;
  const std::string architecture_id;
  std::shared_ptr<test::manual_clock> clock = std::make_shared<test::manual_clock>();

private:
  work_header header() const;

  kernels::device_ptr device_;
};

} // namespace neuroshard::bench

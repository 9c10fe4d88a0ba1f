#pragma once

#include "actors/common/error.hpp"
#include "actors/layer_worker/layer_worker_actor.hpp"
#include "actors/layer_worker/work_queue.hpp"
#include "kernels/model/sliced.hpp"

#include <caf/expected.hpp>
#include <caf/typed_response_promise.hpp>

#include <cstdint>
#include <memory>
#include <type_traits>
#include <utility>

namespace neuroshard {

/// Work of one lane runs one job at a time; jobs of different lanes are interleaved slice by slice (see
/// model::stage).
enum class work_lane : uint8_t { decode = 0, prefill = 1, training = 2, score = 3, copying = 4 };
inline constexpr size_t work_lanes = 5;

/// What a job does to a training step; DISCARD finds the jobs of its step by it.
enum class step_part : uint8_t { none, forward, gradient, sample, commit };

/// Work with the address of its answer. Answers exactly once: by `deliver`, by `fail`, or, destroyed without
/// either, with `draining`.
class device_job {
public:
  work_class urgency = work_class::bulk;
  work_lane lane = work_lane::copying;
  step_part part = step_part::none;
  uint64_t step = 0;
  bool sets_weights = false; ///< may run while there are none yet
  int64_t queued_us = 0;     ///< when it came
  int64_t started_us = 0;    ///< when its first slice began; 0: it waits
  int64_t compute_us = 0;    ///< in its slices

  virtual ~device_job() = default;
  /// Runs one slice; true when the work is done.
  virtual bool resume() = 0;
  virtual void deliver() = 0;
  virtual void fail(caf::error why) = 0;
};
using device_job_ptr = std::unique_ptr<device_job>;

/// What the answer to a request looks like in CAF: success alone is an empty message.
template <class Reply>
using answer_of = std::conditional_t<std::is_same_v<Reply, caf::unit_t>, void, Reply>;

/// A job that answers with a Reply (caf::unit_t: that it is done).
template <class Reply>
class answering_job final : public device_job {
public:
  using work_type = model::sliced<caf::expected<Reply>>;
  answering_job(work_type work, caf::typed_response_promise<Reply> promise)
      : work_(std::move(work)), promise_(std::move(promise)) {}
  ~answering_job() override {
    if (promise_.pending())
      promise_.deliver(refuse(errc::draining, "the layer worker is stopping"));
  }

  bool resume() override { return work_.resume(); }
  void deliver() override {
    auto outcome = work_.take();
    if (!outcome) {
      promise_.deliver(std::move(outcome.error()));
      return;
    }
    if constexpr (requires { outcome->report; }) {
      outcome->report.compute_us = static_cast<uint64_t>(compute_us);
      outcome->report.queue_us = static_cast<uint64_t>(started_us - queued_us);
    }
    if constexpr (std::is_same_v<Reply, caf::unit_t>)
      promise_.deliver(caf::unit);
    else
      promise_.deliver(std::move(*outcome));
  }
  void fail(caf::error why) override {
    work_.reset();
    promise_.deliver(std::move(why));
  }

private:
  work_type work_;
  caf::typed_response_promise<Reply> promise_;
};

/// A job of the worker's own that nobody waits for.
class own_job final : public device_job {
public:
  explicit own_job(model::sliced<caf::error> work) : work_(std::move(work)) {}
  bool resume() override { return work_.resume(); }
  void deliver() override {}
  void fail(caf::error) override { work_.reset(); }

private:
  model::sliced<caf::error> work_;
};

} // namespace neuroshard

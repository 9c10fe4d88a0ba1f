#pragma once

#include "actors/common/clock.hpp"
#include "actors/layer_worker/device_job.hpp"
#include "actors/layer_worker/layer_worker_actor.hpp"
#include "actors/layer_worker/request_tensors.hpp"
#include "actors/layer_worker/serving_copies.hpp"
#include "actors/layer_worker/training_binding.hpp"
#include "actors/layer_worker/work_queue.hpp"
#include "kernels/model/stage.hpp"

#include <caf/stateful_actor.hpp>
#include <caf/typed_event_based_actor.hpp>

#include <array>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

namespace neuroshard {

struct layer_worker_options {
  std::string architecture_id;
  uint64_t seed = 0;        ///< of the initial weights, where no checkpoint sets them
  uint32_t valid_vocab = 0; ///< the tokenizer's size; 0: all columns
  optimizer_settings optimizer;
  size_t queue_capacity = 100;
  bool detached_hashing =
      true; ///< the hash of a serving copy is computed on a thread of its own; not in tests
  /// Sets the number of threads of the compute pool; empty where the device has no such thing.
  std::function<void(uint32_t)> set_threads;
};

/// Computes hashes of serving copies, away from the device's queue.
using copy_hasher_actor = caf::typed_actor<caf::replies_to<hash_copy>::with<std::string>>;

struct layer_worker_state {
  static inline const char* name = "layer_worker";
  using pointer = layer_worker_actor::stateful_pointer<layer_worker_state>;
  template <class T>
  using work = model::sliced<caf::expected<T>>;

  struct snapshot {
    uint64_t id = 0;
    std::set<std::string> unread;
    int64_t used_us = 0;
  };

  pointer self = nullptr;
  std::unique_ptr<model::stage> stage;
  layer_worker_options options;
  time_source_ptr time;
  copy_hasher_actor hasher;

  work_queue<device_job_ptr> queue;
  std::array<device_job_ptr, work_lanes> active;
  bool slice_pending = false; ///< a slice_atom is in the mailbox
  uint32_t bulk_debt = 0;     ///< slices of training since the last one of bulk work
  bool draining = false;

  training_binding binding;
  std::optional<backward_reply> last_commit; ///< what a repeated COMMIT gets
  bool weights_set = false;
  bool initializing = false;
  bool committing = false;
  bool loading = false; ///< between the first write_tensor and finish_load
  std::optional<snapshot> view;
  uint64_t snapshots = 0;
  std::vector<std::pair<open_snapshot, caf::typed_response_promise<snapshot_opened>>> view_waiters;
  serving_copies copies;
  std::map<uint64_t, std::vector<caf::typed_response_promise<std::string>>> hash_waiters;

  ~layer_worker_state();

  // the queue (layer_worker.cpp)
  template <class Reply>
  caf::result<answer_of<Reply>> enqueue(work<Reply> job, work_class urgency, work_lane lane,
                                        int64_t deadline_us, step_part part = step_part::none,
                                        uint64_t step = 0);
  void enqueue_own(model::sliced<caf::error> job, bool sets_weights);
  bool runnable(const device_job& job) const;
  device_job* choose();
  void run_slice();
  void wake();
  void fail_all(const caf::error& why);
  /// Ends all waiting and running work on a step (0: on any); true when some of it had begun.
  bool cancel_step(uint64_t step);
  void need_weights();

  // requests (layer_worker.cpp)
  caf::error check_header(const work_header& header, uint32_t layer_begin, uint32_t layer_end) const;
  caf::result<forward_reply> on_forward(const forward_request& request);
  caf::result<forward_reply> on_bind(const forward_request& request);
  caf::result<backward_reply> on_backward(const backward_request& request);
  void on_tick();
  actor_status report() const;

  // training (training_work.cpp)
  work<forward_reply> train(forward_request request);
  work<backward_reply> gradient(backward_request request);
  caf::result<gradient_sample_ptr> on_sample(const sample_gradient& request);
  work<gradient_sample_ptr> sample(sample_gradient request);
  work<backward_reply> commit(backward_request request);
  work<backward_reply> drop_step(backward_request request);
  model::sliced<caf::error> commit_step(uint64_t step);
  model::sliced<caf::error> drop_accumulated();
  model::sliced<caf::error> report_ready(stage_report& to);

  // inference (inference_work.cpp)
  work<forward_reply> infer(forward_request request);
  work<forward_reply> score(forward_request request);
  caf::expected<model::infer_input> infer_rows(const forward_request& request, batch_shape& shape) const;
  forward_reply infer_reply(const forward_request& request, const batch_shape& shape,
                            model::infer_output&& output) const;

  // weights and copies of them (state_work.cpp)
  model::sliced<caf::error> initialize();
  work<caf::unit_t> write(write_tensor request);
  work<caf::unit_t> finish(finish_load request);
  caf::result<snapshot_opened> on_open_snapshot(const open_snapshot& request);
  snapshot_opened make_view(const open_snapshot& request);
  void open_waiting_views();
  work<tensor_handle> copy_tensor(read_snapshot request);
  void end_view();
  work<serving_info> make_copy(refresh_serving request);
  model::sliced<caf::error> let_go();
  caf::result<std::string> on_serving_hash(const serving_hash& request);
  void copy_hashed(uint64_t copy_id, caf::expected<std::string> hash);
  caf::result<serving_info> on_session_copy(const session_copy& request) const;
  caf::result<memory_plan_ptr> plan() const;
};

/// Owns the stage. Detached in production, as its slices compute; works undetached too. `stage` may hold no
/// weights yet: the first work that needs them makes the initial ones.
layer_worker_actor::behavior_type layer_worker(layer_worker_state::pointer self,
                                               std::shared_ptr<std::unique_ptr<model::stage>> stage,
                                               layer_worker_options options, time_source_ptr time);

/// Wraps a stage so that it can be handed to `spawn`.
std::shared_ptr<std::unique_ptr<model::stage>> hand_over(std::unique_ptr<model::stage> stage);

} // namespace neuroshard

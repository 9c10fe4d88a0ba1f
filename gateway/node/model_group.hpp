#pragma once

#include "actors/common/clock.hpp"
#include "actors/common/counters.hpp"
#include "actors/identity/node_identity.hpp"
#include "actors/supervisor/supervisor_actor.hpp"
#include "gateway/config/data_dir.hpp"
#include "gateway/config/node_config.hpp"
#include "gateway/config/start_error.hpp"
#include "gateway/config/thread_budget.hpp"
#include "gateway/node/held_board.hpp"
#include "kernels/core/backend.hpp"
#include "kernels/model/architecture.hpp"
#include "kernels/text/dataset.hpp"

#include <functional>
#include <memory>
#include <string>

namespace neuroshard {

/// What the model's actors (layer worker, checkpointer, trainer, inference scheduler) are made from.
struct model_plan {
  std::function<std::shared_ptr<const node_config>()> config; ///< read anew at each start of the group
  thread_budget threads;
  data_paths paths;
  std::shared_ptr<const node_identity> identity;
  kernels::device_ptr device;
  model::architecture shape;
  held_board_ptr held; ///< what the group is made for; read anew at each start
  snapshot_board_ptr board;
  std::shared_ptr<const text::dataset> data;
  std::shared_ptr<const text::tokenizer> tokens;
  std::string software;         ///< "neuroshard 0.1.0"
  std::string training_session; ///< 32 random hex: this process as a driver
  time_source_ptr time;
  random_source_ptr random;
  counters_ptr counters;
  supervisor_actor supervisor; ///< makes the group anew when a node begun without training is to train
};

/// The shape that the configuration names. Exit code 1 when the kernels cannot run it.
start_result<model::architecture> shape_of(const node_config& c);
/// Opens the device that the configuration asks for: `auto` takes CUDA where it is, else the CPU. Exit
/// code 4.
start_result<kernels::device_ptr> open_device(const node_config& c, const thread_budget& threads);
/// bf16 where the configuration allows it and the device is faster with it, else f32.
kernels::dtype compute_type(const node_config& c, const kernels::device& on);
/// Positions of one micro-batch that activations are planned for. A larger batch, set while running, is cut
/// into more micro-batches.
uint64_t microbatch_positions(const node_config& c);
/// Where this node keeps the checkpoints of its own.
std::string checkpoint_folder(const model_plan& plan);
/// The group that the supervisor starts, restarts and ends as one.
start_group model_group(std::shared_ptr<const model_plan> plan, const node_actors& fronts);

} // namespace neuroshard

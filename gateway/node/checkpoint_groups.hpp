#pragma once

#include "actors/supervisor/supervisor_actor.hpp"
#include "gateway/grpc/link.hpp"
#include "gateway/node/model_group.hpp"

#include <memory>
#include <vector>

namespace neuroshard {

/// The groups, one for each actor, that carry checkpoints between nodes: link, server, receiver. They need
/// the tokenizer, as the model does, and outlive the group `model`, which is made anew when other layers are
/// assigned.
std::vector<start_group> checkpoint_groups(const std::shared_ptr<const model_plan>& plan,
                                           rpc::link_options link, const node_actors& fronts);

} // namespace neuroshard

#include "actors/peer_manager/peer_table.hpp"

#include <algorithm>

namespace neuroshard {

namespace {

caf::error no_holder(std::string unit) {
  problem what;
  what.message = "no node holds " + unit + " of the model";
  what.reason = "no_route";
  what.details.emplace_back("unit", std::move(unit));
  return refuse(errc::no_route, std::move(what));
}

} // namespace

caf::expected<model_route> peer_table::route(const route_request& request) const {
  const bool usable =
      std::find(request.exclude.begin(), request.exclude.end(), own_.node_id) == request.exclude.end();
  if (!usable || !own_.has_embedding)
    return no_holder("embed");
  if (own_.layer_begin != 0)
    return no_holder("layer.0");
  if (own_.layer_end < total_layers_)
    return no_holder("layer." + std::to_string(own_.layer_end));
  if (!own_.has_lm_head)
    return no_holder("head");
  model_route found;
  found.hops.push_back({true, own_.node_id, "", own_.layer_begin, own_.layer_end});
  return found;
}

} // namespace neuroshard

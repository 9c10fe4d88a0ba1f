#include "actors/relay/route_hops.hpp"

namespace neuroshard {

std::string failed_hop_of(const caf::error& why) {
  for (const auto& [key, value] : problem_of(why).details)
    if (const auto* id = std::get_if<std::string>(&value); id && key == "failed_hop")
      return *id;
  return {};
}

caf::error failed_at_hop(const caf::error& why, const std::string& node_id) {
  if (!failed_hop_of(why).empty())
    return why;
  auto what = problem_of(why);
  what.details.emplace_back("failed_hop", node_id);
  return refuse(code_of(why), std::move(what));
}

} // namespace neuroshard

#include "actors/peer_manager/peer_manager.hpp"

namespace neuroshard {

peer_manager_actor::behavior_type peer_manager(peer_manager_actor::stateful_pointer<peer_manager_state> self,
                                               node_description own, uint32_t total_layers) {
  self->state.table = peer_table{std::move(own), total_layers};
  return {
      [self](const node_description& own) { self->state.table.set_own(own); },
      [self](peers_atom) -> peer_list_ptr { return self->state.table.peers(); },
      [self](const route_request& request) -> caf::result<model_route> {
        auto found = self->state.table.route(request);
        if (!found)
          return found.error();
        return std::move(*found);
      },
      [](leave_atom) {},
      [](tick_atom) {},
      [self](status_atom) -> actor_status {
        return {self->state.name,
                actor_status::health::ok,
                "",
                {{"peers", std::to_string(self->state.table.peers()->size())}}};
      },
  };
}

} // namespace neuroshard

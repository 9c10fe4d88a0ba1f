#include "actors/supervisor/front.hpp"

#include "actors/supervisor/supervisor_actor.hpp"

namespace neuroshard {

caf::behavior front(caf::stateful_actor<front_state>* self, std::string of) {
  self->state.of = std::move(of);
  self->set_default_handler(
      [self](caf::scheduled_actor*, caf::message_view& view) -> caf::result<caf::message> {
        if (!self->state.target)
          return refuse(errc::not_ready, self->state.of + " is not running");
        return self->delegate(self->state.target, view.move_content_to_message());
      });
  return {
      [self](retarget_atom, const caf::actor& target) { self->state.target = target; },
  };
}

} // namespace neuroshard

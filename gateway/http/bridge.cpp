#include "gateway/http/bridge.hpp"

#include <caf/actor_system.hpp>
#include <caf/send.hpp>

namespace neuroshard::http {

namespace {

caf::behavior bridge_behavior(caf::event_based_actor* self) {
  // An exception in a reply's handler must not cost the gateway its only way to the actors.
  self->set_exception_handler([](std::exception_ptr&) -> caf::error { return caf::none; });
  return {[self](const bridge_call_ptr& call) { call->run(self); }};
}

} // namespace

bridge::bridge(caf::actor_system& system) : worker_(system.spawn(bridge_behavior)) {}

bridge::~bridge() {
  caf::anon_send_exit(worker_, caf::exit_reason::user_shutdown);
}

void bridge::submit(bridge_call_ptr call) {
  caf::anon_send(worker_, std::move(call));
}

} // namespace neuroshard::http

#include "gateway/http/errors.hpp"
#include "gateway/http/gateway.hpp"
#include "gateway/http/handlers/handlers.hpp"
#include "gateway/http/json.hpp"

namespace neuroshard::http {

namespace {

/// Turns the nested body into dotted names and leaves. A key with a dot in it would be ambiguous and is
/// refused.
caf::error flatten(const json_value& object, const std::string& prefix, patch_body& into) {
  for (size_t i = 0; i < object.keys.size(); ++i) {
    const std::string name = prefix + object.keys[i];
    const json_value& value = object.items[i];
    if (object.keys[i].find('.') != std::string::npos || object.keys[i].empty()) {
      problem what;
      what.message = "This is no key of the configuration.";
      what.field = name;
      what.reason = "unknown_key";
      return refuse(errc::invalid_request, std::move(what));
    }
    switch (value.type) {
    case json_value::kind::object:
      if (!value.keys.empty()) {
        if (auto wrong = flatten(value, name + ".", into))
          return wrong;
      } else if (name != "training" && name != "resources") {
        into.emplace_back(name, std::monostate());
      } // an empty group asks for nothing
      break;
    case json_value::kind::boolean:
      into.emplace_back(name, value.flag);
      break;
    case json_value::kind::number:
      into.emplace_back(name, json_number{value.text});
      break;
    case json_value::kind::string:
      into.emplace_back(name, value.text);
      break;
    case json_value::kind::null:
    case json_value::kind::array:
      into.emplace_back(name, std::monostate());
      break;
    }
  }
  return caf::none;
}

struct patched {
  waker wait;
  std::optional<caf::expected<patch_outcome>> outcome;
};

} // namespace

response get_config(gateway& g, exchange& x) {
  const auto c = g.node.config ? g.node.config() : nullptr;
  if (!c)
    return error_response(refuse(errc::not_ready, "The node is still starting."), x.request_id);
  json_writer out;
  out.begin().put("node_id", g.node.board->read()->identity.node_id);
  out.put("port", c->port).put("grpc_port", c->port + 1000).put("tracker_url", c->tracker);
  out.key("training").begin();
  out.put("enabled", c->training.enabled).put("batch_size", c->training.batch_size);
  out.put("learning_rate", c->training.learning_rate).put("diloco_steps", c->training.diloco_steps).end();
  out.key("resources").begin().key("max_memory_gb");
  if (c->memory_mb > 0)
    out.value(static_cast<double>(c->memory_mb) / 1024);
  else
    out.null();
  out.key("cpu_threads");
  if (c->cpu_threads > 0)
    out.value(c->cpu_threads);
  else
    out.null();
  out.put("max_storage_mb", c->data.max_storage_mb).end();
  out.end();
  return json_response(out);
}

task<response> patch_config(gateway& g, exchange& x) {
  const auto json = parse_json(x.in.body);
  if (!json)
    co_return error_response(json.error(), x.request_id);
  const field_reader shape(*json);
  if (shape.failed())
    co_return error_response(shape.complaint(), x.request_id);
  patch_body body;
  if (const auto wrong = flatten(*json, {}, body))
    co_return error_response(wrong, x.request_id);
  if (!g.node.patch_config)
    co_return error_response(refuse(errc::not_ready, "The node is still starting."), x.request_id);
  auto waiting = std::make_shared<patched>();
  g.node.patch_config(std::move(body), [waiting, home = x.link.home()](caf::expected<patch_outcome> outcome) {
    home->post([waiting, outcome = std::move(outcome)] {
      waiting->outcome.emplace(outcome);
      waiting->wait.wake();
    });
  });
  x.link.wake_after(g.settings.limits.actor_ms, [waiting] {
    if (!waiting->outcome)
      waiting->outcome.emplace(refuse(errc::timeout, "The configuration was not answered for in time."));
    waiting->wait.wake();
  });
  while (!waiting->outcome)
    co_await until_woken{waiting->wait};
  if (!*waiting->outcome)
    co_return error_response(waiting->outcome->error(), x.request_id);
  const patch_outcome& done = **waiting->outcome;
  json_writer out;
  out.begin().put("success", true).key("updated").begin_list();
  for (const std::string& name : done.updated)
    out.value(name);
  out.end_list().put("restart_required", done.restart_required).end();
  co_return json_response(out);
}

} // namespace neuroshard::http

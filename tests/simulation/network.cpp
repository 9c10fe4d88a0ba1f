#include "tests/simulation/network.hpp"

#include <algorithm>
#include <optional>
#include <type_traits>

namespace neuroshard::simulation {

namespace {

std::string host_part(const std::string& address) {
  return address.substr(0, address.rfind(':'));
}
connection_end end_of(const host& node, bool bound) {
  return {bound ? node.node_id : "", host_part(node.address), node.certificate};
}

caf::error unreachable_error() {
  return refuse(errc::unavailable, "The node cannot be reached.");
}
caf::error announce_first() {
  problem what;
  what.message = "Announce first.";
  what.reason = "announce_first";
  return refuse(errc::unauthorized, std::move(what));
}

template <class T>
constexpr bool is_exchange = std::is_same_v<T, exchange_request>;
template <class T>
constexpr bool is_work = std::is_same_v<T, routed_forward> || std::is_same_v<T, routed_backward>;

/// The actor that answers a request.
template <class Request>
const auto& served_by(const host& at) {
  if constexpr (is_exchange<Request>)
    return at.exchanger;
  else if constexpr (is_work<Request>)
    return at.relay;
  else
    return at.manager;
}

template <class T>
uint64_t bytes_of(const T& what) {
  constexpr uint64_t some = 512;
  if constexpr (is_exchange<T>)
    return some + (what.part_data ? what.part_data->size() : 0);
  else if constexpr (std::is_same_v<T, exchange_reply>)
    return some + (what.reply_data ? what.reply_data->size() : 0);
  else
    return some;
}

/// What a call comes to: a reply, or why there is none.
template <class Reply>
struct call_end {
  std::optional<Reply> reply;
  caf::error why = {};
};

/// A call's end at the one who made it: the first that comes counts.
template <class Reply>
struct open_call {
  caf::typed_response_promise<Reply> promise;
  bool over = false;
};

} // namespace

host* network::find(const std::string& address) {
  const auto at = hosts_.find(address);
  return at == hosts_.end() ? nullptr : &at->second;
}

bool network::apart(const std::string& a, const std::string& b) const {
  const auto group_of = [&](const std::string& address) {
    const auto at = groups.find(address);
    return at == groups.end() ? 0 : at->second;
  };
  return group_of(a) != group_of(b);
}

void network::degrade(dice& by) {
  quality.delay_most_us = by.between(20, by.chance(0.2) ? 4'000 : 400) * ms_us;
  quality.loss = by.chance(0.5) ? by.unit() * 0.3 : 0;
  quality.duplicate = by.chance(0.5) ? by.unit() * 0.3 : 0;
  quality.bytes_per_second = static_cast<uint64_t>(by.between(20'000, 10'000'000));
  world_.note("lines: {} ms, loss {:.2f}, twice {:.2f}", quality.delay_most_us / ms_us, quality.loss,
              quality.duplicate);
}

void network::slow_down(const std::string& address, dice& by) {
  auto& line = node_qualities[address];
  line.delay_least_us = by.between(1, 2'000) * ms_us;
  line.delay_most_us = line.delay_least_us + by.between(1, 2'000) * ms_us;
  line.loss = by.unit() * 0.5;
  world_.note("line of {}: {} ms, loss {:.2f}", address, line.delay_most_us / ms_us, line.loss);
}

void network::split(dice& by) {
  for (const auto& [address, node] : hosts_) {
    groups[address] = static_cast<int>(by.below(2));
    world_.note("{} is in group {}", address, groups[address]);
  }
}

void network::heal() {
  quality = {};
  node_qualities.clear();
  groups.clear();
  world_.note("healed");
}

double network::of_both(const cargo& what, double link_quality::*which) const {
  double worst = quality.*which;
  for (const auto* address : {&what.from, &what.to})
    if (const auto at = node_qualities.find(*address); at != node_qualities.end())
      worst = std::max(worst, at->second.*which);
  return worst;
}

int64_t network::delay_us(const cargo& what) {
  int64_t most = 0;
  for (const auto* address : {&what.from, &what.to}) {
    const auto at = node_qualities.find(*address);
    const auto& line = at == node_qualities.end() ? quality : at->second;
    const int64_t on_the_way = random_.between(line.delay_least_us, line.delay_most_us);
    const auto sending = static_cast<int64_t>(what.bytes * 1'000'000 / line.bytes_per_second);
    most = std::max(most, on_the_way + sending);
  }
  return most;
}

void network::carry(cargo what) {
  if (random_.chance(of_both(what, &link_quality::loss))) {
    world_.note("lost {}->{}", what.from, what.to);
    return;
  }
  if (what.may_be_doubled && random_.chance(of_both(what, &link_quality::duplicate))) {
    auto twin = what;
    twin.unreachable = {};
    world_.after(delay_us(what), [this, twin = std::move(twin)]() mutable { arrive(std::move(twin)); });
  }
  const int64_t delay = delay_us(what);
  world_.after(delay, [this, what = std::move(what)]() mutable { arrive(std::move(what)); });
}

void network::arrive(cargo what) {
  const auto* to = find(what.to);
  if (to == nullptr || apart(what.from, what.to)) {
    // A machine without the program says so at once; one that is cut off says nothing.
    const bool refused = to == nullptr && random_.chance(0.5);
    world_.note("unreachable {}->{} refused={}", what.from, what.to, refused);
    if (refused && what.unreachable)
      what.unreachable();
    return;
  }
  caf::anon_send(to->link, network_task{[this, what = std::move(what)](node_link_actor::pointer self) {
                   auto* here = find(what.to);
                   if (here != nullptr && here->link.address() == self->address())
                     what.arrived(self, *here);
                 }});
}

template <class Reply, class Request>
caf::result<Reply> network::call(node_link_actor::pointer self, const std::string& own,
                                 peer_call<Request>& what) {
  using value = std::conditional_t<std::is_same_v<Reply, void>, caf::unit_t, Reply>;
  auto open = std::make_shared<open_call<value>>();
  open->promise = self->template make_response_promise<value>();
  if (auto* here = find(own))
    calls_most = std::max(calls_most, ++here->calls);
  // Runs in the context of the caller's link.
  const auto finish = [this, open, own](call_end<value> with) {
    if (std::exchange(open->over, true))
      return;
    if (auto* here = find(own); here != nullptr && here->calls > 0)
      --here->calls;
    if (with.reply)
      open->promise.deliver(std::move(*with.reply));
    else
      open->promise.deliver(std::move(with.why));
  };
  const auto fail = [finish, link = node_link_actor{self}](caf::error why) {
    caf::anon_send(link, network_task{[finish, why](node_link_actor::pointer) {
                     finish({std::nullopt, why});
                   }});
  };
  const auto budget_us = int64_t{what.budget_ms} * 1'000;
  world_.after(budget_us, [fail, open] {
    if (!open->over)
      fail(refuse(errc::timeout, "The node did not answer in time."));
  });

  cargo request;
  request.from = own;
  request.to = what.to.address;
  request.bytes = bytes_of(what.what);
  request.may_be_doubled = true;
  request.unreachable = [fail] { fail(unreachable_error()); };
  request.arrived = [this, finish, own, sent = std::make_shared<Request>(std::move(what.what)), budget_us,
                     to = what.to.address](node_link_actor::pointer there, host& at) {
    const auto answer = [this, finish, own, to](call_end<value> with) {
      cargo back;
      back.from = to;
      back.to = own;
      back.bytes = with.reply ? bytes_of(*with.reply) : 0;
      back.arrived = [finish, with = std::move(with)](node_link_actor::pointer, host&) { finish(with); };
      carry(std::move(back));
    };
    auto* caller = find(own);
    if (caller == nullptr)
      return;
    constexpr bool announces = std::is_same_v<Request, announce_request>;
    const bool bound = at.bound.contains(caller->node_id);
    const auto& actor = served_by<Request>(at);
    if (!actor)
      return answer({std::nullopt, refuse(errc::not_ready, "Not served here.")});
    if (!announces && !bound)
      return answer({std::nullopt, announce_first()});
    auto heard = *sent;
    if constexpr (is_exchange<Request>)
      if (on_exchange)
        on_exchange(caller->node_id, at.node_id, heard);
    heard.from = end_of(*caller, !announces);
    if constexpr (is_work<Request>)
      heard.work.header.deadline_steady_us = world_.clock()->steady_us() + budget_us;
    const auto refused = [answer](caf::error& why) { answer({std::nullopt, std::move(why)}); };
    if constexpr (std::is_same_v<Reply, void>)
      there->request(actor, caf::infinite, std::move(heard)).then([answer] { answer({caf::unit}); }, refused);
    else
      there->request(actor, caf::infinite, std::move(heard))
          .then(
              [this, answer, own, to, sent](Reply& reply) {
                auto* here = find(to);
                auto* caller = find(own);
                if (here == nullptr || caller == nullptr)
                  return;
                if constexpr (announces) {
                  here->bound.insert(reply.bound_node_id);
                  reply.by = end_of(*here, false);
                }
                if constexpr (is_exchange<Request>)
                  if (on_exchange_reply)
                    on_exchange_reply(here->node_id, caller->node_id, sent->fetch.has_value(), reply);
                answer({std::move(reply)});
              },
              refused);
  };
  carry(std::move(request));
  return open->promise;
}

namespace {

node_link_actor::behavior_type node_link(node_link_actor::pointer self, network* in, std::string own) {
  return {
      [=](peer_call<announce_request>& call) { return in->call<announce_reply>(self, own, call); },
      [=](peer_call<heartbeat_request>& call) { return in->call<heartbeat_reply>(self, own, call); },
      [=](peer_call<leave_request>& call) { return in->call<void>(self, own, call); },
      [=](peer_call<find_peers_request>& call) { return in->call<find_peers_reply>(self, own, call); },
      [=](peer_call<ping_request>& call) { return in->call<ping_reply>(self, own, call); },
      [=](peer_call<get_layer_map_request>& call) { return in->call<get_layer_map_reply>(self, own, call); },
      [=](peer_call<publish_request>& call) { return in->call<publish_reply>(self, own, call); },
      [=](const forget_peer& who) {
        if (auto* here = in->find(own))
          here->bound.erase(who.node_id);
      },
      [](drain_atom) {},
      [](status_atom) {
        return actor_status{"peer_link", actor_status::health::ok, "", {}};
      },
      [=](peer_call<exchange_request>& call) { return in->call<exchange_reply>(self, own, call); },
      [=](peer_call<routed_forward>& call) { return in->call<routed_forward_reply>(self, own, call); },
      [=](peer_call<routed_backward>& call) { return in->call<routed_backward_reply>(self, own, call); },
      [=](const network_task& what) { what.run(self); },
  };
}

} // namespace

host& network::connect(host node) {
  const auto address = node.address;
  node.link = world_.keep(world_.system().spawn(node_link, this, address));
  return hosts_.insert_or_assign(address, std::move(node)).first->second;
}

} // namespace neuroshard::simulation

#pragma once

#include "actors/gradient_exchanger/exchange_link_actor.hpp"
#include "actors/relay/work_link_actor.hpp"
#include "tests/simulation/world.hpp"

#include <caf/all.hpp>

#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

namespace neuroshard::simulation {

struct network_task;

} // namespace neuroshard::simulation

CAF_BEGIN_TYPE_ID_BLOCK(neuroshard_simulation, caf::first_custom_type_id + 1'900)
CAF_ADD_TYPE_ID(neuroshard_simulation, (neuroshard::simulation::network_task))
CAF_END_TYPE_ID_BLOCK(neuroshard_simulation)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(neuroshard::simulation::network_task)

namespace neuroshard::simulation {

/// One actor is a node's line to the others, whatever it carries, in both directions.
using node_link_actor = peer_link_actor::extend_with<exchange_link_actor>::extend_with<
    work_link_actor>::extend<caf::reacts_to<network_task>>;

/// What has come over the network for a node's link: done in its context.
struct network_task {
  std::function<void(node_link_actor::pointer)> run;
};

/// How messages fare between two nodes.
struct link_quality {
  int64_t delay_least_us = 500;
  int64_t delay_most_us = 20'000; ///< so that later messages overtake earlier ones
  double loss = 0;
  double duplicate = 0; ///< share of requests that arrive twice
  uint64_t bytes_per_second = 100'000'000;
};

/// A node as the others reach it. Unset handles are not served.
struct host {
  std::string node_id, address;
  std::optional<kernels::digest> certificate;
  node_link_actor link;
  peer_manager_actor manager;
  gradient_exchanger_actor exchanger;
  relay_actor relay;
  std::set<std::string> bound = {}; ///< node ids whose certificates it knows
  size_t calls = 0;                 ///< of its own, under way
};

/// Calls between the nodes of a world. A call is a request and an answer, each of which may be late, lost or
/// overtaken; who calls hears of it within its budget. Like gateway/grpc, a node answers nobody but Announce
/// whose certificate it does not know.
class network {
public:
  explicit network(world& in) : world_(in), random_(in.random().fork()) {}

  /// A node comes up: from now on it is reached at its address. Its link is made here.
  host& connect(host node);
  /// A node is gone: its connections end.
  void disconnect(const std::string& address) { hosts_.erase(address); }
  host* find(const std::string& address);
  std::map<std::string, host>& hosts() noexcept { return hosts_; }

  link_quality quality;                               ///< of all links
  std::map<std::string, link_quality> node_qualities; ///< of a node's own line, by address; the worse counts
  std::map<std::string, int> groups; ///< by address: nodes of different groups do not reach each other
  size_t calls_most = 0;             ///< of one node under way at once, so far

  /// Faults, drawn: lines of another quality, one node's slow line, two groups.
  void degrade(dice& by);
  void slow_down(const std::string& address, dice& by);
  void split(dice& by);
  /// Lines are good again, everybody reaches everybody.
  void heal();

  /// Look at, and may change, what a node sends in an exchange.
  std::function<void(const std::string& from_id, const std::string& to_id, exchange_request&)> on_exchange;
  std::function<void(const std::string& from_id, const std::string& to_id, bool fetched, exchange_reply&)>
      on_exchange_reply;

  /// A message of so many bytes between two addresses: `arrived` runs in the context of `to`, which is there,
  /// or never. `unreachable` runs outside of all actors when nobody is there, or not at all.
  struct cargo {
    std::string from, to;
    uint64_t bytes = 0;
    bool may_be_doubled = false;
    std::function<void(node_link_actor::pointer, host&)> arrived;
    std::function<void()> unreachable = {};
  };
  void carry(cargo what);

  template <class Reply, class Request>
  caf::result<Reply> call(node_link_actor::pointer self, const std::string& own, peer_call<Request>& what);

private:
  int64_t delay_us(const cargo& what);
  double of_both(const cargo& what, double link_quality::*which) const;
  bool apart(const std::string& a, const std::string& b) const;
  void arrive(cargo what);
  world& world_;
  dice random_;
  std::map<std::string, host> hosts_; ///< by host:port
};

} // namespace neuroshard::simulation

#include "gateway/dht/dht_node.hpp"

#include "actors/common/clock.hpp"
#include "actors/common/log.hpp"
#include "actors/peer_manager/node_info.hpp"

#include <opendht/dhtrunner.h>

#include <netdb.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <exception>
#include <map>
#include <mutex>
#include <string_view>
#include <thread>
#include <utility>

namespace neuroshard {

namespace {

using namespace dht_rules;
using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr const char* name = "dht";
constexpr dht::NetId table_id = 0x4e53'4448; // "NSDH"
constexpr dht::ValueType::Id record_type_id = 0x4e53;
constexpr auto record_lives = seconds(60);
constexpr size_t stored_bytes_max = 16U << 20;
constexpr auto first_wait = milliseconds(500);
constexpr auto longest_wait = milliseconds(30'000);
constexpr auto ask_seen_as_every = milliseconds(250); ///< until it is known
constexpr auto join_wait = milliseconds(500);

dht::ValueType record_type() {
  // A stranger's value is stored here only where it is some node's own word.
  return {record_type_id, "neuroshard node", record_lives,
          [](dht::InfoHash, std::shared_ptr<dht::Value>& value, const dht::InfoHash&, const dht::SockAddr&) {
            return value->type == record_type_id &&
                   is_node_record({reinterpret_cast<const char*>(value->data.data()), value->data.size()});
          }};
}

std::vector<dht::SockAddr> addresses_of(const std::string& host, uint16_t port) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_DGRAM;
  hints.ai_flags = AI_NUMERICSERV;
  addrinfo* found = nullptr;
  std::vector<dht::SockAddr> all;
  if (::getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &found) != 0)
    return all;
  for (const auto* one = found; one && all.size() < 4; one = one->ai_next)
    all.emplace_back(one->ai_addr, one->ai_addrlen);
  ::freeaddrinfo(found);
  return all;
}

std::string host_of(const dht::SockAddr& address) {
  char text[NI_MAXHOST] = {};
  const bool read =
      ::getnameinfo(address.get(), address.getLength(), text, sizeof text, nullptr, 0, NI_NUMERICHOST) == 0;
  std::string_view host = read ? text : "";
  if (host.starts_with("::ffff:"))
    host.remove_prefix(7);
  return std::string(host);
}

} // namespace

std::string peers_key(const std::string& network) {
  return dht::InfoHash::get("neuroshard/" + network + "/peers").toString();
}

std::string layer_key(const std::string& network, uint32_t layer) {
  return dht::InfoHash::get("neuroshard/" + network + "/layer/" + std::to_string(layer)).toString();
}

bool is_node_record(std::string_view bytes) {
  if (bytes.empty() || bytes.size() > record_bytes_max)
    return false;
  auto blob = decode_signed_blob(bytes);
  return blob && read_node(std::move(*blob), system_time()->unix_us() / 1'000);
}

struct dht_node::inner : std::enable_shared_from_this<dht_node::inner> {
  struct way {
    std::string host;
    uint16_t port = 0;
    bool tried = false;
  };

  dht_options options;
  dht::InfoHash all_peers;

  std::mutex lock; ///< of what follows; never held while OpenDHT or a name server is waited for
  std::condition_variable changed;
  std::shared_ptr<dht::DhtRunner> runner; ///< null: stopped
  std::deque<way> ways;
  std::map<dht::InfoHash, dht::Value::Id> left; ///< what this node has put, by key
  bool joining = false;                         ///< the thread that joins has not ended

  std::mutex meter; ///< of the two below
  double tokens = records_burst;
  std::chrono::steady_clock::time_point filled = std::chrono::steady_clock::now();

  std::shared_ptr<dht::DhtRunner> running() {
    std::lock_guard guard(lock);
    return runner;
  }

  bool may_pass() {
    std::lock_guard guard(meter);
    const auto now = std::chrono::steady_clock::now();
    tokens = std::min<double>(records_burst,
                              tokens + std::chrono::duration<double>(now - filled).count() * records_per_s);
    filled = now;
    if (tokens < 1)
      return false;
    tokens -= 1;
    return true;
  }

  bool deliver(const std::vector<std::shared_ptr<dht::Value>>& values) {
    for (const auto& value : values)
      if (value->type == record_type_id && !value->data.empty() && value->data.size() <= record_bytes_max &&
          may_pass())
        options.found({value->data.begin(), value->data.end()});
    return true;
  }

  void join();
  bool wait(milliseconds time);
  bool tell_seen_as(dht::DhtRunner& node, std::string& last);
};

/// False when it is over.
bool dht_node::inner::wait(milliseconds time) {
  std::unique_lock guard(lock);
  changed.wait_for(guard, time, [&] {
    return !runner || std::any_of(ways.begin(), ways.end(), [](const auto& one) { return !one.tried; });
  });
  return runner != nullptr;
}

/// False while no other node has said anything.
bool dht_node::inner::tell_seen_as(dht::DhtRunner& node, std::string& last) {
  const auto addresses = node.getPublicAddress();
  if (addresses.empty())
    return false;
  auto host = host_of(addresses.front());
  if (!host.empty() && host != last && options.seen_as) {
    std::lock_guard guard(lock); // so that stop() has the last word
    if (runner)
      options.seen_as(host);
  }
  last = std::move(host);
  return true;
}

/// Resolves and pings the ways in: a new one at once, all of them again and again while no node answers. A
/// thread of its own, as name servers take their time.
void dht_node::inner::join() {
  auto again = std::chrono::steady_clock::now();
  auto pause = first_wait;
  std::string seen_as;
  bool seen = false;
  do {
    const auto node = running();
    if (!node)
      break;
    try {
      const bool alone =
          node->getNodesStats(AF_INET).good_nodes + node->getNodesStats(AF_INET6).good_nodes == 0;
      const auto now = std::chrono::steady_clock::now();
      const bool all = alone && now >= again;
      if (all) {
        again = now + pause;
        pause = std::min(2 * pause, longest_wait);
      } else if (!alone) {
        pause = first_wait;
      }
      std::vector<way> due;
      {
        std::lock_guard guard(lock);
        for (auto& one : ways) {
          if (all || !one.tried)
            due.push_back(one);
          one.tried = true;
        }
      }
      for (const auto& one : due)
        for (auto& address : addresses_of(one.host, one.port))
          if (running())
            node->bootstrap(address);
      seen = tell_seen_as(*node, seen_as);
    } catch (const std::exception& why) {
      log::warn(name, "not-joined why=\"{}\"", why.what());
    }
  } while (wait(seen ? longest_wait : ask_seen_as_every));
  std::lock_guard guard(lock);
  joining = false;
  changed.notify_all();
}

caf::expected<std::shared_ptr<dht_node>> dht_node::start(dht_options options) {
  auto parts = std::make_shared<inner>();
  parts->options = std::move(options);
  const auto& how = parts->options;
  try {
    dht::DhtRunner::Config config;
    config.dht_config.node_config.network = table_id;
    config.dht_config.node_config.max_store_size = stored_bytes_max;
    config.threaded = true;
    const bool v6 = how.host.find(':') != std::string::npos;
    auto& bind = v6 ? config.bind6 : config.bind4;
    bind.setFamily(v6 ? AF_INET6 : AF_INET);
    bind.setAddress(how.host.c_str());
    bind.setPort(how.port);
    if (how.host == "::") { // both, as the port for peers does
      config.bind4.setFamily(AF_INET);
      config.bind4.setPort(how.port);
    }
    auto runner = std::make_shared<dht::DhtRunner>();
    runner->run(config, {});
    if (runner->getBoundPort(v6 ? AF_INET6 : AF_INET) != how.port) {
      runner->join();
      return refuse(errc::unavailable, "UDP port " + std::to_string(how.port) + " is in use.");
    }
    runner->registerType(record_type());
    parts->all_peers = dht::InfoHash(peers_key(how.network));
    runner->listen(parts->all_peers, [weak = parts->weak_from_this()](const auto& values, bool expired) {
      const auto to = weak.lock();
      return to && (expired || to->deliver(values));
    });
    parts->runner = std::move(runner);
    parts->joining = true;
    std::thread([parts] { parts->join(); }).detach();
  } catch (const std::exception& why) {
    return refuse(errc::unavailable, "UDP port " + std::to_string(how.port) + ": " + why.what());
  }
  return std::shared_ptr<dht_node>(new dht_node(std::move(parts)));
}

dht_node::~dht_node() {
  stop();
}

void dht_node::enter_through(const std::string& host, uint16_t port) {
  std::lock_guard guard(parts_->lock);
  auto& ways = parts_->ways;
  if (std::any_of(ways.begin(), ways.end(),
                  [&](const auto& one) { return one.host == host && one.port == port; }))
    return;
  if (ways.size() >= ways_max)
    ways.pop_front();
  ways.push_back({host, port});
  parts_->changed.notify_all();
}

void dht_node::publish(const std::string& record, std::vector<uint32_t> layers) {
  const auto node = parts_->running();
  if (!node || record.empty() || record.size() > record_bytes_max)
    return;
  std::map<dht::InfoHash, dht::Value::Id> before, now;
  now[parts_->all_peers] = 0;
  for (const auto layer : layers)
    now[dht::InfoHash(layer_key(parts_->options.network, layer))] = 0;
  // OpenDHT lets nobody write over a value, so each record has an id of its own; the old one runs out.
  const auto digest = kernels::sha256::of(record);
  dht::Value::Id id = 1;
  for (size_t i = 0; i < sizeof id; ++i)
    id = id << 8 | digest[i];
  for (auto& [key, its_id] : now)
    its_id = id;
  {
    std::lock_guard guard(parts_->lock);
    before = std::exchange(parts_->left, now);
  }
  for (const auto& [key, old] : before)
    if (old != id || !now.contains(key))
      node->cancelPut(key, old);
  for (const auto& [key, its_id] : now) {
    const auto was = before.find(key);
    if (was != before.end() && was->second == id)
      continue;
    auto value = std::make_shared<dht::Value>(record_type_id, reinterpret_cast<const uint8_t*>(record.data()),
                                              record.size(), id);
    node->put(key, std::move(value), dht::DoneCallback{}, dht::time_point::max(), true);
  }
}

void dht_node::look() {
  if (const auto node = parts_->running())
    node->get(parts_->all_peers, dht::GetCallback([weak = parts_->weak_from_this()](const auto& values) {
                const auto to = weak.lock();
                return to && to->deliver(values);
              }),
              dht::DoneCallback{});
}

void dht_node::stop() noexcept {
  std::shared_ptr<dht::DhtRunner> ending;
  {
    std::unique_lock guard(parts_->lock);
    ending = std::exchange(parts_->runner, nullptr);
    if (!ending)
      return;
    parts_->changed.notify_all();
    parts_->changed.wait_for(guard, join_wait, [&] { return !parts_->joining; });
  }
  try {
    ending->join();
  } catch (const std::exception& why) {
    log::warn(name, "not-ended why=\"{}\"", why.what());
  }
}

} // namespace neuroshard

#include "gateway/dht/dht_node.hpp"

#include "actors/common/clock.hpp"
#include "actors/common/error.hpp"
#include "actors/peer_manager/node_info.hpp"
#include "tests/support/test.hpp"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <set>

using namespace neuroshard;

namespace {

/// A UDP socket of the system's choice on loopback.
struct udp_port {
  int descriptor = ::socket(AF_INET, SOCK_DGRAM, 0);
  uint16_t number = 0;
  udp_port() {
    sockaddr_in at{};
    at.sin_family = AF_INET;
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t length = sizeof at;
    REQUIRE(::bind(descriptor, reinterpret_cast<sockaddr*>(&at), length) == 0);
    REQUIRE(::getsockname(descriptor, reinterpret_cast<sockaddr*>(&at), &length) == 0);
    number = ntohs(at.sin_port);
  }
  ~udp_port() { release(); }
  void release() {
    if (descriptor >= 0)
      ::close(std::exchange(descriptor, -1));
  }
};

uint16_t free_udp_port() {
  return udp_port{}.number;
}

std::string record_of(unsigned number) {
  auto token = parse_token(std::string(60, 'c') + std::to_string(1'000 + number));
  REQUIRE(static_cast<bool>(token));
  const auto who = node_identity::make(*token, 0, system_time()->unix_us() / 1'000);
  REQUIRE(static_cast<bool>(who));
  node_description node;
  node.node_id = who->node_id();
  node.wallet_address = who->address();
  node.host = "127.0.0.1";
  node.grpc_port = 9'000;
  node.sequence = static_cast<uint64_t>(system_time()->unix_us());
  node.architecture_id = "0123456789abcdef";
  return encode_signed_blob(sign_node(*who, node)->blob);
}

/// A node of the table and what it has found.
struct taking_part {
  std::mutex lock;
  std::condition_variable changed;
  std::multiset<std::string> found;
  std::string seen_as;
  uint16_t port = free_udp_port();
  std::shared_ptr<dht_node> node;

  explicit taking_part(const std::string& network = "main") {
    dht_options how;
    how.host = "127.0.0.1";
    how.port = port;
    how.network = network;
    how.found = [this](std::string record) {
      std::lock_guard guard(lock);
      found.insert(std::move(record));
      changed.notify_all();
    };
    how.seen_as = [this](std::string host) {
      std::lock_guard guard(lock);
      seen_as = std::move(host);
      changed.notify_all();
    };
    auto started = dht_node::start(std::move(how));
    REQUIRE(static_cast<bool>(started));
    node = std::move(*started);
  }
  ~taking_part() { node->stop(); }

  template <class Condition>
  bool wait_until(Condition condition) {
    std::unique_lock guard(lock);
    return changed.wait_for(guard, std::chrono::seconds(30), condition);
  }
  bool finds(const std::string& record) {
    return wait_until([&] { return found.contains(record); });
  }
};

} // namespace

TEST_CASE("records lie under SHA-1 of what the specification says") {
  CHECK(peers_key("main") == "e8b6f1579e67efa926771fae02c975871e880b0b");
  CHECK(layer_key("main", 3) == "b0b774fe20518d49edc71021a837aca8df17a0e4");
}

TEST_CASE("two nodes of which one knows where the other listens find each other's records") {
  taking_part a, b;
  const auto of_a = record_of(1), of_b = record_of(2);
  a.node->publish(of_a, {0, 1});
  b.node->enter_through("127.0.0.1", a.port);
  b.node->publish(of_b, {});
  CHECK(b.finds(of_a));
  CHECK(a.finds(of_b));
  CHECK(a.wait_until([&] { return a.seen_as == "127.0.0.1"; }));
  CHECK(b.wait_until([&] { return b.seen_as == "127.0.0.1"; }));
}

TEST_CASE("a newer record of a node is found beside the older one, and by who comes late") {
  taking_part a, b;
  const auto first = record_of(1), second = record_of(1);
  REQUIRE(first != second);
  b.node->enter_through("127.0.0.1", a.port);
  a.node->publish(first, {});
  CHECK(b.finds(first));
  a.node->publish(second, {0});
  CHECK(b.finds(second));
  taking_part c;
  c.node->enter_through("127.0.0.1", b.port);
  CHECK(c.finds(second));
}

TEST_CASE("nodes keep for others what is some node's own word, and nothing else") {
  auto forged = record_of(3);
  CHECK(is_node_record(forged));
  forged[forged.size() - 3] ^= 1;
  CHECK_FALSE(is_node_record(forged));
  CHECK_FALSE(is_node_record(""));
  CHECK_FALSE(is_node_record("garbage"));
  CHECK_FALSE(is_node_record(std::string(dht_rules::record_bytes_max + 1, 'x')));
}

TEST_CASE("what one network's nodes leave is not found by those of another") {
  taking_part a, b, other("elsewhere");
  b.node->enter_through("127.0.0.1", a.port);
  other.node->enter_through("127.0.0.1", a.port);
  const auto ours = record_of(4), theirs = record_of(5);
  other.node->publish(theirs, {});
  CHECK(other.finds(theirs));
  b.node->publish(ours, {});
  CHECK(a.finds(ours));
  std::lock_guard guard(a.lock);
  CHECK_FALSE(a.found.contains(theirs));
}

TEST_CASE("a port in use is refused, an end without a network is quick, and calls after it do nothing") {
  udp_port taken;
  dht_options how;
  how.host = "127.0.0.1";
  how.port = taken.number;
  how.found = [](const std::string&) {};
  const auto refused = dht_node::start(how);
  REQUIRE_FALSE(static_cast<bool>(refused));
  CHECK(code_of(refused.error()) == errc::unavailable);
  taken.release();
  taking_part alone;
  alone.node->enter_through("name.invalid", 1);
  alone.node->publish(record_of(6), {});
  alone.node->look();
  alone.node->stop();
  alone.node->stop();
  alone.node->publish(record_of(7), {});
  alone.node->enter_through("127.0.0.1", 1);
  alone.node->look();
}

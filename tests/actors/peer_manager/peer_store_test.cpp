#include "actors/peer_manager/peer_store.hpp"

#include "tests/support/test.hpp"

#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>

using namespace neuroshard;

namespace {

constexpr int64_t now_us = 1'800'000'000'000'000;

std::string id_of(unsigned number) {
  char text[33];
  std::snprintf(text, sizeof text, "%032x", number);
  return text;
}

stored_peer peer_of(unsigned number, int64_t age_us = 0) {
  return {id_of(number), "10.0.0." + std::to_string(number % 250) + ":9000", now_us - age_us};
}

std::string table_with(const std::string& entries) {
  return R"({"version":1,"peers":[)" + entries + "]}";
}

struct folder {
  std::string path = "/tmp/neuroshard-peers-XXXXXX";
  folder() { REQUIRE(::mkdtemp(path.data()) != nullptr); }
  ~folder() { std::filesystem::remove_all(path); }
};

} // namespace

TEST_CASE("a stored peer table reads as it was written, seen last first") {
  const std::vector<stored_peer> peers{peer_of(1, 500), peer_of(2, 100), peer_of(3, 300)};
  const auto read = decode_peers(encode_peers(peers), now_us);
  CHECK(read.fault.empty());
  CHECK(read.skipped == 0);
  CHECK(read.peers == std::vector<stored_peer>{peers[1], peers[2], peers[0]});
}

TEST_CASE("of many stored peers those seen last are kept") {
  std::vector<stored_peer> peers;
  for (unsigned i = 0; i < store_rules::peers_max + 10; ++i)
    peers.push_back(peer_of(i, i));
  const auto text = encode_peers(peers);
  CHECK(text.size() < store_rules::bytes_max);
  const auto read = decode_peers(text, now_us);
  CHECK(read.peers.size() == store_rules::peers_max);
  CHECK(read.peers.front() == peers.front());
}

TEST_CASE("bad entries of a stored peer table are skipped, the others count") {
  const auto good = R"({"node_id":")" + id_of(1) + R"(","address":"[::1]:9000","seen_unix_us":5})";
  const auto with = [&](const std::string& entry) {
    return decode_peers(table_with(entry + "," + good), 100);
  };
  for (const std::string entry :
       {R"(null)", R"(7)", R"({})", R"({"node_id":"xyz","address":"a:1","seen_unix_us":1})",
        R"({"node_id":5,"address":"a:1","seen_unix_us":1})",
        R"({"node_id":"0000000000000000000000000000000f","address":"a","seen_unix_us":1})",
        R"({"node_id":"0000000000000000000000000000000f","address":"a:0","seen_unix_us":1})",
        R"({"node_id":"0000000000000000000000000000000f","address":"a:65536","seen_unix_us":1})",
        R"({"node_id":"0000000000000000000000000000000f","address":"a b:1","seen_unix_us":1})",
        R"({"node_id":"0000000000000000000000000000000f","address":":1","seen_unix_us":1})",
        R"({"node_id":"0000000000000000000000000000000f","address":"a:1"})",
        R"({"node_id":"0000000000000000000000000000000f","address":"a:1","seen_unix_us":-1})",
        R"({"node_id":"0000000000000000000000000000000f","address":"a:1","seen_unix_us":1e300})"}) {
    INFO(entry);
    const auto read = with(entry);
    CHECK(read.skipped == 1);
    REQUIRE(read.peers.size() == 1);
    CHECK(read.peers[0] == stored_peer{id_of(1), "[::1]:9000", 5});
  }
  CHECK(with(good).skipped == 1); // the second of one id
}

TEST_CASE("what is no peer table holds no peers") {
  for (const std::string text : {"", "{", "[]", "7", R"({"version":2,"peers":[]})", R"({"version":1})",
                                 R"({"version":1,"peers":{}})", R"({"peers":[]})", "\x00\xff"}) {
    INFO(text);
    const auto read = decode_peers(text, now_us);
    CHECK(read.peers.empty());
    CHECK_FALSE(read.fault.empty());
  }
  CHECK_FALSE(decode_peers(std::string(200'000, '['), now_us).fault.empty());
}

TEST_CASE("a peer that was not seen for a month is forgotten, one from the future was seen now") {
  const auto read = decode_peers(encode_peers({peer_of(1, store_rules::kept_us + 1),
                                               peer_of(2, store_rules::kept_us), peer_of(3, -5'000'000)}),
                                 now_us);
  REQUIRE(read.peers.size() == 2);
  CHECK(read.peers[0] == peer_of(3));
  CHECK(read.peers[1] == peer_of(2, store_rules::kept_us));
  CHECK(read.skipped == 0);
}

TEST_CASE("the peer table's file is private and replaced as a whole") {
  const folder in;
  const auto path = in.path + "/peers.json";
  CHECK(read_peers_file(path, now_us).empty());
  REQUIRE(write_peers_file(path, encode_peers({peer_of(1)})));
  std::ofstream(path + ".new") << "left by a process that was killed";
  REQUIRE(write_peers_file(path, encode_peers({peer_of(2)})));
  struct stat info {};
  REQUIRE(::stat(path.c_str(), &info) == 0);
  CHECK((info.st_mode & 0777) == 0600);
  CHECK(read_peers_file(path, now_us) == std::vector<stored_peer>{peer_of(2)});
  const std::filesystem::directory_iterator all(in.path);
  CHECK(std::distance(begin(all), end(all)) == 1);
  CHECK_FALSE(write_peers_file(in.path + "/missing/peers.json", "x"));
}

TEST_CASE("a peer table that is too long, a link or a folder is not read") {
  const folder in;
  const auto path = in.path + "/peers.json";
  std::ofstream(path) << encode_peers({peer_of(1)}) << std::string(store_rules::bytes_max, ' ');
  CHECK(read_peers_file(path, now_us).empty());
  REQUIRE(write_peers_file(in.path + "/elsewhere", encode_peers({peer_of(1)})));
  std::filesystem::remove(path);
  std::filesystem::create_symlink(in.path + "/elsewhere", path);
  CHECK(read_peers_file(path, now_us).empty());
  CHECK(read_peers_file(in.path, now_us).empty());
}

TEST_CASE("an address is a host and a port") {
  CHECK(split_address("example.org:9000") == std::pair<std::string, uint16_t>("example.org", 9000));
  CHECK(split_address("[fe80::1%eth0]:1") == std::pair<std::string, uint16_t>("fe80::1%eth0", 1));
  for (const auto* text : {"", ":", "a:", "a:x", "a:1x", "::1:9000", "[]:1", "a\n:1", "a:-1"})
    CHECK_FALSE(split_address(text).has_value());
  CHECK_FALSE(split_address(std::string(300, 'a') + ":1").has_value());
}

#include "gateway/grpc/admission.hpp"
#include "gateway/grpc/callers.hpp"
#include "gateway/grpc/replies.hpp"
#include "tests/gateway/grpc/buffers.hpp"
#include "tests/support/manual_clock.hpp"
#include "tests/support/test.hpp"

using namespace neuroshard;
using namespace neuroshard::rpc;
using test::buffer_of;
using test::text_of;

namespace {

kernels::digest hash_of(const char* text) {
  return kernels::sha256::of(std::string_view(text));
}

} // namespace

TEST_CASE("a certificate belongs to the node that announced it, until a later word of that node") {
  caller_table callers;
  callers.bind(hash_of("a"), "node-1", 5);
  CHECK(callers.node_of(hash_of("a")) == "node-1");
  CHECK(callers.node_of(hash_of("b")).empty());
  callers.bind(hash_of("b"), "node-1", 5); // no later word
  CHECK(callers.node_of(hash_of("b")).empty());
  callers.bind(hash_of("b"), "node-1", 6);
  CHECK(callers.node_of(hash_of("b")) == "node-1");
  CHECK(callers.node_of(hash_of("a")).empty());
  callers.bind(hash_of("b"), "node-2", 1); // the same certificate under another name
  CHECK(callers.node_of(hash_of("b")) == "node-2");
  callers.unbind("node-1");
  CHECK(callers.node_of(hash_of("b")) == "node-2");
  callers.unbind("node-2");
  CHECK(callers.size() == 0);
}

TEST_CASE("a peer has 64 calls at once and all together 256") {
  const auto clock = std::make_shared<test::manual_clock>();
  admission limits{clock};
  for (int i = 0; i < 64; ++i)
    REQUIRE_FALSE(limits.enter("a", call_class::other).has_value());
  CHECK(limits.enter("a", call_class::other).has_value());
  limits.leave("a");
  CHECK_FALSE(limits.enter("a", call_class::other).has_value());
  for (const char* peer : {"b", "c", "d"})
    for (int i = 0; i < 64; ++i)
      REQUIRE_FALSE(limits.enter(peer, call_class::other).has_value());
  CHECK(limits.enter("e", call_class::other).has_value());
  CHECK(limits.running() == 256);
  limits.leave("e"); // never was in
  CHECK(limits.running() == 256);
}

TEST_CASE("a peer pings 60 times a minute, and is told when to come back") {
  const auto clock = std::make_shared<test::manual_clock>();
  admission limits{clock};
  const auto ping = [&] {
    const auto refused = limits.enter("a", call_class::ping);
    if (!refused)
      limits.leave("a");
    return refused;
  };
  for (int i = 0; i < 60; ++i)
    REQUIRE_FALSE(ping().has_value());
  CHECK(ping() == 1'000);
  CHECK_FALSE(limits.enter("a", call_class::other).has_value());
  clock->advance_us(400'000);
  CHECK(ping() == 600);
  clock->advance_us(600'000);
  CHECK_FALSE(ping().has_value());
  CHECK(ping().has_value());
  CHECK_FALSE(limits.enter("b", call_class::ping).has_value());
}

TEST_CASE("a repeated call gets the first one's reply: while it runs, and for a minute after") {
  const auto clock = std::make_shared<test::manual_clock>();
  reply_store replies{clock};
  const reply_store::key key{"a", "Ping", "0123456789abcdef", hash_of("bytes")};
  std::vector<std::string> heard;
  const auto hear = [&](const grpc::Status& status, const grpc::ByteBuffer& reply) {
    heard.push_back(status.ok() ? text_of(reply) : status.error_message());
  };
  CHECK(replies.begin(key, hear));
  CHECK_FALSE(replies.begin(key, hear));
  CHECK(heard.empty());
  replies.done(key, grpc::Status::OK, buffer_of("one"));
  CHECK(heard == std::vector<std::string>{"one"});
  CHECK_FALSE(replies.begin(key, hear));
  CHECK(heard == std::vector<std::string>{"one", "one"});
  // Any difference is another call.
  for (auto other : {reply_store::key{"b", key.method, key.request_id, key.bytes},
                     reply_store::key{key.caller, "Announce", key.request_id, key.bytes},
                     reply_store::key{key.caller, key.method, "another-request-", key.bytes},
                     reply_store::key{key.caller, key.method, key.request_id, hash_of("other")}}) {
    CHECK(replies.begin(other, hear));
    replies.done(other, {grpc::StatusCode::UNAVAILABLE, "no"}, {});
    CHECK(replies.begin(other, hear)); // what failed is run again
    replies.done(other, {grpc::StatusCode::UNAVAILABLE, "no"}, {});
  }
  clock->advance_s(60);
  CHECK(replies.begin(key, hear));
  CHECK_FALSE(replies.begin(key, hear));
  replies.done(key, {grpc::StatusCode::INTERNAL, "broken"}, {});
  CHECK(heard.back() == "broken");
}

TEST_CASE("stored replies are small and few") {
  const auto clock = std::make_shared<test::manual_clock>();
  reply_store replies{clock};
  const auto hear = [](const grpc::Status&, const grpc::ByteBuffer&) {};
  const auto key_of = [](int i) { return reply_store::key{"a", "m", std::to_string(i), {}}; };
  CHECK(replies.begin(key_of(0), hear));
  replies.done(key_of(0), grpc::Status::OK, buffer_of(std::string(65'537, 'x')));
  CHECK(replies.stored_bytes() == 0);
  CHECK(replies.begin(key_of(0), hear));
  replies.done(key_of(0), grpc::Status::OK, buffer_of("x"));
  const auto large = buffer_of(std::string(65'536, 'x'));
  for (int i = 1; i < 1'200; ++i) {
    REQUIRE(replies.begin(key_of(i), hear));
    replies.done(key_of(i), grpc::Status::OK, large);
    REQUIRE_FALSE(replies.begin(key_of(0), hear)); // used, so it stays
  }
  CHECK(replies.stored_bytes() <= 64 * 1024 * 1024);
  CHECK(replies.begin(key_of(1), hear)); // the least recently used went
  CHECK_FALSE(replies.begin(key_of(1'199), hear));
}

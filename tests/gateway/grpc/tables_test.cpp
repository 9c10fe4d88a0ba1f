#include "actors/common/error.hpp"
#include "gateway/grpc/admission.hpp"
#include "gateway/grpc/callers.hpp"
#include "gateway/grpc/certificate.hpp"
#include "gateway/grpc/replies.hpp"
#include "tests/gateway/grpc/buffers.hpp"
#include "tests/kernels/text/temporary_directory.hpp"
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
  const reply_store::key key{"a", "Ping", "0123456789abcdef"};
  const auto bytes = buffer_of("bytes");
  std::vector<std::string> heard;
  const auto hear = [&](const caf::error& why, const grpc::ByteBuffer& reply) {
    heard.push_back(why ? problem_of(why).reason : text_of(reply));
  };
  const auto first = replies.begin(key, bytes, hear);
  REQUIRE(first);
  CHECK_FALSE(replies.begin(key, bytes, hear));
  CHECK(heard.empty());
  replies.done(first, {}, buffer_of("one"));
  CHECK(heard == std::vector<std::string>{"one"});
  CHECK_FALSE(replies.begin(key, bytes, hear));
  CHECK(heard == std::vector<std::string>{"one", "one"});
  problem no;
  no.reason = "no_reason";
  const auto failed = refuse(errc::unavailable, no);
  // Any difference is another call.
  for (const auto& [other, with] : {std::pair{reply_store::key{"b", key.method, key.request_id}, bytes},
                                    {reply_store::key{key.caller, "Announce", key.request_id}, bytes},
                                    {reply_store::key{key.caller, key.method, "another-request-"}, bytes},
                                    {key, buffer_of("other")}}) {
    for (int twice = 0; twice < 2; ++twice) { // what failed is run again
      const auto run = replies.begin(other, with, hear);
      REQUIRE(run);
      replies.done(run, failed, {});
    }
  }
  clock->advance_s(60);
  const auto again = replies.begin(key, bytes, hear);
  REQUIRE(again);
  CHECK_FALSE(replies.begin(key, bytes, hear));
  const auto beside = replies.begin(key, buffer_of("other"), hear); // runs beside it
  REQUIRE(beside);
  CHECK(heard.size() == 2);
  replies.done(again, failed, {});
  CHECK(heard.back() == "no_reason"); // who joined hears the reason too
  CHECK_FALSE(replies.begin(key, buffer_of("other"), hear));
  replies.done(beside, {}, buffer_of("two"));
  CHECK(heard.back() == "two");
}

TEST_CASE("stored replies are small and few") {
  const auto clock = std::make_shared<test::manual_clock>();
  reply_store replies{clock};
  const auto hear = [](const caf::error&, const grpc::ByteBuffer&) {};
  const auto request = buffer_of("request");
  const auto begin = [&](int i) { return replies.begin({"a", "m", std::to_string(i)}, request, hear); };
  auto first = begin(0);
  REQUIRE(first);
  replies.done(first, {}, buffer_of(std::string(65'537, 'x')));
  CHECK(replies.stored_bytes() == 0);
  first = begin(0);
  REQUIRE(first);
  replies.done(first, {}, buffer_of("x"));
  const auto large = buffer_of(std::string(65'536, 'x'));
  for (int i = 1; i < 1'200; ++i) {
    const auto run = begin(i);
    REQUIRE(run);
    replies.done(run, {}, large);
    REQUIRE_FALSE(begin(0)); // used, so it stays
  }
  CHECK(replies.stored_bytes() <= 64 * 1024 * 1024);
  CHECK(begin(1)); // the least recently used went
  CHECK_FALSE(begin(1'199));
}

TEST_CASE("a caller's certificate is known by its text") {
  test::temporary_directory folder;
  const auto made = load_or_make_certificate(folder.path());
  REQUIRE(static_cast<bool>(made));
  certificate_hashes hashes;
  for (int twice = 0; twice < 2; ++twice)
    CHECK(hashes.hash_of(made->certificate_pem) == made->sha256);
  CHECK_FALSE(hashes.hash_of("no certificate").has_value());
}

#include "kernels/model/session_table.hpp"
#include "tests/support/test.hpp"

#include <random>
#include <set>

using namespace neuroshard::model;

namespace {
session_time at(int seconds) {
  return session_time{} + std::chrono::seconds(seconds);
}
} // namespace

TEST_CASE("sessions take blocks as they grow and give them back when cut or released") {
  session_table table(4, 10, 8);
  session* a = table.create("a", nullptr, at(1));
  REQUIRE(a != nullptr);
  CHECK(table.reserve(*a, 17));
  CHECK(a->blocks == 2);
  a->length = 17;
  CHECK(table.reserve(*a, 32));
  CHECK(a->blocks == 2);
  CHECK(table.reserve(*a, 33));
  CHECK(table.blocks_free() == 7);
  a->length = 33;
  table.truncate(*a, 16);
  CHECK(a->length == 16);
  CHECK(a->blocks == 1);
  table.truncate(*a, 40); // no growth
  CHECK(a->length == 16);
  CHECK_FALSE(table.reserve(*a, 8 * 16 + 1)); // beyond a session's row
  CHECK(table.release("a"));
  CHECK_FALSE(table.release("a"));
  CHECK(table.blocks_free() == 10);
  CHECK_FALSE(table.was_evicted("a"));
}

TEST_CASE("the oldest idle session makes room, a busy one never does") {
  session_table table(3, 6, 6);
  session* a = table.create("a", nullptr, at(1));
  session* b = table.create("b", nullptr, at(2));
  CHECK(table.reserve(*a, 32));
  CHECK(table.reserve(*b, 32));
  session* c = table.create("c", nullptr, at(3));
  a->busy = true;
  CHECK(table.reserve(*c, 64)); // needs 4, 2 are free: b goes
  CHECK(table.find("b") == nullptr);
  CHECK(table.was_evicted("b"));
  CHECK(table.find("a") == a);
  CHECK_FALSE(table.reserve(*c, 80)); // only a is left and it is busy
  CHECK(c->blocks == 4);
  session* d = table.create("d", nullptr, at(4));
  REQUIRE(d != nullptr);
  session* e = table.create("e", nullptr, at(5)); // no slot: c is the oldest idle
  REQUIRE(e != nullptr);
  CHECK(table.was_evicted("c"));
  d->busy = e->busy = true;
  CHECK(table.create("f", nullptr, at(6)) == nullptr);
  // A busy session that is released goes when its call ends.
  CHECK(table.release("a"));
  CHECK(table.find("a") != nullptr);
  table.settle(*a);
  CHECK(table.find("a") == nullptr);
  // A name comes back.
  CHECK(table.create("c", nullptr, at(7)) != nullptr);
  CHECK_FALSE(table.was_evicted("c"));
}

TEST_CASE("a session that was used lately makes no room, neither blocks nor a place") {
  session_table table(2, 6, 6, std::chrono::seconds(30));
  session* a = table.create("a", nullptr, at(1));
  CHECK(table.reserve(*a, 64, at(1)));
  session* b = table.create("b", nullptr, at(2));
  CHECK_FALSE(table.reserve(*b, 48, at(2))); // needs 3, 2 are free, and a is generating
  CHECK(table.find("a") == a);
  CHECK(a->blocks == 4);
  CHECK(table.reserve(*b, 32, at(2)));
  CHECK(table.create("c", nullptr, at(30)) == nullptr);
  CHECK(table.reserve(*b, 48, at(31))); // a was left alone for 30 s
  CHECK(table.was_evicted("a"));
  b->last_use = at(31);
  CHECK(table.create("c", nullptr, at(32)) != nullptr);
  CHECK(table.create("d", nullptr, at(60)) == nullptr);
  CHECK(table.create("d", nullptr, at(61)) != nullptr);
  CHECK(table.was_evicted("b"));
}

TEST_CASE("idle sessions expire") {
  session_table table(4, 8, 4);
  table.create("a", nullptr, at(1));
  table.create("b", nullptr, at(5));
  table.create("c", nullptr, at(2))->busy = true;
  CHECK(table.expire(at(4)) == 1);
  CHECK(table.find("a") == nullptr);
  CHECK(table.size() == 2);
}

TEST_CASE("blocks are never lost or owned twice, whatever happens") {
  std::mt19937_64 random(11);
  session_table table(5, 23, 9);
  for (int i = 0; i < 5000; ++i) {
    const std::string id(1, static_cast<char>('a' + random() % 9));
    session* s = table.find(id);
    if (s == nullptr)
      s = table.create(id, nullptr, at(i));
    switch (random() % 4) {
    case 0:
    case 1: {
      const auto wanted = static_cast<int64_t>(random() % 150);
      s->busy = true;
      if (table.reserve(*s, wanted))
        s->length = std::max(s->length, wanted);
      s->busy = false;
      break;
    }
    case 2:
      table.truncate(*s, static_cast<int64_t>(random() % 100));
      break;
    default:
      CHECK(table.release(id));
    }
    std::set<int32_t> owned;
    int64_t count = 0;
    for (char c = 'a'; c < 'a' + 9; ++c)
      if (const session* held = table.find(std::string(1, c))) {
        const session_table& read_only = table;
        for (int64_t b = 0; b < held->blocks; ++b)
          owned.insert(read_only.row(*held)[b]);
        count += held->blocks;
      }
    REQUIRE(static_cast<int64_t>(owned.size()) == count);
    REQUIRE(count + table.blocks_free() == 23);
  }
}

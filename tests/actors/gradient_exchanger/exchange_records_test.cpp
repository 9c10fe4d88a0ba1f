#include "actors/gradient_exchanger/exchange_records.hpp"

#include "actors/identity/wire.hpp"
#include "tests/actors/gradient_exchanger/exchange_fixture.hpp"

using namespace neuroshard;
using namespace neuroshard::exchange_tests;

namespace {

constexpr int64_t record_now_ms = 1'800'000'000'000;

node_identity author(uint32_t instance = 0) {
  auto token = parse_token(std::string(64, 'a'));
  REQUIRE(static_cast<bool>(token));
  auto made = node_identity::make(*token, instance, record_now_ms);
  REQUIRE(static_cast<bool>(made));
  return std::move(*made);
}

delta_manifest manifest_of(const node_identity& by, size_t parts = 3) {
  delta_manifest made;
  made.unit = "layer.17";
  made.round = 12;
  made.base_round = 11;
  made.base_unit_hash = kernels::sha256::of("base");
  made.architecture_id = "0123456789abcdef";
  made.node_id = by.node_id();
  made.inner_steps = 500;
  made.batches = 498;
  made.tokens = 2'000'000;
  made.loss = 3.25;
  made.encoding = delta_encoding::dense_i4;
  std::vector<delta_part> bytes;
  for (size_t i = 0; i < parts; ++i)
    bytes.push_back(std::make_shared<const std::string>("part " + std::to_string(i)));
  seal_parts(made, bytes);
  made.created_unix_ms = record_now_ms;
  return made;
}

delta_set set_of(const node_identity& by) {
  delta_set made;
  made.unit = "embed";
  made.round = 12;
  made.base_unit_hash = kernels::sha256::of("base");
  made.collector = by.node_id();
  made.members = {{node_name(1), kernels::sha256::of("1")}, {node_name(2), kernels::sha256::of("2")}};
  made.refused = {{node_name(3), kernels::sha256::of("3"), "not_finite"}};
  made.created_unix_ms = record_now_ms;
  return made;
}

template <class Change>
std::string manifest_refused(Change change) {
  auto what = manifest_of(author());
  change(what);
  const auto read = decode_delta_manifest(encode_delta_manifest(what));
  return read ? "" : problem_of(read.error()).field;
}

template <class Change>
std::string set_refused(Change change) {
  auto what = set_of(author());
  change(what);
  const auto read = decode_delta_set(encode_delta_set(what));
  return read ? "" : problem_of(read.error()).field;
}

} // namespace

TEST_CASE("signed records come back as they were") {
  const auto by = author();
  for (const size_t parts : {size_t{1}, delta_parts_max}) {
    const auto manifest = manifest_of(by, parts);
    const auto opened = open_delta_manifest(sign_delta_manifest(by, manifest), record_now_ms);
    REQUIRE(static_cast<bool>(opened));
    CHECK(*opened == manifest);
  }
  const auto set = set_of(by);
  const auto opened_set = open_delta_set(sign_delta_set(by, set), record_now_ms);
  REQUIRE(static_cast<bool>(opened_set));
  CHECK(*opened_set == set);
  const round_end end{12, "0123456789abcdef", by.node_id(), 500, record_now_ms};
  const auto opened_end = open_round_end(sign_round_end(by, end), record_now_ms);
  REQUIRE(static_cast<bool>(opened_end));
  CHECK(*opened_end == end);
}

TEST_CASE("a record has the bytes the wire format says") {
  const round_end end{300, "0123456789abcdef", std::string(32, 'a'), 500, 1};
  CHECK(encode_round_end(end) == "\x08\xac\x02\x12\x10"
                                 "0123456789abcdef\x1a\x20" +
                                     std::string(32, 'a') + "\x20\xf4\x03\x28\x01");
}

TEST_CASE("a record in another's name, or signed for another purpose, is refused") {
  const auto by = author();
  const auto other = author(1);
  CHECK(reason_of(open_delta_manifest(sign_delta_manifest(other, manifest_of(by)), record_now_ms).error()) ==
        "wrong_signer");
  CHECK(reason_of(open_delta_set(sign_delta_set(other, set_of(by)), record_now_ms).error()) ==
        "wrong_signer");
  const round_end end{12, "0123456789abcdef", by.node_id(), 500, record_now_ms};
  CHECK(reason_of(open_round_end(sign_round_end(other, end), record_now_ms).error()) == "wrong_signer");
  auto blob = sign_delta_manifest(by, manifest_of(by));
  blob.payload.back() = static_cast<char>(blob.payload.back() ^ 1);
  CHECK(reason_of(open_delta_manifest(blob, record_now_ms).error()) == "bad_signature");
  CHECK(reason_of(open_round_end(by.sign_as_node(set_tag, encode_round_end(end)), record_now_ms).error()) ==
        "bad_signature");
}

TEST_CASE("manifests out of their bounds are refused by field") {
  CHECK(manifest_refused([](delta_manifest&) {}).empty());
  CHECK(manifest_refused([](delta_manifest& m) { m.unit = "layer.01"; }) == "unit");
  CHECK(manifest_refused([](delta_manifest& m) { m.unit = "body"; }) == "unit");
  CHECK(manifest_refused([](delta_manifest& m) { m.unit.clear(); }) == "unit");
  CHECK(manifest_refused([](delta_manifest& m) { m.architecture_id = "xyz"; }) == "architecture_id");
  CHECK(manifest_refused([](delta_manifest& m) { m.node_id.pop_back(); }) == "node_id");
  CHECK(manifest_refused([](delta_manifest& m) { m.encoding = static_cast<delta_encoding>(5); }) ==
        "encoding");
  CHECK(manifest_refused([](delta_manifest& m) { m.encoding = static_cast<delta_encoding>(0); }) ==
        "encoding");
  CHECK(manifest_refused([](delta_manifest& m) { m.content_hash = {}; }) == "content_hash");
  CHECK(manifest_refused([](delta_manifest& m) { std::swap(m.part_sha256[0], m.part_sha256[1]); }) ==
        "content_hash");
  CHECK(manifest_refused([](delta_manifest& m) { seal_parts(m, {}); }) == "part_sha256");
  CHECK(manifest_refused([](delta_manifest& m) { m.part_sha256.resize(delta_parts_max + 1); }) == "manifest");
  CHECK(manifest_refused([](delta_manifest& m) { m.created_unix_ms = -1; }) == "manifest");
}

TEST_CASE("sets out of their bounds are refused by field") {
  CHECK(set_refused([](delta_set&) {}).empty());
  CHECK(set_refused([](delta_set& s) { s.members.clear(); }).empty());
  CHECK(set_refused([](delta_set& s) { s.unit = "tail"; }) == "unit");
  CHECK(set_refused([](delta_set& s) { s.collector = "me"; }) == "collector");
  CHECK(set_refused([](delta_set& s) { std::swap(s.members[0], s.members[1]); }) == "members");
  CHECK(set_refused([](delta_set& s) { s.members[1] = s.members[0]; }) == "members");
  CHECK(set_refused([](delta_set& s) { s.members[0].node_id = "x"; }) == "set");
  CHECK(set_refused([](delta_set& s) { s.refused[0].reason = "Not a word!"; }) == "set");
  CHECK(set_refused([](delta_set& s) { s.refused[0].reason.clear(); }) == "set");
  CHECK(set_refused([](delta_set& s) { s.refused.resize(set_members_max + 1, s.refused[0]); }) == "set");
  CHECK(set_refused([](delta_set& s) {
          s.members.clear();
          for (uint64_t i = 0; i <= set_members_max; ++i)
            s.members.push_back({node_name(i), {}});
        }) == "set");
}

TEST_CASE("a part is known by its hash and its place") {
  const auto manifest = manifest_of(author());
  CHECK(is_part(manifest, 1, "part 1"));
  CHECK_FALSE(is_part(manifest, 0, "part 1"));
  CHECK_FALSE(is_part(manifest, 3, "part 1"));
  CHECK_FALSE(is_part(manifest, ~uint32_t{0}, "part 1"));
}

TEST_CASE("random changes of records never crash, and what is taken is in its bounds") {
  INFO("NEUROSHARD_TEST_SEED=" << seed());
  draws from(41);
  const auto by = author();
  const round_end end{12, "0123456789abcdef", by.node_id(), 500, record_now_ms};
  const std::string valid[] = {encode_delta_manifest(manifest_of(by)), encode_delta_set(set_of(by)),
                               encode_round_end(end)};
  for (int round = 0; round < 6'000; ++round) {
    auto bytes = valid[round % 3];
    for (auto changes = 1 + from.below(4); changes > 0; --changes)
      bytes[from.below(bytes.size())] = static_cast<char>(from.below(256));
    if (from.below(4) == 0)
      bytes.resize(from.below(bytes.size() + 1));
    if (const auto manifest = decode_delta_manifest(bytes))
      CHECK(encode_delta_manifest(*manifest).size() <= exchange_record_bytes_max);
    if (const auto set = decode_delta_set(bytes))
      CHECK(set->members.size() <= set_members_max);
    decode_round_end(bytes);
  }
  CHECK_FALSE(static_cast<bool>(decode_delta_set(std::string(exchange_record_bytes_max + 1, '\0'))));
}

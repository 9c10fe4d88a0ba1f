#include "actors/ledger/records.hpp"

#include "actors/ledger/canonical_text.hpp"
#include "actors/ledger/utc_date.hpp"
#include "tests/support/test.hpp"

#include <string>

using namespace neuroshard;

namespace {

transaction sample() {
  transaction of;
  of.seq = 7;
  of.kind = transaction_kind::transfer;
  of.from = "0xd72992fd962a53bbab62f8710b11e0f78b7c44fc";
  of.to = "0x00000000000000000000000000000000000000f1";
  of.amount = {250 * atto_per_neuro};
  of.fee = {atto_per_neuro / 4};
  of.burned = of.fee;
  of.nonce = 3;
  of.timestamp_us = 1'768'435'230'000'000;
  of.memo = "rent=May\n100%";
  return of;
}

} // namespace

TEST_CASE("the canonical payload is the text that the specification describes") {
  const std::string zeros(64, '0');
  CHECK(canonical_payload(sample(), {}) == "neuroshard-tx-v1\n"
                                           "chain_id=" +
                                               zeros +
                                               "\n"
                                               "kind=transfer\n"
                                               "from=0xd72992fd962a53bbab62f8710b11e0f78b7c44fc\n"
                                               "to=0x00000000000000000000000000000000000000f1\n"
                                               "amount=250000000000000000000\n"
                                               "fee=250000000000000000\n"
                                               "burned=250000000000000000\n"
                                               "nonce=3\n"
                                               "timestamp=1768435230000000\n"
                                               "memo=rent%3DMay%0A100%25\n"
                                               "refs=\n"
                                               "public_key=\n");
}

TEST_CASE("every field of a transaction is part of its payload") {
  const std::string plain = canonical_payload(sample(), {});
  const auto differs = [&](auto change) {
    transaction of = sample();
    change(of);
    return canonical_payload(of, {}) != plain;
  };
  CHECK(differs([](auto& t) { t.kind = transaction_kind::stake; }));
  CHECK(differs([](auto& t) { t.from.back() = 'd'; }));
  CHECK(differs([](auto& t) { t.to.clear(); }));
  CHECK(differs([](auto& t) { t.amount.atto += 1; }));
  CHECK(differs([](auto& t) { t.fee.atto += 1; }));
  CHECK(differs([](auto& t) { t.burned.atto += 1; }));
  CHECK(differs([](auto& t) { t.nonce += 1; }));
  CHECK(differs([](auto& t) { t.timestamp_us += 1; }));
  CHECK(differs([](auto& t) { t.memo += "x"; }));
  CHECK(differs([](auto& t) { t.refs.push_back({"proof", "a"}); }));
  CHECK(differs([](auto& t) { t.key = public_key{}; }));
  CHECK(canonical_payload(sample(), kernels::sha256::of(std::string_view("x"))) != plain);
}

TEST_CASE("the row hash binds place, payload, signature and postings, in whatever order these are given") {
  const kernels::digest previous = kernels::sha256::of(std::string_view("p"));
  const posting a{"0xa", account_part::available, true, {5}}, b{"burn", account_part::available, false, {5}};
  const auto plain = row_hash(previous, 1, "payload", std::nullopt, postings_hash({a, b}));
  CHECK(row_hash(previous, 1, "payload", std::nullopt, postings_hash({b, a})) == plain);
  CHECK(row_hash(previous, 2, "payload", std::nullopt, postings_hash({a, b})) != plain);
  CHECK(row_hash({}, 1, "payload", std::nullopt, postings_hash({a, b})) != plain);
  CHECK(row_hash(previous, 1, "payloae", std::nullopt, postings_hash({a, b})) != plain);
  CHECK(row_hash(previous, 1, "payload", signature{}, postings_hash({a, b})) != plain);
  CHECK(row_hash(previous, 1, "payload", std::nullopt, postings_hash({a})) != plain);
  posting c = b;
  c.part = account_part::pending;
  CHECK(row_hash(previous, 1, "payload", std::nullopt, postings_hash({a, c})) != plain);
  c = b;
  c.negative = true;
  CHECK(row_hash(previous, 1, "payload", std::nullopt, postings_hash({a, c})) != plain);
}

TEST_CASE("percent encoding keeps any bytes") {
  std::string all;
  for (int i = 0; i < 256; ++i)
    all.push_back(static_cast<char>(i));
  CHECK(*percent_decoded(percent_encoded(all)) == all);
  CHECK(percent_encoded("Az09._-") == "Az09._-");
  CHECK(percent_encoded(" ~") == "%20%7E");
  CHECK(!percent_decoded("%"));
  CHECK(!percent_decoded("%4"));
  CHECK(!percent_decoded("%zz"));
}

TEST_CASE("references read back") {
  const reference_list refs = {{"request", "inf_1"}, {"proof", "ab"}};
  CHECK(reference_text(refs) == "request:inf_1,proof:ab");
  CHECK(*parse_references("request:inf_1,proof:ab") == refs);
  CHECK(parse_references("")->empty());
  CHECK(!parse_references("nothing"));
}

TEST_CASE("stored answers read back, and only as what they are") {
  const std::string text = canonical_writer()
                               .text("name", "a=b\nc")
                               .number("count", uint64_t{7})
                               .amount("sum", neuro_amount{9})
                               .payload();
  CHECK(text == "name=a%3Db%0Ac\ncount=7\nsum=9\n");
  const auto reads = [](std::string_view from) {
    canonical_reader in(from);
    return in.text("name") == "a=b\nc" && in.number("count") == 7 && in.amount("sum").atto == 9 && in.done();
  };
  CHECK(reads(text));
  // There is one text for each answer.
  for (const char* other :
       {"name=a%3db%0Ac\ncount=7\nsum=9\n", "name=a%3Db%0Ac\ncount=07\nsum=9\n",
        "name=a%3Db%0Ac\ncount=7\nsum=09\n", "name=a%3Db%0Ac\ncount=7\nsum=+9\n",
        "name=a%3Db%0Ac\ncount=7\nsum=\n", "name=a%3Db%0Ac\ncount=7\nsum=9",
        "name=a%3Db%0Ac\ncount=7\nsum=9\nmore=1\n", "name=a%3Db%0Ac\nsum=9\ncount=7\n", ""}) {
    CAPTURE(other);
    CHECK(!reads(other));
  }
  canonical_reader wrong(text);
  CHECK(wrong.text("other").empty());
  CHECK(!wrong.ok());
  CHECK(wrong.text("name").empty());
}

TEST_CASE("dates are those of the calendar") {
  CHECK(date_text(0) == "1970-01-01");
  CHECK(date_text(20'468) == "2026-01-15");
  CHECK(*parse_date("2026-01-15") == 20'468);
  CHECK(*parse_date("2024-02-29") - *parse_date("2024-02-28") == 1);
  CHECK(!parse_date("2026-02-29"));
  CHECK(!parse_date("2026-13-01"));
  CHECK(!parse_date("2026-1-1"));
  CHECK(!parse_date("1969-12-31"));
  CHECK(!parse_date("2026-01-15T"));
  CHECK(!parse_date(""));
  for (int32_t day = 0; day < 60'000; day += 13)
    CHECK(*parse_date(date_text(day)) == day);
  CHECK(timestamp_text(1'768'435'230'999'999) == "2026-01-15T00:00:30Z");
  CHECK(day_of(start_of_day(20'468) - 1) == 20'467);
  CHECK(day_of(-1) == -1);
}

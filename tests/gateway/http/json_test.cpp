#include "gateway/http/json.hpp"
#include "gateway/http/query.hpp"
#include "tests/support/test.hpp"

#include <limits>
#include <string>

using namespace neuroshard;
using namespace neuroshard::http;

namespace {

std::string reason_of(std::string_view text) {
  const auto parsed = parse_json(text);
  return parsed ? "ok" : problem_of(parsed.error()).reason;
}

neuro_amount amount(std::string_view text) {
  neuro_amount a;
  CHECK(parse_amount(text, amount_text::number, true, a) == amount_error::ok);
  return a;
}

} // namespace

TEST_CASE("JSON that is not strict is refused with its reason") {
  CHECK(reason_of(R"({"a":[1,2,{"b":null}],"c":"\u00e9\ud83d\ude00"})") == "ok");
  CHECK(reason_of("  [ ]  \n") == "ok");
  for (const char* bad :
       {"",     " ",           "{",          "{}x",         "{} {}",     "[1,]",  "{\"a\":1,}", "{'a':1}",
        "nul",  "NaN",         "[Infinity]", "[-Infinity]", "[01]",      "[+1]",  "[.5]",       "[1.]",
        "[1e]", "\"\\ud800\"", "\"a\nb\"",   "// c\n{}",    "{\"a\" 1}", "{1:2}", "\"\\x\""}) {
    INFO(bad);
    CHECK(reason_of(bad) == "malformed_json");
  }
  CHECK(reason_of("\"\xff\"") == "malformed_json");
  CHECK(reason_of("\"\xc0\xaf\"") == "malformed_json");     // overlong
  CHECK(reason_of("\"\xed\xa0\x80\"") == "malformed_json"); // a surrogate
  CHECK(reason_of("\"\xf4\x90\x80\x80\"") == "malformed_json");
  CHECK(reason_of(std::string_view("{}\0", 3)) == "malformed_json");
  CHECK(reason_of(std::string_view("{\"a\":\"\0\"}", 9)) == "malformed_json");
  CHECK(reason_of("\xef\xbb\xbf{}") == "malformed_json");
  CHECK(reason_of(R"({"a":1,"b":2,"a":3})") == "duplicate_key");
  CHECK(reason_of(R"({"x":{"a":1,"\u0061":3}})") == "duplicate_key");
}

TEST_CASE("nesting deeper than 32 is refused however deep it is") {
  const auto nested = [](size_t depth) { return std::string(depth, '[') + std::string(depth, ']'); };
  CHECK(reason_of(nested(32)) == "ok");
  CHECK(reason_of(nested(33)) == "too_deep");
  CHECK(reason_of(nested(10'000)) == "too_deep");
  CHECK(reason_of(std::string(500'000, '[')) == "too_deep");
  std::string objects;
  for (int i = 0; i < 10'000; ++i)
    objects += "{\"a\":";
  CHECK(reason_of(objects) == "too_deep");
}

TEST_CASE("a body of very many values is refused") {
  std::string list = "[0";
  for (int i = 0; i < 20'000; ++i)
    list += ",0";
  CHECK(reason_of(list + "]") == "too_large");
}

TEST_CASE("an integer is an integral value however it is written") {
  CHECK(integral_value("100") == 100);
  CHECK(integral_value("100.0") == 100);
  CHECK(integral_value("1e2") == 100);
  CHECK(integral_value("1.5e1") == 15);
  CHECK(integral_value("-0") == 0);
  CHECK(integral_value("-7") == -7);
  CHECK(integral_value("9223372036854775807") == INT64_MAX);
  for (const char* bad :
       {"1.5", "1e-1", "1e400", "9223372036854775808", "", "-", "abc", "1.2.3", "1e99999999999"})
    CHECK_FALSE(integral_value(bad));
  CHECK(unsigned_value("18446744073709551615") == UINT64_MAX);
  CHECK_FALSE(unsigned_value("18446744073709551616"));
  CHECK_FALSE(unsigned_value("-1"));
}

TEST_CASE("the first complaint about a field names it and what is allowed") {
  const auto body =
      parse_json(R"({"n":5,"s":"abc","r":3.5,"b":true,"l":["x",""],"deep":{"k":"v"},"null":null})");
  REQUIRE(body);
  field_reader in(*body, "p.");
  CHECK(in.integer("n", true, 1, 10) == 5);
  CHECK(in.text("s", true, 1, 3) == "abc");
  CHECK(in.boolean("b") == true);
  CHECK_FALSE(in.integer("null", false, 0, 1));
  CHECK_FALSE(in.failed());
  CHECK(in.texts("l", 4, 8).size() == 1);
  REQUIRE(in.failed());
  CHECK(problem_of(in.complaint()).field == "p.l.1");
  in.integer("n", true, 6, 10); // later complaints change nothing
  CHECK(problem_of(in.complaint()).field == "p.l.1");

  field_reader other(*body);
  CHECK_FALSE(other.real("r", 0, 2));
  const problem what = problem_of(other.complaint());
  CHECK(what.field == "r");
  CHECK(what.reason == "out_of_range");
  CHECK(std::get<double>(what.details[1].second) == 2.0);
  field_reader missing(*body);
  missing.text("absent", true, 1, 2);
  CHECK(problem_of(missing.complaint()).reason == "missing");
  const auto list = parse_json("[]");
  CHECK(problem_of(field_reader(*list).complaint()).reason == "not_an_object");
}

TEST_CASE("amounts are read by their text and printed exactly") {
  const auto read = [](const char* json) {
    const auto body = parse_json(json);
    field_reader in(*body);
    const auto a = in.amount("a", true);
    return a ? to_decimal(*a) : problem_of(in.complaint()).reason;
  };
  CHECK(read(R"({"a":0.1})") == "0.1");
  CHECK(read(R"({"a":"0.1"})") == "0.1");
  CHECK(read(R"({"a":1e-05})") == "0.00001");
  CHECK(read(R"({"a":1e+16})") == "10000000000000000.0");
  CHECK(read(R"({"a":0.1000000000000000005})") == "0.1"); // half to even
  CHECK(read(R"({"a":0.1000000000000000015})") == "0.100000000000000002");
  CHECK(read(R"({"a":"0.1000000000000000005"})") == "invalid_amount");
  for (const char* bad : {R"({"a":0})", R"({"a":-0})", R"({"a":-1})", R"({"a":"-1"})", R"({"a":1e400})",
                          R"({"a":1e41})", R"({"a":"x"})", R"({"a":""})", R"({"a":"0x10"})", R"({"a":1e-30})",
                          R"({"a":"99999999999999999999999999999999999999999"})"}) {
    INFO(bad);
    const auto body = parse_json(bad);
    if (body) {
      field_reader in(*body);
      in.amount("a", true);
      CHECK(problem_of(in.complaint()).reason == "invalid_amount");
    }
  }
  CHECK(read(R"({"a":true})") == "wrong_type");
  json_writer out;
  out.begin_list()
      .value(amount("100"))
      .value(amount("0.0168"))
      .negative(amount("2.5"))
      .negative(amount("0"))
      .end_list();
  CHECK(out.take() == "[100.0,0.0168,-2.5,0.0]");
}

TEST_CASE("doubles are finite JSON numbers with a fraction, and text is valid UTF-8") {
  json_writer out;
  out.begin_list().value(1.0).value(0.1).value(1e300).value(-0.5);
  out.value(std::numeric_limits<double>::quiet_NaN()).value(std::numeric_limits<double>::infinity());
  out.value("a\"b\\\n\x01\xff\xc3\xa9").value(uint64_t{18446744073709551615ULL}).end_list();
  CHECK(out.take() ==
        "[1.0,0.1,1e+300,-0.5,null,null,\"a\\\"b\\\\\\n\\u0001\xEF\xBF\xBD\xc3\xa9\",18446744073709551615]");
}

TEST_CASE("query parameters are decoded, checked and complained about") {
  query_reader q("limit=5&type=a%20b+c&flag=true&d=2027-01-15&empty=");
  CHECK(q.integer("limit", 10, 1, 100) == 5);
  CHECK(q.integer("offset", 7, 0, 100) == 7);
  CHECK(q.text("type") == "a b c");
  CHECK(q.boolean("flag", false));
  CHECK(q.date("d"));
  CHECK_FALSE(q.text("empty"));
  CHECK_FALSE(q.failed());
  q.integer("limit", 10, 6, 100);
  CHECK(problem_of(q.complaint()).field == "limit");
  for (const char* bad : {"a=%", "a=%2", "a=%zz", "a=1&a=2"})
    CHECK(query_reader(bad).failed());
  query_reader dates("a=2027-02-30");
  CHECK_FALSE(dates.date("a"));
  CHECK(dates.failed());
}

TEST_CASE("a number beyond any double, and a key that is there twice, are named") {
  const auto field_of = [](std::string_view text) {
    const auto parsed = http::parse_json(text);
    REQUIRE_FALSE(parsed);
    const problem what = problem_of(parsed.error());
    return what.reason + " " + what.field;
  };
  CHECK(field_of(R"({"prompt":"x","temperature":1e400})") == "out_of_range temperature");
  CHECK(field_of(R"({"temperature":-1E+999999999999})") == "out_of_range temperature");
  CHECK(field_of(R"({"a":[1,{"b":2},[0,{"c":[7,1e309]}]]})") == "out_of_range a.2.1.c.1");
  CHECK(field_of("{\"n\":1" + std::string(400, '0') + "}") == "out_of_range n");
  CHECK(field_of("1e400") == "out_of_range ");
  CHECK(field_of("[1e400]") == "out_of_range 0");
  CHECK(field_of(R"({"x":{"a":1,"b":2,"a":3}})") == "duplicate_key x.a");
  CHECK(field_of(R"({"x":{"":1,"b":2,"":3}})") == "duplicate_key x.");
  std::string wide = "a";
  for (int i = 0; i < 200; ++i)
    wide += "\xc3\xa9";
  CHECK(field_of("{\"" + wide + "\":1e400}") == "out_of_range " + wide.substr(0, 255)); // a whole character
  for (const char* small : {"1e-400", "-1e-99999999999", "1e308"})
    CHECK(reason_of(small) == "ok");
}

#include "actors/ledger/ledger_tool.hpp"

#include "tests/actors/ledger/book_fixture.hpp"

#include <algorithm>
#include <fstream>
#include <sstream>

using namespace neuroshard;
using namespace neuroshard::testing;

namespace {

struct tool : book_fixture {
  std::string out, err;
  int run(const std::vector<std::string>& args) {
    std::ostringstream to, errors;
    const int code = run_ledger_tool(args, folder, to, errors);
    out = to.str();
    err = errors.str();
    return code;
  }
};

} // namespace

TEST_CASE_FIXTURE(tool, "a book in order is said to be so, also beside the running node") {
  open();
  fund(200_neuro);
  done(send_neuro{friend_address, 10_neuro, {}, {}});
  CHECK(run({"verify"}) == 0);
  CHECK(out.find("The book is in order.") != std::string::npos);
  CHECK(out.find("chain:        " + kernels::to_hex(book->chain_id())) != std::string::npos);
  CHECK(run({"verify", "--signatures"}) == 0);
  CHECK(out.find("signatures:   1\n") != std::string::npos);
}

TEST_CASE_FIXTURE(tool, "the export has every transaction, and a memo can do no harm in it") {
  open();
  fund(200_neuro);
  done(send_neuro{friend_address, 10_neuro, "=cmd(\"x\"),\n1", {}});
  CHECK(run({"export"}) == 0);
  CHECK(static_cast<uint64_t>(std::count(out.begin(), out.end(), '\n')) == book->head().seq);
  CHECK(out.find("\"memo\":\"=cmd(\\\"x\\\"),\\u000a1\"") != std::string::npos);
  CHECK(out.find("\"amount\":\"10.0\"") != std::string::npos);
  CHECK(run({"export", "--format", "csv"}) == 0);
  CHECK(out.starts_with("seq,tx_id,kind,"));
  CHECK(out.find("\"'=cmd(\"\"x\"\"),\n1\"") != std::string::npos);
  CHECK(run({"export", "--format=csv", "--output", folder + "/book.csv"}) == 0);
  CHECK(out.empty());
  std::ifstream in(folder + "/book.csv", std::ios::binary);
  const std::string written{std::istreambuf_iterator<char>(in), {}};
  CHECK(written.starts_with("seq,"));
}

TEST_CASE_FIXTURE(tool, "bad arguments and a missing book say what is wrong") {
  CHECK(run({}) == 1);
  CHECK(run({"burn"}) == 1);
  CHECK(run({"verify", "--all"}) == 1);
  CHECK(run({"export", "--format", "xml"}) == 1);
  CHECK(run({"verify"}) == 3);
  CHECK(err.find("ledger.db") != std::string::npos);
  CHECK(run({"--help"}) == 0);
  CHECK(run({"check-proof"}) == 1);
  CHECK(run({"check-proof", "12"}) == 1);
  CHECK(run({"check-proof", std::string(64, 'a')}) == 3);
  open();
  CHECK(run({"check-proof", std::string(64, 'a')}) == 1);
  CHECK(err == "No proof of this id is in the book.\n");
}

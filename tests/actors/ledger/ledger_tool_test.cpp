#include "actors/ledger/epoch_record.hpp"
#include "actors/ledger/ledger_tool.hpp"

#include "tests/actors/ledger/book_fixture.hpp"
#include "tests/actors/ledger/receipt_fixture.hpp"

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
  /// Lines of JSON of this kind of record.
  size_t records(const std::string& kind) const {
    size_t count = 0;
    const std::string begin = "{\"record\":\"" + kind + "\",";
    for (size_t at = 0; at < out.size(); at = out.find('\n', at) + 1)
      count += out.compare(at, begin.size(), begin) == 0 ? 1 : 0;
    return count;
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
  CHECK(out.find("signatures:   3\n") != std::string::npos); // two proofs of the funds, and the transfer
}

TEST_CASE_FIXTURE(tool, "the export has every transaction, and a memo can do no harm in it") {
  open();
  fund(200_neuro);
  done(send_neuro{friend_address, 10_neuro, "=cmd(\"x\"),\n1", {}});
  CHECK(run({"export"}) == 0);
  CHECK(records("transaction") == book->head().seq);
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

TEST_CASE_FIXTURE(tool, "the export has receipts with both signatures, shares and offences") {
  open();
  fund(100_neuro);
  const auto helper = identity_of("a-helper", 1);
  const auto of = work_for(helper, *options.identity, "inf_1", 4, 10);
  const auto worker_blob = signed_by(helper, of);
  const auto driver_blob = countersigned_by(*options.identity, worker_blob);
  const auto id = kernels::to_hex(done(record_receipt{worker_blob, driver_blob}).receipt_id);
  done(reserve_inference{"inf_1", 10, 10});
  settle_inference what;
  what.request_id = "inf_1";
  what.prompt_tokens = 10;
  what.driver = what.validator = me();
  what.workers = {{helper.address(), 40, 40, id}};
  done(what);
  done(record_offence{offence_class::refuted_proof, helper.node_id(), friend_address, "evidence"});
  const auto hex = [](const std::string& bytes) {
    return kernels::to_hex(std::span(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()));
  };

  CHECK(run({"export"}) == 0);
  CHECK(records("transaction") == book->head().seq);
  CHECK(records("share") + records("receipt") + records("offence") == 5);
  const std::string receipt_line =
      "{\"record\":\"receipt\",\"receipt_id\":\"" + id + "\",\"kind\":\"inference\",\"work_id\":\"inf_1\"," +
      "\"worker_node_id\":\"" + helper.node_id() + "\",\"worker_wallet\":\"" + helper.address() +
      "\",\"driver_node_id\":\"" + options.identity->node_id() + "\",\"driver_wallet\":\"" + me() +
      "\",\"layer_begin\":2,\"layer_end\":6,\"embedding\":false,\"head\":false,\"tokens\":10,\"steps\":0," +
      "\"model_version\":7,\"started_unix_ms\":1768435200000,\"ended_unix_ms\":1768435230000,\"nonce\":" +
      "\"0102030405060708090a0b0c0d0e0f10\",\"own\":false,\"confirmed\":true,\"received\":\"" +
      timestamp_text(clock->us) + "\",\"proof_id\":\"\",\"worker_blob\":\"" + hex(worker_blob) +
      "\",\"driver_blob\":\"" + hex(driver_blob) + "\"}\n";
  CHECK(out.find(receipt_line) != std::string::npos);
  CHECK(out.find("{\"record\":\"share\",\"request_id\":\"inf_1\",\"role\":\"worker\",\"address\":\"" +
                 helper.address() + "\",\"amount\":\"0.000665\",\"receipt_id\":\"" + id + "\"}\n") !=
        std::string::npos);
  CHECK(out.find("\"class\":\"refuted_proof\",\"node_id\":\"" + helper.node_id() + "\"") !=
        std::string::npos);

  // Who has the exported bytes can check both signatures.
  const auto read = read_receipt(worker_blob, driver_blob, clock->us / 1'000);
  REQUIRE(read);
  CHECK(read->driver);

  CHECK(run({"export", "--records", "receipts"}) == 0);
  CHECK(out == receipt_line);
  CHECK(run({"export", "--format=csv", "--records=receipts"}) == 0);
  CHECK(out.starts_with("receipt_id,kind,work_id,worker_node_id,worker_wallet,"));
  CHECK(out.find("\r\n" + id + ",inference,inf_1," + helper.node_id() + "," + helper.address() + ",") !=
        std::string::npos);
  CHECK(out.ends_with(",false,true," + timestamp_text(clock->us) + ",," + hex(worker_blob) + "," +
                      hex(driver_blob) + "\r\n"));
  CHECK(run({"export", "--format=csv", "--records=offences"}) == 0);
  CHECK(out.starts_with("offence_id,class,node_id,wallet,recorded,slashed,tx_id,evidence\r\n"));
  CHECK(out.ends_with(",0.0,," + hex("evidence") + "\r\n"));
  CHECK(run({"export", "--format=csv", "--records=shares"}) == 0);
  CHECK(std::count(out.begin(), out.end(), '\n') == 4);
  CHECK(run({"export", "--records", "everything"}) == 1);
  CHECK(err.find("--records: 'everything'") != std::string::npos);
}

TEST_CASE_FIXTURE(tool, "whoever has the exported epochs and proofs can check them") {
  open();
  done(note_checkpoint{architecture, digest_of("weights"), 0});
  const auto proof = good_proof(*options.identity, book->chain_id(), architecture, clock->us);
  record_proof what;
  what.proof = options.identity->sign_as_node(proof_tag, canonical_payload(proof));
  what.segments = {{*proof.model_hash_start, proof.step_begin, proof.step_end}};
  const auto id = done(what).proof_id;
  clock->advance_s(120);
  REQUIRE(book->run_due());
  REQUIRE(!book->commit());
  CHECK(run({"verify", "--signatures"}) == 0);
  CHECK(out.find("epochs:       1\n") != std::string::npos);
  CHECK(out.find("proofs:       1\n") != std::string::npos);
  CHECK(run({"export"}) == 0);
  CHECK(records("epoch") == 1);
  CHECK(records("proof") == 1);

  CHECK(run({"export", "--format=csv", "--records=epochs"}) == 0);
  CHECK(out.starts_with("epoch_id,start,epoch_hash,payload,public_key,signature\r\n"));
  CHECK(run({"export", "--records=epochs"}) == 0);
  const auto field = [&](const std::string& name) {
    const std::string begin = "\"" + name + "\":\"";
    const size_t at = out.find(begin) + begin.size();
    std::string text = out.substr(at, out.find('"', at) - at);
    for (size_t line = 0; (line = text.find("\\u000a", line)) != std::string::npos;)
      text.replace(line, 6, "\n");
    return text;
  };
  epoch_chain_check chain({book->chain_id(), options.identity->node_public_key(), {}, {}, {}});
  digest hash{};
  signature sig{};
  REQUIRE(from_hex(field("epoch_hash"), hash.data(), hash.size()));
  REQUIRE(from_hex(field("signature"), sig.data(), sig.size()));
  CHECK(chain.next(field("payload"), hash, sig) == "");
  CHECK(run({"export", "--records=proofs"}) == 0);
  CHECK(field("proof_id") == id);
  CHECK(kernels::to_hex(proof_id_of(field("payload"))) == id);
  CHECK(field("reward") == "0.0096");
}

TEST_CASE_FIXTURE(tool, "bad arguments and a missing book say what is wrong") {
  CHECK(run({}) == 1);
  CHECK(run({"burn"}) == 1);
  CHECK(run({"verify", "--all"}) == 1);
  CHECK(run({"export", "--format", "xml"}) == 1);
  CHECK(run({"verify"}) == 3);
  CHECK(err.find("ledger.db") != std::string::npos);
  CHECK(run({"--help"}) == 0);
}

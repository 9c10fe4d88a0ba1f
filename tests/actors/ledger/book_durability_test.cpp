#include "actors/ledger/schema.hpp"
#include "actors/ledger/sqlite.hpp"
#include "tests/actors/ledger/book_fixture.hpp"

#include <sqlite3.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <fstream>
#include <random>

using namespace neuroshard;
using namespace neuroshard::testing;

namespace {

caf::error open_error(const ledger_options& options) {
  auto made = open_book(options);
  REQUIRE(!made);
  return made.error();
}

/// Changes the file by SQL, as an intruder with the file would.
void edit(const std::string& path, const std::string& sql) {
  sqlite3* db = nullptr;
  REQUIRE(sqlite3_open(path.c_str(), &db) == SQLITE_OK);
  char* message = nullptr;
  const int code = sqlite3_exec(db, sql.c_str(), nullptr, nullptr, &message);
  if (code != SQLITE_OK)
    FAIL(std::string(message));
  sqlite3_close(db);
}

bool verify_finds(const std::string& path) {
  const auto found = verify_book(path, true);
  return !found || !found->faults.empty();
}

struct used : book_fixture {
  used() {
    open();
    fund(1'500_neuro);
    done(send_neuro{friend_address, 5_neuro, "hello", {}});
    done(stake_neuro{1'000_neuro, 30, {}});
    done(reserve_inference{"inf_1", 10, 10});
    settle_inference what;
    what.request_id = "inf_1";
    what.prompt_tokens = 10;
    what.driver = what.validator = me();
    what.workers = {{friend_address, 1, 1, ""}};
    done(what);
  }
};

} // namespace

TEST_CASE_FIXTURE(used, "what was committed is there after the process vanished, what was not is gone") {
  const auto seq = book->head().seq;
  const auto before = book->own();
  REQUIRE(book->apply(send_neuro{friend_address, 7_neuro, {}, {}}));
  CHECK(book->head().seq == seq + 1);
  reopen();
  CHECK(book->head().seq == seq);
  CHECK(book->own().available == before.available);
  CHECK(book->own().staked == before.staked);
  CHECK(done(send_neuro{friend_address, 7_neuro, {}, {}}).amount == 7_neuro);
  verify(true);
}

TEST_CASE_FIXTURE(used, "a process killed at any moment loses nothing it was told and doubles nothing") {
  REQUIRE(!book->close());
  book.reset();
  std::mt19937 random(std::random_device{}());
  unsigned __int128 acknowledged =
      (5_neuro).atto + reader()->balance(friend_address)->available.atto - (5_neuro).atto;
  for (int round = 0; round < 8; ++round) {
    int pipe_ends[2];
    REQUIRE(::pipe(pipe_ends) == 0);
    const pid_t child = ::fork();
    REQUIRE(child >= 0);
    if (child == 0) {
      // The child sends one atto at a time and tells of each only after it is on disk.
      auto mine = open_book(options);
      for (int i = 0; mine && i < 100'000; ++i) {
        if (!(*mine)->apply(send_neuro{friend_address, {1}, {}, {}}) || (*mine)->commit())
          ::_exit(1);
        const char told = 1;
        if (::write(pipe_ends[1], &told, 1) != 1)
          ::_exit(1);
      }
      ::_exit(0);
    }
    ::close(pipe_ends[1]);
    uint64_t told = 0;
    const uint64_t enough = 1 + random() % 60;
    char byte = 0;
    while (told < enough && ::read(pipe_ends[0], &byte, 1) == 1)
      ++told;
    ::kill(child, SIGKILL);
    while (::read(pipe_ends[0], &byte, 1) == 1)
      ++told;
    ::close(pipe_ends[0]);
    ::waitpid(child, nullptr, 0);
    acknowledged += told;
    open();
    const auto there = reader()->balance(friend_address)->available.atto;
    // At most one more: on disk, but killed before it was told.
    CHECK(there >= acknowledged);
    CHECK(there <= acknowledged + 1);
    acknowledged = there;
    book.reset();
    verify(true);
  }
}

TEST_CASE_FIXTURE(used, "any edit of a transaction or posting is found") {
  REQUIRE(!book->close());
  verify(true);
  const std::string clean = folder + "/clean.db";
  std::filesystem::copy_file(options.path, clean);
  for (const char* sql : {
           "UPDATE transactions SET amount = x'00000000000000000000000000000001' WHERE kind = 1",
           "UPDATE transactions SET memo = 'hellp' WHERE kind = 1",
           "UPDATE transactions SET timestamp_us = timestamp_us + 1 WHERE seq = 3",
           "UPDATE transactions SET nonce = nonce + 1 WHERE kind = 1",
           "UPDATE transactions SET refs = 'request:inf_2' WHERE kind = 8",
           "UPDATE transactions SET kind = 2 WHERE kind = 1",
           "UPDATE transactions SET to_id = from_id WHERE kind = 1",
           "UPDATE transactions SET fee = zeroblob(16) WHERE kind = 1",
           "UPDATE transactions SET signature = zeroblob(64) WHERE kind = 1",
           "UPDATE transactions SET signature = NULL WHERE kind = 1",
           "UPDATE transactions SET tx_id = zeroblob(32) WHERE seq = 2",
           "UPDATE transactions SET hash = zeroblob(32) WHERE seq = (SELECT max(seq) FROM transactions)",
           // Of the first of two lines: amount, sign, part, account. Then a line less, one more, a part of
           // one.
           "UPDATE postings SET lines = substr(lines, 1, 24) || x'01' || substr(lines, 26) WHERE seq = 2",
           "UPDATE postings SET lines = substr(lines, 1, 8) || x'01' || substr(lines, 10) WHERE seq = 1",
           "UPDATE postings SET lines = substr(lines, 1, 8) || x'82' || substr(lines, 10) WHERE seq = 1",
           "UPDATE postings SET lines = substr(lines, 1, 8) || x'84' || substr(lines, 10) WHERE seq = 1",
           "UPDATE postings SET lines = substr(lines, 1, 7) || x'03' || substr(lines, 9) WHERE seq = 1",
           "UPDATE postings SET lines = substr(lines, 1, 7) || x'ff' || substr(lines, 9) WHERE seq = 1",
           "UPDATE postings SET lines = substr(lines, 1, 25) WHERE seq = 2",
           "UPDATE postings SET lines = lines || lines WHERE seq = 2",
           "UPDATE postings SET lines = substr(lines, 1, 49) WHERE seq = 2",
           "UPDATE postings SET lines = x'' WHERE seq = 2",
           "DELETE FROM postings WHERE seq = 2",
           "DELETE FROM postings WHERE seq = 4; DELETE FROM transactions WHERE seq = 4",
           "INSERT INTO postings SELECT 1 + max(seq), lines FROM postings",
           "UPDATE accounts SET available = x'00000000000000ffffffffffffffffff' WHERE id = 3",
           "UPDATE accounts SET pending = x'00000000000000000000000000000001' WHERE id = 3",
           "UPDATE accounts SET address = '0x00000000000000000000000000000000000000f9' WHERE id = 4",
           "UPDATE totals SET minted = zeroblob(16)",
           "UPDATE genesis SET created_us = created_us + 1",
           "UPDATE genesis SET wallet = '0x00000000000000000000000000000000000000f9'",
           "UPDATE reservations SET state = 0",
       }) {
    CAPTURE(std::string(sql));
    std::filesystem::copy_file(clean, options.path, std::filesystem::copy_options::overwrite_existing);
    edit(options.path, std::string("PRAGMA foreign_keys = OFF;") + sql);
    CHECK(verify_finds(options.path));
    std::filesystem::remove(options.path + "-wal");
    std::filesystem::remove(options.path + "-shm");
  }
}

TEST_CASE_FIXTURE(used, "a flipped byte in the stored transactions is found") {
  REQUIRE(!book->close());
  const std::string clean = folder + "/clean.db";
  std::filesystem::copy_file(options.path, clean);
  // Where the bytes of the transactions and postings lie: inside their cells, found by their ids and amounts.
  std::ifstream in(clean, std::ios::binary);
  const std::string bytes{std::istreambuf_iterator<char>(in), {}};
  std::vector<size_t> places;
  sqlite::connection db;
  REQUIRE(!db.open(clean, sqlite::connection::mode::read_only));
  {
    sqlite::statement read(db, "SELECT tx_id, hash, signature FROM transactions");
    for (auto row = read.query(); row.next();)
      for (int column = 0; column < 3; ++column) {
        const auto value = row.bytes(column);
        const size_t at =
            value.empty() ? std::string::npos : bytes.find(std::string(value.begin(), value.end()));
        if (at != std::string::npos)
          for (size_t i = 0; i < value.size(); i += 7)
            places.push_back(at + i);
      }
  }
  db.close();
  const size_t memo = bytes.find("hello");
  REQUIRE(memo != std::string::npos);
  for (int i = -40; i < 40; ++i)
    places.push_back(static_cast<size_t>(static_cast<int64_t>(memo) + i));
  std::mt19937 random(11);
  std::shuffle(places.begin(), places.end(), random);
  places.resize(std::min<size_t>(places.size(), 150));
  for (const size_t at : places) {
    CAPTURE(at);
    std::filesystem::remove(options.path + "-wal");
    std::filesystem::remove(options.path + "-shm");
    std::string bad = bytes;
    bad[at] = static_cast<char>(bad[at] ^ (1 << random() % 8));
    std::ofstream(options.path, std::ios::binary) << bad;
    CHECK(verify_finds(options.path));
  }
}

TEST_CASE_FIXTURE(used, "a book whose newest rows or balances were edited is not opened") {
  REQUIRE(!book->close());
  book.reset();
  edit(options.path, "UPDATE accounts SET available = x'00000000000000ffffffffffffffffff' WHERE id = 3");
  CHECK(code_of(open_error(options)) == errc::data_loss);
}

TEST_CASE_FIXTURE(used, "a file that is no book, or cut off, is refused and left as it is") {
  REQUIRE(!book->close());
  book.reset();
  const auto size = std::filesystem::file_size(options.path);
  std::filesystem::resize_file(options.path, size / 2);
  CHECK(code_of(open_error(options)) == errc::data_loss);
  CHECK(std::filesystem::file_size(options.path) == size / 2);
  std::filesystem::remove(options.path + "-wal");
  std::filesystem::remove(options.path + "-shm");
  std::ofstream(options.path, std::ios::binary | std::ios::trunc) << std::string(10'000, 'x');
  CHECK(code_of(open_error(options)) == errc::data_loss);
  std::filesystem::remove(options.path);
  edit(options.path, "CREATE TABLE something_else (x)");
  CHECK(code_of(open_error(options)) == errc::data_loss);
}

TEST_CASE_FIXTURE(used, "a book of a newer program is refused") {
  REQUIRE(!book->close());
  book.reset();
  edit(options.path, "UPDATE schema_version SET version = " + std::to_string(ledger_schema_version + 1));
  const auto why = open_error(options);
  CHECK(code_of(why) == errc::failed_precondition);
  CHECK(reason_of(why) == "newer_version");
}

TEST_CASE_FIXTURE(used, "a book of an older program is brought up to date and loses nothing") {
  const auto before = book->own();
  const auto seq = book->head().seq;
  REQUIRE(!book->close());
  book.reset();
  // What later versions added is taken away again; version 1 wrote no proofs and no epochs.
  edit(
      options.path,
      "DROP INDEX receipts_same; DROP INDEX receipts_unproven;"
      "ALTER TABLE receipts DROP COLUMN nonce; ALTER TABLE receipts DROP COLUMN driver_wallet;"
      "ALTER TABLE receipts DROP COLUMN worker_wallet; ALTER TABLE rewards DROP COLUMN slashed;"
      "ALTER TABLE unstakes DROP COLUMN slashed; DROP INDEX proofs_type; DROP TABLE proof_counts; "
      "DELETE FROM proofs; DELETE FROM epochs; UPDATE rewards SET proof_id = '';"
      "ALTER TABLE proofs DROP COLUMN refuted; CREATE INDEX rewards_claim ON rewards (node_id);"
      "ALTER TABLE postings RENAME TO joined;"
      "CREATE TABLE postings (seq INTEGER NOT NULL REFERENCES transactions, n INTEGER NOT NULL, account_id "
      "INTEGER "
      "NOT NULL REFERENCES accounts, part INTEGER NOT NULL, negative INTEGER NOT NULL, amount BLOB NOT NULL, "
      "PRIMARY KEY (seq, n)) WITHOUT ROWID;"
      "WITH RECURSIVE line(seq, n, bytes, rest) AS (SELECT seq, 0, substr(lines, 1, 25), substr(lines, 26) "
      "FROM "
      "joined UNION ALL SELECT seq, n + 1, substr(rest, 1, 25), substr(rest, 26) FROM line WHERE "
      "length(rest) > 0) "
      "INSERT INTO postings SELECT seq, n, (SELECT id FROM accounts WHERE printf('%016X', id) = "
      "hex(substr(bytes, "
      "1, 8))), substr(hex(bytes), 18, 1) + 0, substr(hex(bytes), 17, 1) = '8', substr(bytes, 10, 16) FROM "
      "line;"
      "DROP TABLE joined;"
      "UPDATE schema_version SET version = 1");
  // Who only reads does not change the file.
  CHECK(reason_of(verify_book(options.path, false).error()) == "older_version");
  CHECK(reason_of(ledger_reader::open({options.path, me(), clock, options.params, 1}).error()) ==
        "older_version");
  open();
  CHECK(book->own().available == before.available);
  CHECK(book->own().pending == before.pending);
  CHECK(book->head().seq >= seq);
  verify(true);
}

TEST_CASE_FIXTURE(used, "a book serves its own wallet and network only") {
  REQUIRE(!book->close());
  book.reset();
  auto other = options;
  auto identity = node_identity::make(*parse_token("battery-staple"), 0, 0);
  other.identity = std::make_shared<const node_identity>(std::move(*identity));
  CHECK(reason_of(open_error(other)) == "other_wallet");
  other = options;
  other.network = "test";
  CHECK(reason_of(open_error(other)) == "other_network");
  open();
}

TEST_CASE_FIXTURE(book_fixture, "a place that cannot be written is refused") {
  options.path = folder + "/none/ledger.db";
  const auto why = open_error(options);
  CHECK(code_of(why) == errc::storage);
  // Clients are told: the file's name, not where it lies.
  CHECK(problem_of(why).message.starts_with("ledger.db cannot be opened for writing"));
  CHECK(problem_of(why).message.find(folder) == std::string::npos);
  options.path = folder;
  CHECK(code_of(open_error(options)) == errc::storage);
  options.path = "/proc/ledger.db";
  CHECK(code_of(open_error(options)) == errc::storage);
}

TEST_CASE_FIXTURE(used, "a full disk stops the group, loses nothing, and ends when there is room again") {
  const auto before = book->own();
  const auto seq = book->head().seq;
  // RLIMIT_FSIZE makes every write past the file's present size fail, as a full disk does.
  std::signal(SIGXFSZ, SIG_IGN);
  const std::string memo(250, 'm');
  caf::error failed;
  {
    // The limit is set in a child, so that the test program itself is not touched.
    REQUIRE(!book->close());
    book.reset();
    const pid_t child = ::fork();
    REQUIRE(child >= 0);
    if (child == 0) {
      auto mine = open_book(options);
      if (!mine)
        ::_exit(9);
      const rlim_t most = std::filesystem::file_size(options.path) / 2;
      const struct rlimit limit { most, most };
      ::setrlimit(RLIMIT_FSIZE, &limit);
      bool stopped = false;
      for (int i = 0; i < 2'000 && !stopped; ++i) {
        const auto sent = (*mine)->apply(send_neuro{friend_address, {1}, memo, {}});
        const caf::error why = sent ? (*mine)->commit() : sent.error();
        stopped = static_cast<bool>(why);
        if (stopped && code_of(why) != errc::storage)
          ::_exit(2);
        if (!stopped) {
          const char told = 1;
          (void)!::write(STDERR_FILENO, &told, 0);
        }
      }
      ::_exit(stopped ? 0 : 3);
    }
    int status = 0;
    ::waitpid(child, &status, 0);
    REQUIRE(WIFEXITED(status));
    CHECK(WEXITSTATUS(status) == 0);
  }
  open();
  CHECK(book->head().seq >= seq);
  CHECK(book->own().staked == before.staked);
  CHECK(done(send_neuro{friend_address, 1_neuro, {}, {}}).amount == 1_neuro);
  verify(true);
}

TEST_CASE_FIXTURE(used, "the file is for its owner alone") {
  struct stat info {};
  REQUIRE(::stat(options.path.c_str(), &info) == 0);
  CHECK((info.st_mode & 0777) == 0600);
  REQUIRE(::stat((options.path + "-wal").c_str(), &info) == 0);
  CHECK((info.st_mode & 0777) == 0600);
}

TEST_CASE_FIXTURE(used, "changed parameters hold from the next minute on and leave the chain as it is") {
  const auto chain = book->chain_id();
  REQUIRE(!book->close());
  book.reset();
  options.params.transfer_fee_bp = 100;
  open();
  CHECK(book->chain_id() == chain);
  CHECK(done(send_neuro{friend_address, 1_neuro, {}, {}}).fee == 0.001_neuro);
  clock->advance_s(60);
  CHECK(done(send_neuro{friend_address, 1_neuro, {}, {}}).fee == 0.01_neuro);
  reopen();
  CHECK(done(send_neuro{friend_address, 1_neuro, {}, {}}).fee == 0.01_neuro);
  verify(true);
}

TEST_CASE_FIXTURE(used, "a closed book takes nothing more") {
  REQUIRE(!book->close());
  const auto late = book->apply(send_neuro{friend_address, 1_neuro, {}, {}});
  REQUIRE(!late);
  CHECK(code_of(late.error()) == errc::draining);
  CHECK(!book->close());
}

TEST_CASE_FIXTURE(used, "a closed book is whole in its one file, also while a reader has it open") {
  const auto seq = book->head().seq;
  const auto open_reader = reader();
  REQUIRE(open_reader->balance());
  REQUIRE(!book->close());
  const std::string copy = folder + "/copy.db";
  {
    std::ifstream from(options.path, std::ios::binary);
    std::ofstream(copy, std::ios::binary) << from.rdbuf();
  }
  const auto found = verify_book(copy, true);
  REQUIRE(found);
  CHECK(found->faults.empty());
  CHECK(found->transactions == seq);
}

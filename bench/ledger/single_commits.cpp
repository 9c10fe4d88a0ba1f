#include "bench/ledger/single_commits.hpp"

#include <sqlite3.h>

#include <array>
#include <chrono>

namespace neuroshard::bench {

std::vector<double> single_commits(const std::string& path, uint64_t transfers) {
  sqlite3* db = nullptr;
  std::vector<double> seconds;
  bool ok = sqlite3_open(path.c_str(), &db) == SQLITE_OK;
  const auto run = [&](const char* sql) {
    ok = ok && sqlite3_exec(db, sql, nullptr, nullptr, nullptr) == SQLITE_OK;
  };
  run("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;"
      "CREATE TABLE accounts (id INTEGER PRIMARY KEY, balance INTEGER NOT NULL);"
      "CREATE TABLE transfers (id INTEGER PRIMARY KEY, payer INTEGER NOT NULL, payee INTEGER NOT NULL, "
      "amount INTEGER NOT NULL, at INTEGER NOT NULL, memo TEXT NOT NULL);"
      "INSERT INTO accounts VALUES (1, 1000000000000), (2, 0);");
  std::array<sqlite3_stmt*, 3> statements{};
  const std::array<const char*, 3> texts = {
      "UPDATE accounts SET balance = balance - 5 WHERE id = 1",
      "UPDATE accounts SET balance = balance + 5 WHERE id = 2",
      "INSERT INTO transfers (payer, payee, amount, at, memo) VALUES (1, 2, 5, ?, 'bench')"};
  for (size_t i = 0; i < texts.size(); ++i)
    ok = ok && sqlite3_prepare_v2(db, texts[i], -1, &statements[i], nullptr) == SQLITE_OK;
  seconds.reserve(transfers);
  for (uint64_t n = 0; n < transfers && ok; ++n) {
    const auto start = std::chrono::steady_clock::now();
    run("BEGIN IMMEDIATE");
    ok = ok && sqlite3_bind_int64(statements[2], 1, static_cast<sqlite3_int64>(n)) == SQLITE_OK;
    for (auto* statement : statements)
      ok = ok && sqlite3_step(statement) == SQLITE_DONE && sqlite3_reset(statement) == SQLITE_OK;
    run("COMMIT");
    seconds.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  for (auto* statement : statements)
    sqlite3_finalize(statement);
  sqlite3_close(db);
  if (!ok)
    seconds.clear();
  return seconds;
}

} // namespace neuroshard::bench

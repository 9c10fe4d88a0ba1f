// How many transfers a second does the book take, how long does a caller wait, and how fast is it checked?
//
//   ledger_bench [--dir FOLDER] [--callers 64] [--seconds 3] [--rounds 3] [--transfers 200000] [--book FILE]
//                [--json FILE]
//
// --rounds 0 leaves the first table out. --book keeps the large book in FILE and, where it is there already,
// checks it as it is: making ten million transfers takes minutes.
//
// Interleaved in each round, on the same disk: SQLite with a commit for each transfer; the store alone (what
// the book writes for a transfer, a group of one transfer a caller per fsync); signed transfers through the
// ledger actor. Then a book of --transfers signed transfers is made and checked. Medians of the rounds.

#include "actors/common/actor_status.hpp"
#include "actors/identity/node_identity.hpp"
#include "actors/ledger/account_book.hpp"
#include "actors/ledger/book_check.hpp"
#include "actors/ledger/ledger.hpp"
#include "actors/ledger/ledger_reader.hpp"
#include "actors/ledger/merkle.hpp"
#include "actors/ledger/sqlite_store.hpp"
#include "actors/ledger/utc_date.hpp"
#include "actors/ledger/work_proof.hpp"
#include "bench/ledger/single_commits.hpp"

#include <caf/actor_system.hpp>
#include <caf/actor_system_config.hpp>
#include <caf/event_based_actor.hpp>
#include <caf/scoped_actor.hpp>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include <sys/resource.h>
#include <unistd.h>

using namespace neuroshard;
using clock_type = std::chrono::steady_clock;

namespace {

constexpr const char* architecture = "00112233445566aa";
constexpr uint64_t recipients = 1'000;

struct options {
  std::string dir = ".";
  uint32_t callers = 64;
  double seconds = 3;
  int rounds = 3;
  uint64_t transfers = 200'000;
  std::string book; ///< where the large book is kept; empty: in `dir`, removed at the end
  std::string json;
};

[[noreturn]] void stop(const std::string& why) {
  std::fprintf(stderr, "ledger_bench: %s\n", why.c_str());
  std::exit(1);
}

template <class T>
T need(caf::expected<T> outcome) {
  if (!outcome)
    stop(problem_of(outcome.error()).message);
  return std::move(*outcome);
}
void need(const caf::error& failed) {
  if (failed)
    stop(problem_of(failed).message);
}

double since(clock_type::time_point start) {
  return std::chrono::duration<double>(clock_type::now() - start).count();
}

double cpu_seconds() {
  struct rusage used {};
  ::getrusage(RUSAGE_SELF, &used);
  const auto of = [](const timeval& t) {
    return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_usec) / 1e6;
  };
  return of(used.ru_utime) + of(used.ru_stime);
}

double quantile(std::vector<double> values, double q) {
  if (values.empty())
    return 0;
  const auto at = static_cast<size_t>(q * static_cast<double>(values.size() - 1));
  std::nth_element(values.begin(), values.begin() + static_cast<ptrdiff_t>(at), values.end());
  return values[at];
}

/// Moved by hand where rewards have to mature, otherwise the machine's.
struct bench_clock final : time_source {
  std::atomic<int64_t> ahead_us{0};
  int64_t unix_us() const override {
    return ahead_us + std::chrono::duration_cast<std::chrono::microseconds>(
                          std::chrono::system_clock::now().time_since_epoch())
                          .count();
  }
  int64_t steady_us() const override { return unix_us(); }
};

std::string recipient(uint64_t n) {
  char text[43];
  std::snprintf(text, sizeof text, "0x%040llx", static_cast<unsigned long long>(n % recipients + 1));
  return text;
}

struct bench_book {
  std::shared_ptr<bench_clock> clock = std::make_shared<bench_clock>();
  ledger_options options;

  explicit bench_book(std::string path) {
    options.path = std::move(path);
    options.identity =
        std::make_shared<const node_identity>(need(node_identity::make(*parse_token("ledger-bench"), 0, 0)));
    options.clock = clock;
  }

  /// An open book whose wallet has money, earned in the one way there is: a matured proof of training.
  std::unique_ptr<account_book> open() {
    auto book = need(open_book(options));
    need(book->apply(note_checkpoint{architecture, digest{}, 0}));
    work_proof proof;
    proof.chain_id = book->chain_id();
    proof.node_id = options.identity->node_id();
    proof.wallet = options.identity->address();
    proof.timestamp_us = clock->unix_us();
    proof.nonce = std::string(32, '0');
    proof.epoch_id = static_cast<uint64_t>(proof.timestamp_us / epoch_us);
    proof.steps = proof.step_end = 1;
    proof.label_tokens = 4'096'000;
    proof.layer_end = 1'000;
    proof.receipts_root = merkle_root({});
    proof.model_hash_start = proof.model_hash_end = digest{};
    proof.architecture_id = architecture;
    record_proof earned;
    earned.proof = options.identity->sign_as_node(proof_tag, canonical_payload(proof));
    earned.segments = {{digest{}, 0, 1}};
    need(book->apply(earned));
    need(book->commit());
    clock->ahead_us += 700 * us_per_second;
    need(book->run_due());
    need(book->commit());
    return book;
  }
};

struct outcome {
  double per_second = 0;
  double p50 = 0, p99 = 0;
  double rows = 0, sync = 0, sync_p99 = 0; ///< of a group's time: writing its rows, and its COMMIT
  double group = 0;                        ///< operations in a group
  double cpu = 0;                          ///< seconds of a core for each, of the whole process
};

outcome outcome_of(const std::vector<double>& latencies, double seconds) {
  return {static_cast<double>(latencies.size()) / seconds, quantile(latencies, 0.5),
          quantile(latencies, 0.99)};
}

/// The rows of a transfer as the book writes them, without signature and chain: groups of one transfer a
/// caller.
outcome store_alone(const std::string& path, const options& o) {
  auto store = need(open_sqlite_store(path));
  store->begin();
  std::vector<account_row> accounts;
  for (uint64_t n = 0; n <= recipients; ++n) {
    accounts.push_back({0, recipient(n), {}, {}, {}, 0});
    accounts.back().address[2] = n == recipients ? 'a' : '0';
    store->save_account(accounts.back());
  }
  store->commit();
  account_row& payer = accounts.back();
  std::vector<double> latencies, rows, syncs;
  transaction row;
  row.kind = transaction_kind::transfer;
  row.from = payer.address;
  row.key = public_key{};
  row.sig = signature{};
  const int32_t today = 20'000;
  const auto start = clock_type::now();
  while (since(start) < o.seconds) {
    const auto group_start = clock_type::now();
    store->begin();
    for (uint32_t i = 0; i < o.callers; ++i) {
      account_row& payee = accounts[row.seq % recipients];
      ++row.seq;
      row.id[0] = static_cast<uint8_t>(row.seq);
      row.amount = {1'000};
      row.fee = row.burned = {1};
      store->append(row, payer.id, payee.id,
                    {{payer.address, account_part::available, true, {1'001}},
                     {payee.address, account_part::available, false, {1'000}},
                     {payer.address, account_part::available, false, {1}}},
                    {payer.id, payee.id, payer.id});
      store->add_history(payer.id, history_type::send, row.seq, today);
      store->save_account(payee);
    }
    store->save_account(payer);
    store->save_totals({});
    rows.push_back(since(group_start));
    if (!store->commit())
      need(store->fault());
    syncs.push_back(since(group_start) - rows.back());
    for (uint32_t i = 0; i < o.callers; ++i)
      latencies.push_back(since(group_start));
  }
  const double seconds = since(start);
  store->close();
  outcome made = outcome_of(latencies, seconds);
  made.rows = quantile(rows, 0.5);
  made.sync = quantile(syncs, 0.5);
  made.sync_p99 = quantile(syncs, 0.99);
  return made;
}

/// One of the callers: sends its next transfer when the last one is answered, until the time is over. All of
/// them are in one actor, as the node's requests over HTTP are in its bridge.
void next_transfer(caf::event_based_actor* self, ledger_actor ledger,
                   std::shared_ptr<std::vector<double>> latencies, uint64_t n, clock_type::time_point end) {
  const auto start = clock_type::now();
  if (start >= end)
    return;
  self->request(ledger, caf::infinite, send_neuro{recipient(n), {1'000}, "", {}})
      .then(
          [=](const send_result&) {
            latencies->push_back(since(start));
            next_transfer(self, ledger, latencies, n + 7, end);
          },
          [](const caf::error& why) { stop(problem_of(why).message); });
}

outcome through_actor(const std::string& path, const options& o) {
  bench_book setup(path);
  caf::actor_system_config config;
  config.add_message_types<caf::id_block::neuroshard_common>();
  config.add_message_types<caf::id_block::neuroshard_status>();
  config.add_message_types<caf::id_block::neuroshard_ledger>();
  // The callers are one actor: further threads would only take turns looking for work.
  config.set("scheduler.policy", caf::atom("sharing")); // as the node has it
  config.set("scheduler.max-threads", size_t{1});
  caf::actor_system system(config);
  const ledger_actor ledger = spawn_ledger(system, setup.open(), setup.options);
  const auto latencies = std::make_shared<std::vector<double>>();
  const double cpu_before = cpu_seconds();
  const auto start = clock_type::now();
  const auto end =
      start + std::chrono::duration_cast<clock_type::duration>(std::chrono::duration<double>(o.seconds));
  caf::scoped_actor self(system);
  const auto callers = system.spawn([=](caf::event_based_actor* me) {
    for (uint32_t i = 0; i < o.callers; ++i)
      next_transfer(me, ledger, latencies, i, end);
  });
  self->wait_for(callers); // It ends with the last answer.
  const double seconds = since(start);
  const double cpu = cpu_seconds() - cpu_before;
  outcome made = outcome_of(*latencies, seconds);
  made.cpu = cpu / static_cast<double>(latencies->size());
  self->request(ledger, caf::infinite, get_ledger_status{})
      .receive(
          [&](const ledger_status& is) {
            made.group =
                static_cast<double>(is.transactions_committed) / static_cast<double>(is.groups_committed);
          },
          [](const caf::error& why) { stop(problem_of(why).message); });
  self->send_exit(ledger, caf::exit_reason::user_shutdown);
  return made;
}

/// Seconds of one signature and of one verification, on one core.
std::pair<double, double> signature_cost() {
  const auto identity = need(node_identity::make(*parse_token("ledger-bench"), 0, 0));
  const std::string payload(400, 'x');
  constexpr int count = 2'000;
  auto start = clock_type::now();
  signature sig{};
  for (int i = 0; i < count; ++i)
    sig = identity.sign_as_wallet(transaction_tag, payload);
  const double sign = since(start) / count;
  start = clock_type::now();
  bool all = true;
  for (int i = 0; i < count; ++i)
    all = all && verify(identity.wallet_public_key(), sig, transaction_tag, payload);
  if (!all)
    stop("a signature did not verify");
  return {sign, since(start) / count};
}

struct check_outcome {
  double made_per_second = 0;
  double verified_per_second = 0;
  double signatures_per_second = 0;
  double balance_p50 = 0, balance_p99 = 0;
  double history_p50 = 0, history_p99 = 0;
  double megabytes = 0;
};

check_outcome check_large_book(const std::string& path, const options& o) {
  check_outcome made;
  bench_book setup(path);
  auto start = clock_type::now();
  if (!std::filesystem::exists(path)) {
    auto book = setup.open();
    start = clock_type::now();
    for (uint64_t n = 0; n < o.transfers; ++n) {
      need(book->apply(send_neuro{recipient(n), {1'000}, "", {}}));
      if (n % 4'096 == 4'095)
        need(book->commit());
    }
    need(book->commit());
    made.made_per_second = static_cast<double>(o.transfers) / since(start);
    need(book->close());
  }
  made.megabytes = static_cast<double>(std::filesystem::file_size(path)) / 1e6;

  const auto verified = [&](bool signatures) {
    const auto begin = clock_type::now();
    const auto found = need(verify_book(path, signatures));
    for (const auto& fault : found.faults)
      stop(fault);
    return static_cast<double>(found.transactions) / since(begin);
  };
  made.verified_per_second = verified(false);
  made.signatures_per_second = verified(true);

  const auto reader = need(
      ledger_reader::open({path, setup.options.identity->address(), setup.clock, setup.options.params, 2}));
  std::vector<double> balance, history;
  for (int i = 0; i < 1'001; ++i) {
    start = clock_type::now();
    need(reader->balance());
    balance.push_back(since(start));
    start = clock_type::now();
    need(reader->history({}));
    history.push_back(since(start));
  }
  made.balance_p50 = quantile(balance, 0.5);
  made.balance_p99 = quantile(balance, 0.99);
  made.history_p50 = quantile(history, 0.5);
  made.history_p99 = quantile(history, 0.99);
  return made;
}

options read_options(int argc, char** argv) {
  options o;
  for (int i = 1; i < argc; ++i) {
    const std::string name = argv[i];
    const auto value = [&] { return i + 1 < argc ? std::string(argv[++i]) : std::string(); };
    if (name == "--dir")
      o.dir = value();
    else if (name == "--callers")
      o.callers = static_cast<uint32_t>(std::max(1, std::atoi(value().c_str())));
    else if (name == "--seconds")
      o.seconds = std::atof(value().c_str());
    else if (name == "--rounds")
      o.rounds = std::max(0, std::atoi(value().c_str()));
    else if (name == "--transfers")
      o.transfers = std::strtoull(value().c_str(), nullptr, 10);
    else if (name == "--book")
      o.book = value();
    else if (name == "--json")
      o.json = value();
    else
      stop("unknown argument " + name);
  }
  return o;
}

outcome median_of(std::vector<outcome> rounds) {
  const auto middle = [&](double outcome::*field) {
    std::vector<double> values;
    for (const auto& each : rounds)
      values.push_back(each.*field);
    return quantile(values, 0.5);
  };
  return {middle(&outcome::per_second), middle(&outcome::p50),  middle(&outcome::p99),
          middle(&outcome::rows),       middle(&outcome::sync), middle(&outcome::sync_p99),
          middle(&outcome::group),      middle(&outcome::cpu)};
}

} // namespace

int main(int argc, char** argv) {
  const options o = read_options(argc, argv);
  const std::string folder = o.dir + "/ledger_bench." + std::to_string(::getpid());
  std::filesystem::create_directories(folder);
  std::vector<outcome> single, store, actor;
  for (int round = 0; round < o.rounds; ++round) {
    const std::string at = folder + "/" + std::to_string(round);
    const auto latencies = bench::single_commits(at + "-single.db", static_cast<uint64_t>(o.seconds * 4'000));
    if (latencies.empty())
      stop("SQLite failed");
    double total = 0;
    for (const double each : latencies)
      total += each;
    single.push_back(outcome_of(latencies, total));
    store.push_back(store_alone(at + "-store.db", o));
    actor.push_back(through_actor(at + "-actor.db", o));
  }
  const outcome a = median_of(single), b = median_of(store), c = median_of(actor);
  const auto [sign, check] = signature_cost();
  const check_outcome large = check_large_book(o.book.empty() ? folder + "/large.db" : o.book, o);
  std::filesystem::remove_all(folder);

  if (o.rounds > 0)
    std::printf("%-34s %12s %8s %10s %10s %9s\n", "", "transfers/s", "ratio", "p50 ms", "p99 ms",
                "p99/fsync");
  const auto row = [&](const char* name, const outcome& of) {
    std::printf("%-34s %12.0f %8.2f %10.3f %10.3f %9.1f\n", name, of.per_second, of.per_second / a.per_second,
                of.p50 * 1e3, of.p99 * 1e3, of.p99 / a.p50);
  };
  if (o.rounds > 0) {
    row("SQLite, a commit each", a);
    row("store alone, grouped", b);
    row("signed, through the actor", c);
    std::printf(
        "a group of %u in the store, ms: its rows %.3f, its COMMIT %.3f (p99 %.3f; a single commit's p99 is "
        "%.3f)\n\n",
        o.callers, b.rows * 1e3, b.sync * 1e3, b.sync_p99 * 1e3, a.p99 * 1e3);
  }
  if (o.rounds > 0) {
    // Callers that wait for their answers wait callers / throughput on average, and no throughput is above
    // what the signatures alone leave.
    const double cores = std::max(1U, std::thread::hardware_concurrency());
    const double bound = 5 * a.p50;
    std::printf(
        "signed: groups of %.0f, p99 %.1f COMMITs of the store; a transfer takes %.1f us of a core, %.1f of "
        "them its signature\n",
        c.group, c.p99 / b.sync, c.cpu * 1e6, sign * 1e6);
    std::printf(
        "floor of the mean with %u callers on %.0f cores, ms: signatures alone %.3f, all the work %.3f; five "
        "single commits are %.3f,\nso that at most %.0f callers (signatures alone), %.0f (all the work) "
        "could be answered within five, on average\n\n",
        o.callers, cores, o.callers * sign / cores * 1e3, o.callers * c.cpu / cores * 1e3, bound * 1e3,
        bound * cores / sign, bound * cores / c.cpu);
  }
  std::printf("signature: %.1f us to make, %.1f us to verify, on one core (%u here)\n", sign * 1e6,
              check * 1e6, std::thread::hardware_concurrency());
  std::printf("book of %llu transfers, %.0f MB: made at %.0f/s, verified at %.0f/s, with signatures %.0f/s\n",
              static_cast<unsigned long long>(o.transfers), large.megabytes, large.made_per_second,
              large.verified_per_second, large.signatures_per_second);
  std::printf("reads there, p50 / p99 ms: balance %.3f / %.3f, first page of history %.3f / %.3f\n",
              large.balance_p50 * 1e3, large.balance_p99 * 1e3, large.history_p50 * 1e3,
              large.history_p99 * 1e3);
  if (!o.json.empty()) {
    std::ofstream out(o.json);
    const auto entry = [&](const char* name, const outcome& of, const char* end) {
      out << "  \"" << name << "\": {\"per_second\": " << of.per_second << ", \"p50_s\": " << of.p50
          << ", \"p99_s\": " << of.p99 << ", \"ratio\": " << of.per_second / a.per_second;
      if (of.rows > 0)
        out << ", \"rows_s\": " << of.rows << ", \"commit_s\": " << of.sync
            << ", \"commit_p99_s\": " << of.sync_p99;
      if (of.group > 0)
        out << ", \"group\": " << of.group << ", \"cpu_s\": " << of.cpu;
      out << "}" << end;
    };
    out << "{\n  \"callers\": " << o.callers << ", \"rounds\": " << o.rounds
        << ", \"threads\": " << std::thread::hardware_concurrency() << ",\n";
    if (o.rounds > 0) {
      entry("single_commits", a, ",\n");
      entry("store_alone", b, ",\n");
      entry("signed_through_actor", c, ",\n");
    }
    out << "  \"sign_s\": " << sign << ", \"verify_signature_s\": " << check
        << ",\n  \"large_book\": {\"transfers\": " << o.transfers << ", \"megabytes\": " << large.megabytes
        << ", \"made_per_second\": " << large.made_per_second
        << ", \"verified_per_second\": " << large.verified_per_second
        << ", \"verified_with_signatures_per_second\": " << large.signatures_per_second
        << ", \"balance_p50_s\": " << large.balance_p50 << ", \"balance_p99_s\": " << large.balance_p99
        << ", \"history_p50_s\": " << large.history_p50 << ", \"history_p99_s\": " << large.history_p99
        << "}\n}\n";
  }
  return 0;
}

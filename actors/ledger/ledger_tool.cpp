#include "actors/ledger/ledger_tool.hpp"

#include "actors/ledger/book_check.hpp"
#include "actors/ledger/book_export.hpp"

#include <algorithm>
#include <array>
#include <chrono>
#include <fstream>
#include <ostream>
#include <string_view>
#include <utility>

namespace neuroshard {

namespace {

constexpr int exit_done = 0;
constexpr int exit_arguments = 1;
constexpr int exit_storage = 3;

constexpr const char* usage =
    "usage: neuroshard ledger verify [--signatures]\n"
    "       neuroshard ledger export [--format jsonl|csv] [--records KIND] [--output FILE]\n"
    "         KIND: transactions, shares, receipts, offences, proofs or epochs; without\n"
    "         it JSON lines have all of them, CSV has transactions\n"
    "       neuroshard ledger check-proof ID [--void]\n"
    "         repeats the first step of a proof; --void, while no node runs, burns what is\n"
    "         pending of a refuted proof's reward and has the book count it as rejected\n";

constexpr std::array<std::pair<std::string_view, export_records>, 6> kinds = {{
    {"transactions", export_records::transactions},
    {"shares", export_records::shares},
    {"receipts", export_records::receipts},
    {"offences", export_records::offences},
    {"proofs", export_records::proofs},
    {"epochs", export_records::epochs},
}};

int verify(const std::string& path, bool signatures, std::ostream& out, std::ostream& err) {
  const auto begin = std::chrono::steady_clock::now();
  const auto found = verify_book(path, signatures);
  if (!found) {
    err << path << ": " << problem_of(found.error()).message << "\n";
    return exit_storage;
  }
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  out << "chain:        " << found->chain_id << "\ntransactions: " << found->transactions
      << "\naccounts:     " << found->accounts << "\nepochs:       " << found->epochs
      << "\nproofs:       " << found->proofs << "\nminted:       " << found->minted
      << "\nburned:       " << found->burned << "\n";
  if (signatures)
    out << "signatures:   " << found->signatures << "\n";
  out << "seconds:      " << seconds << "\n";
  for (const auto& fault : found->faults)
    out << "FAULT: " << fault << "\n";
  out << (found->faults.empty() ? "The book is in order.\n" : "The book is NOT in order.\n");
  return found->faults.empty() ? exit_done : exit_storage;
}

} // namespace

int run_ledger_tool(const std::vector<std::string>& args, const std::string& data_dir, std::ostream& out,
                    std::ostream& err) {
  const std::string path = data_dir + "/ledger.db";
  const std::string verb = args.empty() ? "" : args[0];
  if (verb == "--help" || verb == "-h") {
    out << usage;
    return exit_done;
  }
  bool signatures = false;
  std::string format = "jsonl", kind, output;
  for (size_t i = 1; i < args.size(); ++i) {
    const size_t equals = args[i].find('=');
    const std::string name = args[i].substr(0, equals);
    const auto value = [&]() -> std::string {
      if (equals != std::string::npos)
        return args[i].substr(equals + 1);
      return i + 1 < args.size() ? args[++i] : "";
    };
    if (verb == "verify" && args[i] == "--signatures") {
      signatures = true;
    } else if (verb == "export" && name == "--format") {
      format = value();
    } else if (verb == "export" && name == "--records") {
      kind = value();
    } else if (verb == "export" && name == "--output") {
      output = value();
    } else {
      err << "neuroshard ledger " << verb << ": unexpected argument '" << args[i] << "'\n" << usage;
      return exit_arguments;
    }
  }
  if (verb == "verify")
    return verify(path, signatures, out, err);
  if (verb != "export") {
    err << usage;
    return exit_arguments;
  }
  if (format != "jsonl" && format != "csv") {
    err << "--format: '" << format << "' is neither jsonl nor csv\n";
    return exit_arguments;
  }
  auto records = format == "csv" ? export_records::transactions : export_records::all;
  if (!kind.empty()) {
    const auto named =
        std::find_if(kinds.begin(), kinds.end(), [&](const auto& each) { return kind == each.first; });
    if (named == kinds.end()) {
      err << "--records: '" << kind
          << "' is none of transactions, shares, receipts, offences, proofs, epochs\n";
      return exit_arguments;
    }
    records = named->second;
  }
  std::ofstream file;
  if (!output.empty()) {
    file.open(output, std::ios::binary | std::ios::trunc);
    if (!file) {
      err << "Could not write " << output << "\n";
      return exit_storage;
    }
  }
  std::ostream& to = output.empty() ? out : file;
  const auto failed =
      export_book(path, format == "csv" ? export_format::csv : export_format::json_lines, records, to);
  to.flush();
  if (failed || !to) {
    err << (failed ? path + ": " + problem_of(failed).message : "Could not write the export.") << "\n";
    return exit_storage;
  }
  return exit_done;
}

} // namespace neuroshard

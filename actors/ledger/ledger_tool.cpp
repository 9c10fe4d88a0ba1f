#include "actors/ledger/ledger_tool.hpp"

#include "actors/ledger/book_check.hpp"
#include "actors/ledger/book_export.hpp"

#include <chrono>
#include <fstream>
#include <ostream>

namespace neuroshard {

namespace {

constexpr int exit_done = 0;
constexpr int exit_arguments = 1;
constexpr int exit_storage = 3;

constexpr const char* usage = "usage: neuroshard ledger verify [--signatures]\n"
                              "       neuroshard ledger export [--format jsonl|csv] [--output FILE]\n";

int verify(const std::string& path, bool signatures, std::ostream& out, std::ostream& err) {
  const auto begin = std::chrono::steady_clock::now();
  const auto found = verify_book(path, signatures);
  if (!found) {
    err << problem_of(found.error()).message << "\n";
    return exit_storage;
  }
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  out << "chain:        " << found->chain_id << "\ntransactions: " << found->transactions
      << "\naccounts:     " << found->accounts << "\nminted:       " << found->minted
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
  std::string format = "jsonl", output;
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
  std::ofstream file;
  if (!output.empty()) {
    file.open(output, std::ios::binary | std::ios::trunc);
    if (!file) {
      err << "Could not write " << output << "\n";
      return exit_storage;
    }
  }
  std::ostream& to = output.empty() ? out : file;
  const auto failed = export_book(path, format == "csv" ? export_format::csv : export_format::json_lines, to);
  to.flush();
  if (failed || !to) {
    err << (failed ? problem_of(failed).message : "Could not write the export.") << "\n";
    return exit_storage;
  }
  return exit_done;
}

} // namespace neuroshard

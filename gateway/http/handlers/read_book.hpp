#pragma once

#include "actors/ledger/ledger_reader.hpp"
#include "gateway/http/gateway.hpp"

namespace neuroshard::http {

/// Reads the book on the reader's thread.
template <class Report, class Read>
task<caf::expected<Report>> read_book(gateway& g, const exchange& x, Read read) {
  auto book = g.node.book;
  if (!book) {
    const auto none = [] {
      return caf::expected<Report>(refuse(errc::not_ready, "The ledger is not open yet."));
    };
    return run_blocking<Report>(g.reader, x.link.home(), none);
  }
  return run_blocking<Report>(g.reader, x.link.home(), [book, read] { return read(*book); });
}

} // namespace neuroshard::http

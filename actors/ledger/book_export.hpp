#pragma once

#include "actors/common/error.hpp"

#include <iosfwd>
#include <string>

namespace neuroshard {

enum class export_format : uint8_t { json_lines, csv };

/// What to write. CSV has one header and takes one kind of record.
enum class export_records : uint8_t { all, transactions, shares, receipts, offences, proofs, epochs };

/// Writes transactions with their postings, shares of settled generations, receipts, offences, own proofs and
/// epochs, each oldest first: one JSON object with its `record`, or one CSV row each (RFC 4180, a header
/// first, no postings). Amounts are decimal text of NEURO, signed bytes are hex. Reads one committed state.
caf::error export_book(const std::string& path, export_format format, export_records records,
                       std::ostream& out);

} // namespace neuroshard

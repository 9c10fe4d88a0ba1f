#pragma once

#include "actors/common/error.hpp"

#include <iosfwd>
#include <string>

namespace neuroshard {

enum class export_format : uint8_t { json_lines, csv };

/// Writes every transaction with its postings, shares and receipts, oldest first: one JSON object or one CSV
/// row each (RFC 4180, a header first). Amounts are decimal text of NEURO. Reads one committed state.
caf::error export_book(const std::string& path, export_format format, std::ostream& out);

} // namespace neuroshard

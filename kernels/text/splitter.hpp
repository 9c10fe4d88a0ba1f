#pragma once

#include <cstddef>
#include <string_view>

namespace neuroshard::text {

/// The pre-tokenizer (spec/model.md section 7): where the piece that starts at `at` ends. Merges never cross
/// pieces, and the pieces concatenated are the text. In order of preference a piece is
///  1. a contraction: 's 't 'd 'm 'll 've 're, any case,
///  2. letters, with one character before them that is no letter, number or newline,
///  3. one to three numbers,
///  4. a run of other characters, with one blank (U+0020) before and all newlines after it,
///  5. white space up to the last newline of its run,
///  6. white space up to the end of the text, or all but the last character of its run,
///  7. one white-space character.
/// Precondition: at < text.size(). Takes time linear in the white space or piece at hand; no allocation.
size_t piece_end(std::string_view text, size_t at) noexcept;

/// Calls f(piece) for each piece of the text, in order.
template <class F>
void for_each_piece(std::string_view text, F&& f) {
  for (size_t at = 0; at < text.size();) {
    const size_t end = piece_end(text, at);
    f(text.substr(at, end - at));
    at = end;
  }
}

} // namespace neuroshard::text

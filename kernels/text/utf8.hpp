#pragma once

#include "kernels/core/status.hpp"

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

/// UTF-8 as the tokenizer sees it: any bytes are legal input, what is no UTF-8 is handled byte by byte.
/// All functions are pure and may be called from any thread.
namespace neuroshard::text {

/// One character, or one byte that begins no valid UTF-8 sequence.
struct character {
  uint32_t code_point = 0; ///< U+FFFD when not valid
  uint8_t bytes = 1;       ///< 1-4; 1 when not valid
  bool valid = false;
};

/// Reads the character at `at`. Overlong forms, surrogates and values above U+10FFFF are not valid.
/// Precondition: at < text.size().
character read_character(std::string_view text, size_t at) noexcept;

/// Bytes that are no character.
struct invalid_part {
  uint8_t bytes = 1; ///< 1-3: what one U+FFFD stands for (Unicode 15, section 3.9, "maximal subparts")
  bool open = false; ///< the text ends inside a sequence that further bytes could complete
};

/// Measures the bytes at `at`, where read_character found no valid character. Precondition: at < text.size().
invalid_part read_invalid(std::string_view text, size_t at) noexcept;

/// The classes that the pre-tokenizer tells apart. Bytes that are no UTF-8 are letters.
enum class character_class : uint8_t {
  letter,  ///< Unicode L*
  number,  ///< Unicode N*
  newline, ///< LF and CR
  space,   ///< other Unicode White_Space
  other,   ///< everything else: punctuation, symbols, marks, controls
};

character_class classify(const character& c) noexcept;

/// Appends the UTF-8 form of U+FFFD.
void append_replacement(std::string& out);

/// Unicode Normalization Form C. Bytes that are no UTF-8 are kept as they are. Runs of more than 256
/// combining marks are normalized in parts: canonical ordering takes quadratic time, and no language writes
/// such runs. `out_of_memory` is the only error.
kernels::result<std::string> normalize_nfc(std::string_view text);

} // namespace neuroshard::text
